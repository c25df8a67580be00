# SPDX-License-Identifier: Apache-2.0
"""open_verified: what safetensors' safe_open gives, verified at every access, and no shard read that need not be."""

from __future__ import annotations

import gc
import os
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as reference_save

import pq_registry
from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.source import DirectorySource
from pq_registry.errors import PqregError, ShardMismatch, StorageError, UsageError
from pq_registry.loader import api
from pq_registry.loader.opened import Opened
from pq_registry.loader.options import Request
from pq_registry.loader.reading import VerifiedReader
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pqreg")] == []
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """What the release directory ``tmp_path / "r"`` holds."""
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    rng = np.random.default_rng(7)
    plain: Truth = {
        "embed": rng.standard_normal((3000, 1000), np.float32),
        "ids": rng.integers(0, 1 << 60, (300_000,), np.int64),
        "scale": np.array(2.5, np.float16),
        "none": np.empty((0, 4), np.float32),
    }
    odd, more = safetensors_bytes({"w": ("BF16", (8, SHARD // 4)), "f8": ("F8_E4M3", (9,))}, 3, header_padding=5)
    files = {
        "config.json": b'{"a": 1}',
        "empty.txt": b"",
        "model-00001.safetensors": reference_save(plain, {"format": "np", "one": "1"}),
        "sub/model-00002.safetensors": odd,
        "big.gguf": rng.integers(0, 256, 3 * SHARD + 17, np.uint8).tobytes(),
    }
    release_directory(tmp_path / "r", files)
    return {**plain, **more}


def opened(tmp_path: Path, **options: object) -> Opened:
    options.setdefault("framework", "numpy")
    return pq_registry.open_verified(tmp_path / "r", expect="acme/minilm", **options)  # type: ignore[arg-type]


def test_it_has_the_methods_of_safe_open_and_gives_the_same(tmp_path: Path, truth: Truth) -> None:
    with (
        opened(tmp_path, files=["model-00001.safetensors"]) as ours,
        safe_open(tmp_path / "r/model-00001.safetensors", framework="numpy") as theirs,
    ):
        assert sorted(ours.keys()) == sorted(theirs.keys())
        assert ours.offset_keys() == theirs.offset_keys()
        assert ours.metadata() == theirs.metadata()
        for name in theirs.keys():  # noqa: SIM118  a method of theirs
            one, other = ours.get_tensor(name), theirs.get_tensor(name)
            assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
            ours_slice, theirs_slice = ours.get_slice(name), theirs.get_slice(name)
            assert ours_slice.get_shape() == theirs_slice.get_shape()
            assert ours_slice.get_dtype() == theirs_slice.get_dtype()
        for index in (slice(5, 9), (slice(None), slice(3, 7)), (..., slice(900, 1000)), (17, slice(2, 4)), 2999):
            one, other = ours.get_slice("embed")[index], theirs.get_slice("embed")[index]
            assert one.shape == other.shape and one.tobytes() == other.tobytes(), index


def test_every_tensor_of_every_file(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_:
        assert release_.keys() == sorted(truth)
        assert release_.offset_keys() != release_.keys()
        assert release_.metadata() == {"format": "np", "one": "1"}
        assert release_.name == "acme/minilm" and release_.digest.startswith("sha256:")
        for name, array in truth.items():
            found = release_.get_tensor(name)
            assert found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes()
            assert found.flags.writeable and found.flags.aligned
    found += 0  # the caller's own memory, after the end as well


def test_a_slice_reads_the_shards_that_hold_it(tmp_path: Path, truth: Truth) -> None:
    meter = Meter()
    with opened(tmp_path, stats=meter) as release_:
        rows = release_.get_slice("embed")[1000:1010]
        assert rows.tobytes() == truth["embed"][1000:1010].tobytes()
        assert meter["hash"].count == meter["read"].count == SHARD
        again = release_.get_slice("embed")[1010:1020]  # of a shard that is kept
        assert again.tobytes() == truth["embed"][1010:1020].tobytes()
        assert meter["hash"].count == SHARD
        assert release_.get_slice("embed")[5:5].shape == (0, 1000)
        assert meter["hash"].count == SHARD
        one = release_.get_slice("w")[2]
        assert one.tobytes() == truth["w"][2].tobytes()
        assert meter["hash"].count <= 3 * SHARD


def test_no_more_shards_are_kept_than_the_limit(tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOADER_KEPT_SHARDS", 2)
    meter = Meter()
    with opened(tmp_path, stats=meter) as release_:
        for _ in range(2):
            for shard in range(4):
                release_.read_range("big.gguf", shard * SHARD, shard * SHARD + 10)
        assert len(release_._reader._kept) == 2
        assert meter["hash"].count == 2 * (3 * SHARD + 17)
        release_.read_range("big.gguf", 2 * SHARD + 5, 3 * SHARD + 5)  # the two that are kept
        assert meter["hash"].count == 2 * (3 * SHARD + 17)


def test_files(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_:
        assert [entry.path.text for entry in release_.files()] == sorted(
            str(path.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("*")
            if path.is_file() and path.name not in ("pqreg.json", "model.sig", "model.pq.sig")
        )  # fmt: skip
        for entry in release_.files():
            assert release_.read_file(entry.path.text) == (tmp_path / "r" / entry.path.text).read_bytes()
        gguf = (tmp_path / "r/big.gguf").read_bytes()
        for begin, end in (
            (0, 0),
            (0, 1),
            (SHARD - 1, SHARD + 1),
            (5, 3 * SHARD),
            (3 * SHARD, 9 * SHARD),
            (1 << 40, 5),
        ):
            assert release_.read_range("big.gguf", begin, end) == gguf[begin:end]
        with pytest.raises(UsageError, match=r"config\.json"):
            release_.read_file("config.jsn")
        for path in ("pqreg.json", "/etc/passwd", "../trust.json", ""):
            with pytest.raises(UsageError):
                release_.read_file(path)
        with pytest.raises(UsageError):
            release_.read_range("big.gguf", -1, 5)


def test_a_large_file_is_read_by_range(tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_FILE_BYTES", 100)
    with opened(tmp_path) as release_, pytest.raises(UsageError, match="read whole"):
        release_.read_file("big.gguf")


def test_a_release_without_tensors_has_files(tmp_path: Path, truth: Truth) -> None:
    release_directory(tmp_path / "other", {"model.gguf": b"GGUF" * 100})
    with pq_registry.open_verified(tmp_path / "other", expect="acme/minilm", framework="numpy") as release_:
        assert release_.read_file("model.gguf") == b"GGUF" * 100
        with pytest.raises(UsageError, match="no tensors"):
            release_.keys()


@pytest.mark.parametrize("at", [3_000_000, 100])  # in the middle of a tensor; in the header, which nobody parses
def test_what_was_altered_is_not_returned(tmp_path: Path, truth: Truth, at: int) -> None:
    path = tmp_path / "r/model-00001.safetensors"
    with opened(tmp_path) as release_:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)  # after the release was verified
        shard = at // SHARD
        for name in ("embed", "ids"):
            unit = release_._tensors()[name]
            hit = unit.start // SHARD <= shard <= (unit.end - 1) // SHARD
            for _ in range(2):  # and not after it was refused once
                if hit:
                    with pytest.raises(ShardMismatch, match=f"shard {shard} of model-00001"):
                        release_.get_tensor(name)
                else:
                    assert release_.get_tensor(name).tobytes() == truth[name].tobytes()
        data[at] ^= 1
        path.write_bytes(data)
        assert release_.get_tensor("embed").tobytes() == truth["embed"].tobytes()


def test_bytes_that_failed_are_in_reach_of_nobody(tmp_path: Path, truth: Truth) -> None:
    path = tmp_path / "r/big.gguf"
    marker = b"MARKER-OF-UNVERIFIED-BYTES"
    data = bytearray(path.read_bytes())
    data[SHARD + 10 : SHARD + 10 + len(marker)] = marker
    path.write_bytes(data)
    with opened(tmp_path) as release_:
        for begin, end in ((SHARD, 2 * SHARD), (SHARD + 5, SHARD + 100), (10, 3 * SHARD)):
            with pytest.raises(ShardMismatch) as caught:
                release_.read_range("big.gguf", begin, end)
            for frame, _ in traceback.walk_tb(caught.value.__traceback__):
                for value in frame.f_locals.values():
                    if isinstance(value, bytes | bytearray | memoryview | np.ndarray) and value is not marker:
                        assert value is data or marker not in bytes(value)


def test_many_threads_at_once(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_, ThreadPoolExecutor(8) as pool:

        def row(number: int) -> bool:
            return bool(release_.get_slice("embed")[number].tobytes() == truth["embed"][number].tobytes())

        assert all(pool.map(row, [number * 37 % 3000 for number in range(400)]))
        assert all(found.tobytes() == truth["w"].tobytes() for found in pool.map(release_.get_tensor, ["w"] * 8))


def test_after_the_end_nothing_is_read(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_:
        part = release_.get_slice("embed")
        part[0]
    for call in (lambda: part[0], lambda: release_.get_tensor("ids"), lambda: release_.read_file("config.json")):
        with pytest.raises(UsageError, match="closed"):
            call()
    release_.close()


def test_closing_ends_what_is_being_read(tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    original = DirectorySource.read_into

    def slow(*args: object, **kwargs: object) -> None:
        inside.set()
        assert go_on.wait(30)
        original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectorySource, "read_into", slow)
    monkeypatch.setattr(DirectorySource, "abort", lambda _: go_on.set())
    release_ = opened(tmp_path)
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(release_.get_tensor, "embed") for _ in range(40)]
        assert inside.wait(30)
        release_.close()
        for one in waiting:  # those whose turn had not come among them
            with pytest.raises(UsageError, match="closed"):
                one.result(30)


def test_unknown_tensors_and_options_that_mean_nothing_here(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_, pytest.raises(UsageError, match="embed"):
        release_.get_tensor("embedd")
    with opened(tmp_path, names=["ids"]) as release_:
        assert release_.keys() == ["ids"]
        with pytest.raises(UsageError):
            release_.get_tensor("embed")
    options: dict[str, Any]
    for options in ({"rank": 0, "world_size": 2}, {"plan": "dim0"}, {"check_on": "device"}, {"into": {}}):
        with pytest.raises(UsageError):
            opened(tmp_path, **options)


def test_tensors_for_any_framework(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path, framework="dlpack") as release_:
        array = np.from_dlpack(release_.get_slice("embed")[7:9, 3:])
        assert array.tobytes() == truth["embed"][7:9, 3:].tobytes()
        assert release_.get_tensor("w").dtype == "BF16"


def test_every_byte_is_told_to_whoever_watches(tmp_path: Path, truth: Truth) -> None:
    class Watcher:
        calls: list[object]

        def __init__(self) -> None:
            self.calls = []

        def start(self, label: str, total_bytes: int) -> None:
            self.calls.append((label, total_bytes))

        def advance(self, count: int) -> None:
            self.calls.append(count)

        def done(self) -> None:
            self.calls.append("done")

    watcher = Watcher()
    with opened(tmp_path, progress=watcher) as release_:
        release_.read_file("config.json")
    total = sum(entry.size for entry in release_.files())
    assert watcher.calls == [("read acme/minilm", total), len(b'{"a": 1}'), "done"]


def test_a_failed_read_is_tried_again_by_the_next(
    tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DirectorySource.read_into
    failures = [StorageError("a disk that fails once")]

    def failing(*args: object, **kwargs: object) -> None:
        if failures:
            raise failures.pop()
        original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectorySource, "read_into", failing)
    with opened(tmp_path) as release_:
        with pytest.raises(StorageError):
            release_.get_slice("embed")[5]
        assert release_.get_slice("embed")[5].tobytes() == truth["embed"][5].tobytes()


def test_what_was_sent_for_ahead_is_not_read_twice(tmp_path: Path, truth: Truth) -> None:
    meter = Meter()
    with opened(tmp_path, stats=meter) as release_:
        for offset in (SHARD, 100 * SHARD, -1):  # the others are beyond the file: nothing
            release_.prefetch(release_.file("big.gguf"), offset)
        release_.read_range("big.gguf", SHARD, 2 * SHARD)
        release_.read_range("big.gguf", SHARD + 5, 2 * SHARD)
    assert meter["hash"].count == SHARD


def test_another_process_is_told_to_open_it_again(
    tmp_path: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as release_:
        with monkeypatch.context() as patch:
            patch.setattr("pq_registry.loader.reading.os.getpid", lambda: -1)
            with pytest.raises(UsageError, match="another process"):
                release_.read_file("config.json")
        assert release_.read_file("config.json") == b'{"a": 1}'


def test_only_errors_of_ours_leave(tmp_path: Path, truth: Truth) -> None:
    with opened(tmp_path) as release_:
        (tmp_path / "r/big.gguf").unlink()
        with pytest.raises(PqregError):
            release_.read_file("big.gguf")


def test_the_reader_fills_nothing_it_did_not_check(tmp_path: Path, truth: Truth) -> None:
    request = Request.of({"expect": "acme/minilm", "framework": "numpy"})
    opened_ = api.open_for(tmp_path / "r", request)
    path = tmp_path / "r/big.gguf"
    data = bytearray(path.read_bytes())
    data[2 * SHARD + 1] ^= 1
    path.write_bytes(data)
    reader = VerifiedReader(opened_, progress=request.watcher, meter=Meter())
    entry = next(file for file in opened_.files if file.path.text == "big.gguf")
    memory = bytearray(b"\xff") * entry.size
    with pytest.raises(ShardMismatch):
        reader.read_into(entry, 0, memoryview(memory))
    assert not any(memory)
    reader.close()
