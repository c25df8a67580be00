# SPDX-License-Identifier: Apache-2.0
"""The stream: what is released was checked, in order, within the ring; nothing outlives it."""

from __future__ import annotations

import gc
import mmap
import random
import threading
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import ConnectionFailed, ShardMismatch, StorageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.fill import Checked
from pq_registry.loader.memory import ALIGNMENT, Arena
from pq_registry.loader.placement import OwnMemory, WholeFiles
from pq_registry.loader.selection import Unit, runs, select
from pq_registry.loader.stream import Pace, TensorStream
from tests.samples import manifest
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


class MemorySource:
    """Files in memory, with a hook before each read."""

    def __init__(self, files: dict[str, bytes], before: Callable[[str, int], None] = lambda path, offset: None):
        self.files = files
        self.before = before
        self.reads: list[tuple[str, int, int]] = []
        self.aborted = self.closed = 0

    def read_into(self, file: FileEntry, offset: int, view: memoryview, *, arrived: object = None) -> None:
        self.before(file.path.text, offset)
        self.reads.append((file.path.text, offset, len(view)))
        view[:] = self.files[file.path.text][offset : offset + len(view)]

    def abort(self) -> None:
        self.aborted += 1

    def close(self) -> None:
        self.closed += 1


MODES = ("whole", "own")


def stream(
    units: tuple[Unit, ...],
    source: MemorySource,
    mode: str,
    *,
    workers: int = 3,
    longest: int = 1,
    request: int = 1,
    ring: int | None = None,
) -> TensorStream:
    meter = Meter()
    placement = WholeFiles(units) if mode == "whole" else OwnMemory(units, Arena(12 * SHARD), meter=meter)
    return TensorStream(
        units,
        runs(units, longest=longest, by_owner=mode == "own"),
        Checked(source, request=request, progress=NullProgress(), meter=meter),
        placement,
        Numpy(),
        pace=Pace(workers, ring),
        meter=meter,
    )


def sample(seed: int = 0) -> tuple[dict[str, bytes], Truth]:
    """Two files with tensors of every awkward size, one with an odd header."""
    rng = random.Random(seed)
    sizes = [0, 1, 3, SHARD // 2, 2 * SHARD, 5, 3 * SHARD + 17, 0, SHARD, 4]
    rng.shuffle(sizes)
    one, truth_one = safetensors_bytes({f"a{number}": ("U8", (size,)) for number, size in enumerate(sizes)}, seed)
    tensors = {
        "b0": ("I64", (SHARD // 4,)),
        "b1": ("F64", (0, 7)),
        "b2": ("F32", (1000, 7)),
        "b3": ("F32", ()),
        "b4": ("BF16", (SHARD // 2, 3)),
    }
    two, truth_two = safetensors_bytes(tensors, seed + 1, header_padding=3)
    return {"a.safetensors": one, "b.safetensors": two}, {**truth_one, **truth_two}


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pqreg-load")] == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("longest", "request_"), [(1, 1), (4, 1), (8, 8), (5, 2)])
@pytest.mark.parametrize("ring", [None, 1, 2 * SHARD])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_tensor_bit_for_bit_in_file_order(mode: str, longest: int, request_: int, ring: int | None, workers: int):
    files, truth = sample()
    units = select(manifest(files))
    source = MemorySource(files)
    options = {"longest": longest, "request": request_, "workers": workers}
    found = list(stream(units, source, mode, ring=ring, **options).tensors())
    assert [name for name, _ in found] == [unit.entry.name for unit in units]
    for name, array in found:
        assert array.dtype == truth[name].dtype and array.shape == truth[name].shape, name
        assert array.tobytes() == truth[name].tobytes(), name
        assert array.size == 0 or array.ctypes.data % min(ALIGNMENT, array.itemsize) == 0, name
    starts = [(path, offset) for path, offset, _ in source.reads]
    assert len(starts) == len(set(starts)), "no shard is read twice"
    assert source.aborted == 0


@pytest.mark.parametrize("mode", MODES)
def test_only_the_shards_of_the_names_are_read(mode: str):
    files, truth = sample()
    units = select(manifest(files), names=["b3", "a1"])
    source = MemorySource(files)
    found = dict(stream(units, source, mode).tensors())
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: truth[name].tobytes() for name in ("b3", "a1")
    }
    assert sum(length for _, _, length in source.reads) <= 4 * SHARD


@pytest.mark.parametrize("mode", MODES)
def test_each_tampered_shard_is_refused_by_name_and_number(mode: str):
    files, _ = sample()
    units = select(manifest(files))
    for path, content in files.items():
        for index in range(-(-len(content) // SHARD)):
            start = index * SHARD
            at = start + (min(SHARD, len(content) - start) * 2) // 3
            bad = bytearray(content)
            bad[at] ^= 1
            with pytest.raises(ShardMismatch, match=f"shard {index} of {path} ") as caught:
                list(stream(units, MemorySource({**files, path: bytes(bad)}), mode).tensors())
            assert caught.value.step == 8


@pytest.mark.parametrize("mode", MODES)
def test_swapped_shards_are_refused(mode: str):
    files, _ = sample()
    units = select(manifest(files))
    content = files["b.safetensors"]
    swapped = content[SHARD : 2 * SHARD] + content[:SHARD] + content[2 * SHARD :]
    with pytest.raises(ShardMismatch, match=r"of b\.safetensors"):
        list(stream(units, MemorySource({**files, "b.safetensors": swapped}), mode).tensors())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_of_a_bad_shard_is_released_and_what_came_before_was_good(mode: str):
    files, truth = sample()
    bad = bytearray(files["b.safetensors"])
    bad[-1] ^= 0x80
    units = select(manifest(files))
    released = {}
    with pytest.raises(ShardMismatch):
        for name, array in stream(units, MemorySource({**files, "b.safetensors": bytes(bad)}), mode, ring=1).tensors():
            released[name] = array
    assert "b4" not in released, "the last shard holds its end"
    assert all(array.tobytes() == truth[name].tobytes() for name, array in released.items())


@pytest.mark.parametrize("mode", MODES)
def test_a_shard_two_tensors_share_withholds_both(mode: str):
    content, _ = safetensors_bytes({"a": ("U8", (SHARD,)), "b": ("U8", (SHARD,))}, 0)
    bad = bytearray(content)
    bad[SHARD + 10] ^= 1  # in shard 1, which holds the end of a and the beginning of b
    units = select(manifest({"m.safetensors": content}))
    with pytest.raises(ShardMismatch, match="shard 1 of"):
        next(stream(units, MemorySource({"m.safetensors": bytes(bad)}), mode).tensors())


@pytest.mark.parametrize("mode", MODES)
def test_an_error_that_is_kept_keeps_no_buffer(mode: str, monkeypatch: pytest.MonkeyPatch):
    files, _ = sample()
    bad = bytearray(files["b.safetensors"])
    bad[-1] ^= 1
    buffers: list[weakref.ref[np.ndarray]] = []
    take = Arena.take

    def whole(mapping: mmap.mmap) -> np.ndarray:
        array = np.frombuffer(mapping, np.uint8)
        buffers.append(weakref.ref(array))
        return array

    def own(self: Arena, size: int) -> np.ndarray:
        array = take(self, size)
        buffers.append(weakref.ref(array if array.base is None else array.base))
        return array

    monkeypatch.setattr("pq_registry.loader.placement.as_array", whole)
    monkeypatch.setattr(Arena, "take", own)
    with pytest.raises(ShardMismatch) as kept:
        list(stream(select(manifest(files)), MemorySource({**files, "b.safetensors": bytes(bad)}), mode).tensors())
    gc.collect()
    assert buffers
    assert [buffer for buffer in buffers if buffer() is not None] == []
    assert kept.value.step == 8


@pytest.mark.parametrize("mode", MODES)
def test_the_errors_of_the_source_end_everything(mode: str):
    files, _ = sample()

    def fail(path: str, offset: int) -> None:
        if path == "b.safetensors" and offset >= SHARD:
            raise ConnectionFailed("the cable is cut")

    source = MemorySource(files, fail)
    with pytest.raises(ConnectionFailed, match="cable"):
        list(stream(select(manifest(files)), source, mode).tensors())
    assert source.aborted == 1, "reads under way in other threads are ended"


@pytest.mark.parametrize("mode", MODES)
def test_closing_early_ends_reads_under_way_and_leaves_no_thread(mode: str):
    files, _ = sample()
    blocked, released = threading.Event(), threading.Event()

    def block(path: str, offset: int) -> None:
        if path == "b.safetensors":
            blocked.set()
            assert released.wait(30)

    source = MemorySource(files, block)
    source.abort = released.set  # type: ignore[method-assign]
    tensors = stream(select(manifest(files)), source, mode).tensors()
    next(tensors)
    assert blocked.wait(30)
    tensors.close()
    assert list(tensors) == []


def test_a_stream_nobody_iterates_starts_nothing():
    files, _ = sample()
    source = MemorySource(files)
    tensors = stream(select(manifest(files)), source, "own").tensors()
    del tensors
    gc.collect()
    assert source.reads == []


def test_no_more_than_the_ring_is_read_ahead():
    count, ring = 40, 6 * SHARD
    content, _ = safetensors_bytes({f"t{number:02}": ("U8", (SHARD,)) for number in range(count)}, 0)
    units = select(manifest({"m.safetensors": content}))
    taken = 0
    excess = []

    def watch(path: str, offset: int) -> None:
        if offset > taken * SHARD + ring + 2 * SHARD:  # one tensor handed out between, one shard shared
            excess.append((offset, taken))

    for number, _ in enumerate(
        stream(units, MemorySource({"m.safetensors": content}, watch), "own", ring=ring).tensors()
    ):
        taken = number + 1
    assert excess == []


def test_a_tensor_larger_than_the_ring_is_read_all_the_same():
    content, truth = safetensors_bytes({"a": ("U8", (10 * SHARD,)), "b": ("U8", (5,)), "c": ("U8", (9 * SHARD,))}, 0)
    units = select(manifest({"m.safetensors": content}))
    found = dict(stream(units, MemorySource({"m.safetensors": content}), "own", ring=SHARD).tensors())
    assert {name: array.tobytes() for name, array in found.items()} == {k: v.tobytes() for k, v in truth.items()}


def test_tensors_that_are_kept_are_never_written_again():
    """The class of bug that corrupts weights silently: a buffer reused while somebody still looks at it."""
    count = 60
    content, truth = safetensors_bytes({f"t{number:02}": ("U8", (2 * SHARD,)) for number in range(count)}, 5)
    units = select(manifest({"m.safetensors": content}))
    rng = random.Random(3)
    kept: dict[str, np.ndarray] = {}
    for name, array in stream(units, MemorySource({"m.safetensors": content}), "own", ring=4 * SHARD).tensors():
        if rng.random() < 0.3:
            kept[name] = array[1:].view()
        del array
    assert len(kept) > 5
    for name, array in kept.items():
        assert array.tobytes() == truth[name][1:].tobytes()


def test_memory_of_dropped_tensors_is_used_again():
    count = 30
    content, _ = safetensors_bytes({f"t{number:02}": ("U8", (2 * SHARD,)) for number in range(count)}, 5)
    units = select(manifest({"m.safetensors": content}))
    addresses = set()
    for _, array in stream(units, MemorySource({"m.safetensors": content}), "own", ring=4 * SHARD).tensors():
        addresses.add(array.ctypes.data)
    assert len(addresses) < 12


def test_with_fewer_threads_than_it_wants_it_goes_on(monkeypatch: pytest.MonkeyPatch):
    files, truth = sample()
    started = limit_threads(monkeypatch, 1)
    found = dict(stream(select(manifest(files)), MemorySource(files), "own").tensors())
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in truth.items()}
    assert len(started) == 1 and not started[0].is_alive()


def test_without_a_thread_it_says_so_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch):
    files, _ = sample()
    limit_threads(monkeypatch, 0)
    source = MemorySource(files)
    with pytest.raises(StorageError, match="no thread"):
        next(stream(select(manifest(files)), source, "own").tensors())
    assert source.closed == 1


def limit_threads(monkeypatch: pytest.MonkeyPatch, most: int) -> list[threading.Thread]:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def limited(self: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    return started
