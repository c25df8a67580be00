# SPDX-License-Identifier: Apache-2.0
"""F5: verify-then-swap. What is hashed is the very memory that is released, so exchanging the file gains nothing."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.source import DirectorySource
from pq_registry.crypto.shards import shard_digest
from pq_registry.errors import FileSetMismatch, PqregError, ShardMismatch
from pq_registry.loader import api
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Truth]:
    content, truth = safetensors_bytes({"a": ("U8", (3 * SHARD,)), "b": ("U8", (100,)), "c": ("U8", (2 * SHARD,))}, 1)
    release_directory(tmp_path / "r", {"model.safetensors": content})
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    return tmp_path / "r", truth


CALLS = pytest.mark.parametrize(
    "call", [pq_registry.load, lambda *a, **k: dict(pq_registry.iter_tensors(*a, **k))], ids=["load", "iter"]
)


@CALLS
def test_f05_a_file_rewritten_in_place_after_its_check_changes_nothing(call, release, monkeypatch: pytest.MonkeyPatch):
    """The strongest writer: the owner of the very inode, right after every shard's check."""
    path, truth = release
    file = path / "model.safetensors"

    places = {shard_digest(file.read_bytes()[at : at + SHARD]): at for at in range(0, file.stat().st_size, SHARD)}

    def check_then_overwrite(data: memoryview) -> bytes:
        digest = shard_digest(data)
        with file.open("r+b") as target:
            target.seek(places[digest])
            target.write(b"\xee" * len(data))
        return digest

    monkeypatch.setattr("pq_registry.loader.fill.shard_digest", check_then_overwrite)
    found = call(path, expect="acme/minilm", framework="numpy")
    assert file.read_bytes().count(b"\xee") > 4 * SHARD, "the file was overwritten"
    for name, array in found.items():
        assert array.tobytes() == truth[name].tobytes()


@CALLS
def test_f05_a_file_exchanged_between_evidence_and_shards_is_refused(call, release, monkeypatch: pytest.MonkeyPatch):
    path, _ = release
    file = path / "model.safetensors"
    evil = path.parent / "evil"
    evil.write_bytes(bytes(file.stat().st_size))
    read_into = DirectorySource.read_into

    def exchange_first(self: DirectorySource, *arguments: object, **options: object) -> None:
        with contextlib.suppress(FileNotFoundError):  # the other threads come too late
            os.replace(evil, file)
        read_into(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectorySource, "read_into", exchange_first)
    with pytest.raises(ShardMismatch):
        call(path, expect="acme/minilm", framework="numpy")


@CALLS
def test_f05_a_file_that_shrinks_while_it_is_read_is_refused(call, release, monkeypatch: pytest.MonkeyPatch):
    """No mapping of the file is used: a truncation is an error of ours, not a SIGBUS."""
    path, _ = release
    opened = ReleaseDirectory.open

    def open_then_truncate(self: ReleaseDirectory, entry) -> int:
        descriptor = opened(self, entry)
        os.truncate(path / entry.path.text, SHARD + 5)
        return descriptor

    monkeypatch.setattr(ReleaseDirectory, "open", open_then_truncate)
    with pytest.raises(FileSetMismatch):
        call(path, expect="acme/minilm", framework="numpy")


@CALLS
def test_f05_a_file_that_flickers_is_never_released_half_old_half_new(call, release):
    """A writer flips the file between two contents as fast as it can: the result is the truth or an error."""
    path, truth = release
    file = path / "model.safetensors"
    good = np.frombuffer(file.read_bytes(), np.uint8)
    stop = threading.Event()

    def flicker() -> None:
        descriptor = os.open(file, os.O_WRONLY)
        evil = bytes(good ^ 1)
        while not stop.is_set():
            os.pwrite(descriptor, evil, 0)
            os.pwrite(descriptor, good.tobytes(), 0)
        os.close(descriptor)

    writer = threading.Thread(target=flicker)
    writer.start()
    outcomes = set()
    try:
        for _ in range(30):
            try:
                found = call(path, expect="acme/minilm", framework="numpy")
            except PqregError as error:
                outcomes.add(type(error).__name__)
            else:
                outcomes.add("truth")
                assert all(array.tobytes() == truth[name].tobytes() for name, array in found.items())
    finally:
        stop.set()
        writer.join()
    assert outcomes <= {"truth", "ShardMismatch"}


@CALLS
def test_f05_links_are_not_followed(call, release):
    path, _ = release
    file = path / "model.safetensors"
    elsewhere = path.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(FileSetMismatch):
        call(path, expect="acme/minilm", framework="numpy")
