# SPDX-License-Identifier: Apache-2.0
"""F5, verify-then-swap: files exchanged while a release is open, under readers of many threads.

``open_verified``, ``pqreg://`` and the private directory read long after the release was verified. Whoever can write to
the directory by then may exchange, shorten, lengthen, link or remove its files: a reader gets what was signed, or an
error, and never a byte of theirs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.errors import FileSetMismatch, ShardMismatch
from pq_registry.loader import api
from pq_registry.loader.integrations.materialise import materialise
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
WEIGHTS, TRUTH = safetensors_bytes({"w": ("F32", (40, SHARD // 40)), "b": ("F16", (77,))}, 1)
OTHER, _ = safetensors_bytes({"w": ("F32", (40, SHARD // 40)), "b": ("F16", (77,))}, 2)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    release_directory(tmp_path / "r", {"config.json": b"{}" * 40, "model.safetensors": WEIGHTS})
    return tmp_path / "r"


def opened(directory: Path) -> Any:
    return pq_registry.open_verified(directory, expect="acme/minilm", framework="numpy")


def written(path: Path) -> None:
    """Overwrite half of it, in place."""
    with path.open("r+b") as file:
        file.seek(SHARD // 2)
        file.write(OTHER[SHARD // 2 :])


def renamed(path: Path) -> None:
    """Put another file in its place."""
    path.with_name("other").write_bytes(OTHER)
    path.with_name("other").replace(path)


def swapped(path: Path) -> None:
    """Exchange two shards."""
    path.write_bytes(WEIGHTS[SHARD : 2 * SHARD] + WEIGHTS[:SHARD] + WEIGHTS[2 * SHARD :])


def shortened(path: Path) -> None:
    os.truncate(path, SHARD + 1)


def lengthened(path: Path) -> None:
    os.truncate(path, len(WEIGHTS) + 1)


def linked(path: Path) -> None:
    path.with_name("other").write_bytes(OTHER)
    path.unlink()
    path.symlink_to("other")


def removed(path: Path) -> None:
    path.unlink()


def restored(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(WEIGHTS)


CHANGES = (written, renamed, swapped, shortened, lengthened, linked, removed)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_was_exchanged_after_the_release_was_opened(
    directory: Path, change: Callable[[Path], None]
) -> None:
    with opened(directory) as release:
        change(directory / "model.safetensors")
        try:
            found = release.get_tensor("w")
        except (ShardMismatch, FileSetMismatch):
            found = None
        assert found is None or (change is lengthened and found.tobytes() == TRUTH["w"].tobytes())
        restored(directory / "model.safetensors")  # pulled again
        assert release.get_tensor("w").tobytes() == TRUTH["w"].tobytes()


@pytest.fixture
def attacker(directory: Path) -> Iterator[Callable[[], None]]:
    """Somebody who exchanges the weights all the time, until told to leave them as they were."""
    stop = threading.Event()

    def exchange() -> None:
        path = directory / "model.safetensors"
        while not stop.is_set():
            for change in CHANGES:
                change(path)
                restored(path)

    thread = threading.Thread(target=exchange)
    thread.start()

    def leave() -> None:
        stop.set()
        thread.join()

    yield leave
    leave()


def test_many_readers_see_what_was_signed_or_an_error(directory: Path, request: pytest.FixtureRequest) -> None:
    weights = np.frombuffer(WEIGHTS, np.uint8)
    with opened(directory) as release, ThreadPoolExecutor(6) as pool:
        leave = request.getfixturevalue("attacker")

        def read(number: int) -> str:
            row, at = number % 40, number * 7919 % (len(WEIGHTS) - 5000)
            try:
                if number % 3:
                    return "right" if release.get_slice("w")[row].tobytes() == TRUTH["w"][row].tobytes() else "WRONG"
                data = release.read_range("model.safetensors", at, at + 5000)
                return "right" if data == weights[at : at + 5000].tobytes() else "WRONG"
            except (ShardMismatch, FileSetMismatch) as error:
                return type(error).__name__

        seen = Counter(pool.map(read, range(600)))
        assert "WRONG" not in seen, seen
        leave()
        read(1)  # perhaps of a file that was open meanwhile
        assert Counter(pool.map(read, range(50))) == {"right": 50}


def test_nothing_of_theirs_is_written_for_other_programs(directory: Path, request: pytest.FixtureRequest) -> None:
    private = directory.parent / "private"
    private.mkdir(mode=0o700)
    with opened(directory) as release:
        request.getfixturevalue("attacker")
        for _ in range(30):
            with contextlib.suppress(ShardMismatch, FileSetMismatch):
                materialise(release.release, private)
            for path in private.iterdir():
                assert path.read_bytes() == {"config.json": b"{}" * 40, "model.safetensors": WEIGHTS}[path.name]
                path.unlink()
