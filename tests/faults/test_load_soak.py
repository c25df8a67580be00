# SPDX-License-Identifier: Apache-2.0
"""Loads that end in every way, one after the other in one process: nothing of any of them is left.

Whole loads, loads that are given up at any tensor, damaged and slow sources, a source that fails, a registry with a
sealed release, a device that copies late, and processes killed while they load. Afterwards there are as many
descriptors, threads, mappings and page-locked buffers as before, and no more memory. A dozen of each here, 200 loads
by ``make test-thorough``.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client.source import DirectorySource
from pq_registry.errors import ShardMismatch, StorageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader import api
from tests.accelerator import OnDevice, Simulated
from tests.faults.depth import points
from tests.releases import release_directory
from tests.samples import REPOSITORY
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.server_harness import ROOT
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
LOADS = points(thorough=200, sample=40)
SEED = 20261122
ROOM = 16 << 20
"""Bytes of memory that may be gained: records of the log, stacks that are touched to different depths."""

CHILD = """
import sys
from pathlib import Path
import pq_registry
while True:
    for name, _ in pq_registry.iter_tensors(Path(sys.argv[1]), expect=sys.argv[2], framework="numpy"):
        print(name, flush=True)
    print(len(pq_registry.load(Path(sys.argv[1]), expect=sys.argv[2], framework="numpy")), flush=True)
"""
LIBC = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3


@dataclass
class Weather:
    """What the source does to those who read: set before each load."""

    rng: random.Random
    calm: threading.Event = field(default_factory=threading.Event)
    slow: bool = False
    damage_at: int | None = None
    fail_at: int | None = None
    reads: int = 0

    def clear(self) -> None:
        self.slow, self.damage_at, self.fail_at, self.reads = False, None, None, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read_into = DirectorySource.read_into

        def reading(source: DirectorySource, file: FileEntry, offset: int, view: memoryview, **options: Any) -> None:
            self.reads += 1
            number = self.reads
            if self.fail_at is not None and number >= self.fail_at:
                raise StorageError("the disk is gone")
            read_into(source, file, offset, view, **options)
            if self.slow:
                self.calm.wait(0.004)
            if number == self.damage_at:
                view[len(view) // 2] ^= 1

        monkeypatch.setattr(DirectorySource, "read_into", reading)


@dataclass
class Place:
    """A directory, a registry, and what they must give."""

    path: Path
    truth: Truth
    sealed: dict[str, bytes]
    weather: Weather
    environment: dict[str, str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
        monkeypatch.setenv("PQREG_REGISTRY", registry.url)
        tensors = {
            f"t{number}": ("U8", (size,)) for number, size in enumerate([5, SHARD, 3 * SHARD + 9, 100, 4 * SHARD])
        }
        content, truth = safetensors_bytes(tensors, 1)
        release_directory(tmp_path / "r", {"model.safetensors": content})
        expected = pq_registry.load(f"{NAME}:v1", framework="numpy", recipient_key=recipient())
        weather = Weather(random.Random(SEED))
        weather.install(monkeypatch)
        sealed = {name: array.tobytes() for name, array in expected.items()}
        del expected
        environment = {"PYTHONPATH": str(ROOT), "PQREG_TRUST": str(tmp_path / "trust.json"), "HOME": str(tmp_path)}
        yield Place(tmp_path / "r", truth, sealed, weather, environment)
        site.close()


# -- the ways a load ends ----------------------------------------------------------------------------------------------


def right(place: Place, found: dict[str, np.ndarray[Any, Any]]) -> bool:
    return all(np.array_equal(array, place.truth[name]) for name, array in found.items())


def a_load(place: Place, rng: random.Random) -> None:
    io = rng.choice(["auto", "direct"])
    found = pq_registry.load(place.path, expect=str(REPOSITORY), framework="numpy", io=io)  # type: ignore[arg-type]
    assert found.keys() == place.truth.keys()
    assert right(place, found)


def into_what_exists(place: Place, rng: random.Random) -> None:
    into = {name: np.zeros_like(array) for name, array in place.truth.items()}
    place.weather.slow = rng.random() < 0.5
    assert right(place, pq_registry.load(place.path, expect=str(REPOSITORY), into=into))


def given_up(place: Place, rng: random.Random) -> None:
    place.weather.slow = rng.random() < 0.5
    tensors = pq_registry.iter_tensors(place.path, expect=str(REPOSITORY), framework="numpy")
    kept = dict(next(tensors) for _ in range(rng.randrange(len(place.truth))))
    tensors.close()
    assert right(place, kept)


def damaged(place: Place, rng: random.Random) -> None:
    place.weather.damage_at = rng.randrange(1, 9)
    with pytest.raises(ShardMismatch):
        pq_registry.load(place.path, expect=str(REPOSITORY), framework="numpy")


def failing(place: Place, rng: random.Random) -> None:
    place.weather.fail_at = rng.randrange(1, 9)
    place.weather.slow = True
    with pytest.raises(StorageError, match="gone"):
        dict(pq_registry.iter_tensors(place.path, expect=str(REPOSITORY), framework="numpy"))


def sealed_from_a_registry(place: Place, rng: random.Random) -> None:
    tensors = pq_registry.iter_tensors(f"{NAME}:v1", framework="numpy", recipient_key=recipient())
    for number, (name, array) in enumerate(tensors):
        assert array.tobytes() == place.sealed[name]
        if number == rng.randrange(3):
            tensors.close()


def onto_a_device(place: Place, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Simulated(seed=rng.randrange(1000))
    place.weather.slow = rng.random() < 0.5
    place.weather.damage_at = rng.choice([None, None, rng.randrange(1, 9)])
    try:
        with monkeypatch.context() as patch:
            patch.setattr(api, "framework_of", lambda _: OnDevice(device))
            tensors = pq_registry.iter_tensors(place.path, expect=str(REPOSITORY), framework="numpy")
            count = rng.randrange(len(place.truth) + 1)
            try:
                kept = dict(next(tensors) for _ in range(count))
                assert right(place, kept)
            except ShardMismatch:
                assert place.weather.damage_at
            tensors.close()
        kept = {}
        del tensors
        gc.collect()
        assert device.violations == []
        assert device.pinned == [], "page-locked memory is left"
    finally:
        device.close()


def killed(place: Place, rng: random.Random) -> None:
    """A process that loads again and again dies at a moment nobody chose."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place.path), str(REPOSITORY)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env=place.environment,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 12)):
            assert child.stdout.readline()
        child.kill()
        assert child.wait(30) == -signal.SIGKILL


WAYS: list[Callable[..., None]] = [
    a_load, into_what_exists, given_up, damaged, failing, sealed_from_a_registry, onto_a_device, killed,
]  # fmt: skip


# -- what is left ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """What a process holds."""

    descriptors: int
    threads: list[str]
    mapped: int
    memory: int

    @classmethod
    def now(cls) -> Left:
        gc.collect()
        LIBC.malloc_trim(0)  # what the allocator keeps for threads to come is nobody's
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        told = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "VmSize"))}
        return cls(
            len(os.listdir("/proc/self/fd")),
            sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(("pqreg", "simulated"))),
            int(told["VmSize"]) << 10,
            int(told["RssAnon"]) << 10,
        )


def settled(before: Left) -> Left:
    """What is left once the registry, which is in this process, has noticed that its clients hung up."""
    deadline = time.monotonic() + 20
    while (left := Left.now()).descriptors > before.descriptors and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    return left


def files_below(path: Path) -> dict[str, int]:
    return {str(file.relative_to(path)): file.stat().st_size for file in path.rglob("*") if file.is_file()}


def one(way: Callable[..., None], place: Place, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    place.weather.clear()
    more = (monkeypatch,) if way is onto_a_device else ()
    way(place, rng, *more)
    assert [t.name for t in threading.enumerate() if t.name.startswith("pqreg-load")] == [], way.__name__


def test_nothing_is_left_of_any_load(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fixed, or glibc raises it with every large block that is freed, and then keeps such blocks in pieces.
    LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 20)
    rng = random.Random(SEED)
    for way in 2 * WAYS:  # what is made once in a process is there
        one(way, place, rng, monkeypatch)
    before, files = Left.now(), files_below(place.path)
    for number in range(LOADS):
        one(rng.choice(WAYS) if number >= len(WAYS) else WAYS[number], place, rng, monkeypatch)
    after = settled(before)
    assert after.descriptors <= before.descriptors
    assert after.threads == before.threads
    assert after.memory <= before.memory + ROOM
    assert after.mapped <= before.mapped + limits.LOADER_ARENA_BYTES // 2, "a mapping of an arena is left"
    assert files_below(place.path) == files
    a_load(place, rng)


@pytest.mark.parametrize("what", ["descriptor", "thread", "memory", "arena"])
def test_a_leak_would_be_seen(what: str) -> None:
    """The measure itself."""
    stop = threading.Event()
    before = Left.now()
    kept: Any = None
    if what == "descriptor":
        kept = open(os.devnull, "rb")  # noqa: SIM115
    elif what == "thread":
        kept = threading.Thread(target=stop.wait, name="pqreg-load-9")
        kept.start()
    elif what == "memory":
        kept = np.ones(2 * ROOM, np.uint8)
    else:
        from pq_registry.loader.memory import Arena

        kept = Arena(limits.LOADER_ARENA_BYTES)
    after = Left.now()
    stop.set()
    seen = {
        "descriptor": after.descriptors > before.descriptors,
        "thread": after.threads != before.threads,
        "memory": after.memory > before.memory + ROOM,
        "arena": after.mapped > before.mapped + limits.LOADER_ARENA_BYTES // 2,
    }
    assert seen[what]
    if what == "descriptor":
        kept.close()
    if what == "thread":
        kept.join()
