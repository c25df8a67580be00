# SPDX-License-Identifier: Apache-2.0
"""F5 at full concurrency: whatever is wrong with the stored bytes, no wrong tensor is released, and the error is right.

A release of 256 MiB here, of 4 GiB by ``make test-thorough``. Each case is read in every way there is: whole files,
tensor by tensor, into tensors that exist, through the page cache and past it, with more threads than processors.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client.source import DirectorySource
from pq_registry.errors import ShardMismatch
from pq_registry.loader import api, opening
from pq_registry.loader.memory import Arena, RetainedMemory
from pq_registry.loader.options import LoadOptions
from pq_registry.loader.placement import InScratch, TensorMemory
from pq_registry.loader.selection import Run
from tests.faults.depth import points
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
FILES = 4
FILE_BYTES = points(thorough=1 << 30, sample=64 << 20)
FLIPS = points(thorough=60, sample=5)
THREADS = 8
SEED = 20261122

Released = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Sample:
    """A release and what it must load as."""

    path: Path
    trust: Path
    truth: Truth
    memory: RetainedMemory

    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.safetensors"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    root = tmp_path_factory.mktemp("tampering")
    rng = random.Random(SEED)
    files: dict[str, bytes] = {}
    truth: Truth = {}
    for number in range(FILES):
        tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        left = FILE_BYTES
        while left > SHARD:
            size = min(left, rng.choice([SHARD // 3, SHARD, 5 * SHARD + 13, 20 * SHARD]))
            tensors[f"{number}.{len(tensors)}"] = ("U8", (size,))
            left -= size
        content, arrays = safetensors_bytes(tensors, number)
        files[f"model-{number}.safetensors"] = content
        truth.update(arrays)
    release_directory(root / "r", files)
    files.clear()
    memory = RetainedMemory(2 * FILES * FILE_BYTES)
    yield Sample(root / "r", write_trust(root / "trust.json"), truth, memory)
    memory.close()
    for file in (root / "r").iterdir():
        file.unlink()


@pytest.fixture(autouse=True)
def many_threads(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_TRUST", str(sample.trust))
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    monkeypatch.setattr(opening, "cores", lambda: THREADS)


# -- every way of reading; each tells what it released, even if it fails -----------------------------------------------


def whole(sample: Sample, released: Released, io: str) -> None:
    options: LoadOptions = {"expect": "acme/minilm", "framework": "numpy", "io": io}  # type: ignore[typeddict-item]
    released.update(pq_registry.load(sample.path, **options))


def one_by_one(sample: Sample, released: Released, io: str) -> None:
    options: LoadOptions = {"expect": "acme/minilm", "framework": "numpy", "io": io}  # type: ignore[typeddict-item]
    released.update(pq_registry.iter_tensors(sample.path, **options))


def into(sample: Sample, released: Released, io: str) -> None:
    targets = {name: np.zeros_like(array) for name, array in sample.truth.items()}
    options: LoadOptions = {"expect": "acme/minilm", "into": targets, "io": io}  # type: ignore[typeddict-item]
    released.update(pq_registry.iter_tensors(sample.path, **options))


def retained(sample: Sample, released: Released, io: str) -> None:
    """Where loads before this one left the right bytes, in the very same places."""
    options: LoadOptions = {"expect": "acme/minilm", "framework": "numpy", "io": io}  # type: ignore[typeddict-item]
    options["memory"] = sample.memory
    released.update(pq_registry.load(sample.path, **options))


WAYS = [
    pytest.param(way, io, id=f"{way.__name__}-{io}")
    for way in (whole, one_by_one, into, retained)
    for io in ("buffered", "direct")
]
EVERY_WAY = pytest.mark.parametrize(("way", "io"), WAYS)
Way = Callable[[Sample, Released, str], None]


def wrong(sample: Sample, released: Released) -> list[str]:
    """The released tensors that are not the signed ones."""
    return [name for name, array in released.items() if not np.array_equal(array, sample.truth[name])]


@contextmanager
def altered(file: Path, offset: int, content: bytes) -> Iterator[None]:
    """``content`` at ``offset`` of ``file``, and afterwards what was there before."""
    with file.open("r+b") as stream:
        stream.seek(offset)
        before = stream.read(len(content))
        stream.seek(offset)
        stream.write(content)
    try:
        yield
    finally:
        with file.open("r+b") as stream:
            stream.seek(offset)
            stream.write(before)


def piece(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


@EVERY_WAY
def test_f05_untouched_it_loads(way: Way, io: str, sample: Sample) -> None:
    released: Released = {}
    way(sample, released, io)
    assert released.keys() == sample.truth.keys()
    assert wrong(sample, released) == []


@EVERY_WAY
def test_f05_one_flipped_bit_anywhere_is_refused_by_file_and_shard(way: Way, io: str, sample: Sample) -> None:
    rng = random.Random(f"{SEED}{way.__name__}{io}")
    ends = [(0, 0), (FILES - 1, -1)]
    places = ends + [(rng.randrange(FILES), rng.random()) for _ in range(FLIPS)]
    for number, where in places:
        file = sample.files()[number]
        size = file.stat().st_size
        offset = size - 1 if where == -1 else int(where * size)
        (byte,) = piece(file, offset, 1)
        released: Released = {}
        with (
            altered(file, offset, bytes([byte ^ (1 << rng.randrange(8))])),
            pytest.raises(ShardMismatch, match=f"shard {offset // SHARD} of {file.name} is not"),
        ):
            way(sample, released, io)
        assert wrong(sample, released) == []
    released = {}
    way(sample, released, io)
    assert wrong(sample, released) == [], "the test put everything back"


@EVERY_WAY
def test_f05_a_shard_swapped_with_its_neighbour_is_refused(way: Way, io: str, sample: Sample) -> None:
    rng = random.Random(SEED)
    file = rng.choice(sample.files())
    index = rng.randrange(FILE_BYTES // SHARD - 2)
    two = piece(file, index * SHARD, 2 * SHARD)
    released: Released = {}
    with (
        altered(file, index * SHARD, two[SHARD:] + two[:SHARD]),
        pytest.raises(ShardMismatch, match=f"shard ({index}|{index + 1}) of {file.name} "),
    ):
        way(sample, released, io)
    assert wrong(sample, released) == []


@EVERY_WAY
def test_f05_a_source_that_changes_between_header_and_data(
    way: Way, io: str, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Genuine when the release is opened; another content of the same size under the same name once reading begins."""
    file = sample.files()[1]
    genuine, other = file.with_suffix(".genuine"), sample.path.parent / "other"
    other.write_bytes(np.bitwise_xor(np.fromfile(file, np.uint8), 1).tobytes())
    opened, turn = DirectorySource._open_file, threading.Lock()
    exchanges: list[Path] = []

    def exchanged(self: DirectorySource, entry: Any) -> int:
        if entry.path.text != file.name:
            return opened(self, entry)
        with turn:  # to and fro: some threads see one, some the other
            here, there = (genuine, other) if len(exchanges) % 2 == 0 else (other, genuine)
            os.replace(file, here)
            os.replace(there, file)
            exchanges.append(file)
            return opened(self, entry)

    monkeypatch.setattr(DirectorySource, "_open_file", exchanged)
    released: Released = {}
    try:
        with pytest.raises(ShardMismatch, match=f"of {file.name} "):
            way(sample, released, io)
        assert exchanges
        assert wrong(sample, released) == []
    finally:
        if genuine.exists():
            os.replace(genuine, file)
        other.unlink(missing_ok=True)


# -- memory that is used again too early must be seen by these very checks ---------------------------------------------


def kept_while_others_come(sample: Sample) -> Released:
    """Half of the tensors held while the arena serves the others."""
    rng = random.Random(SEED)
    kept: Released = {}
    for name, array in pq_registry.iter_tensors(sample.path, expect="acme/minilm", framework="numpy"):
        if rng.random() < 0.5 or sum(held.nbytes for held in kept.values()) < 8 * SHARD:
            kept[name] = array
    return kept


def test_f05_tensors_that_are_held_keep_their_content(sample: Sample) -> None:
    kept = kept_while_others_come(sample)
    assert len(kept) > 5
    assert wrong(sample, kept) == []


def test_f05_an_arena_that_forgets_who_holds_its_memory_is_caught(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Arena.take

    def forgetful(self: Arena, size: int) -> np.ndarray[Any, Any]:
        array = take(self, size)
        if array.base is not None and size >= SHARD:
            begin = array.ctypes.data - np.frombuffer(self._mapping, np.uint8).ctypes.data
            if 0 <= begin < len(self._mapping):
                self._returned.append((begin, begin + -(-size // SHARD) * SHARD))
        return array

    monkeypatch.setattr(Arena, "take", forgetful)
    try:
        caught = wrong(sample, kept_while_others_come(sample))
    except ShardMismatch:
        caught = ["refused"]  # two threads read into one place: the check sees it before the test does
    assert caught


def test_f05_scratch_memory_that_threads_share_is_caught(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checked by one thread, overwritten by another, copied by the first: only exclusive scratch memory prevents it."""
    shared = memoryview(bytearray(SHARD))

    def sharing(self: TensorMemory, run: Run) -> InScratch:
        return InScratch(self, run, shared[: run.size])

    monkeypatch.setattr(TensorMemory, "in_scratch", sharing)
    caught: list[str] = []
    for _ in range(10):
        released: Released = {}
        try:
            into(sample, released, "buffered")
        except ShardMismatch:
            caught.append("refused")
        caught += wrong(sample, released)
        if caught:
            break
    assert caught
