# SPDX-License-Identifier: Apache-2.0
"""``memory=``: what a load touched is used by the next one, and by nobody while anything of it is still held."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pq_registry import iter_tensors, limits, load
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.loader import api
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.fill import Checked
from pq_registry.loader.memory import RetainedMemory
from pq_registry.loader.placement import OwnMemory, WholeFiles
from pq_registry.loader.selection import runs, select
from pq_registry.loader.stream import Pace, TensorStream
from tests.releases import release_directory, write_trust
from tests.samples import NOW, manifest
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
CALLS = pytest.mark.parametrize("call", [load, lambda *a, **k: dict(iter_tensors(*a, **k))], ids=["load", "iter"])


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Truth]:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    one, first = safetensors_bytes({"a": ("U8", (3 * SHARD + 7,)), "b": ("U8", (9,))}, 1)
    two, second = safetensors_bytes({"c": ("U8", (4 * SHARD,)), "d": ("U8", (2 * SHARD,))}, 2, header_padding=3)
    release_directory(tmp_path / "r", {"x.safetensors": one, "y.safetensors": two})
    monkeypatch.setenv("PQREG_TRUST", str(write_trust(tmp_path / "trust.json")))
    return tmp_path / "r", {**first, **second}


def same(found: dict[str, Any], truth: Truth) -> bool:
    return {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in truth.items()}


def span(memory: RetainedMemory) -> tuple[int, int]:
    start = np.frombuffer(memory._mapping, np.uint8).ctypes.data
    return start, start + len(memory._mapping)


@CALLS
def test_the_next_load_is_where_the_last_one_was(call: Callable[..., Any], release: tuple[Path, Truth]) -> None:
    path, truth = release
    with RetainedMemory(20 * SHARD) as memory:
        low, high = span(memory)
        places = []
        for _ in range(3):
            found = call(path, expect="acme/minilm", framework="numpy", memory=memory)
            assert same(found, truth)
            places.append({name: array.ctypes.data for name, array in found.items() if array.size > SHARD})
            assert all(low <= place < high for place in places[-1].values())
            del found
            gc.collect()
    assert min(places[0].values()) == min(places[2].values())
    # Which thread takes memory first may differ; how much is touched does not grow.
    assert max(places[2].values()) <= low + 16 * SHARD


@CALLS
def test_what_is_held_is_not_written_again(call: Callable[..., Any], release: tuple[Path, Truth]) -> None:
    path, truth = release
    memory = RetainedMemory(64 * SHARD)
    held = [call(path, expect="acme/minilm", framework="numpy", memory=memory)["c"][5:] for _ in range(3)]
    assert same(call(path, expect="acme/minilm", framework="numpy", memory=memory), truth)
    memory.close()
    for array in held:
        assert array.tobytes() == truth["c"][5:].tobytes()


@CALLS
def test_a_load_that_finds_no_room_loads_all_the_same(call: Callable[..., Any], release: tuple[Path, Truth]) -> None:
    path, truth = release
    memory = RetainedMemory(5 * SHARD)
    assert same(call(path, expect="acme/minilm", framework="numpy", memory=memory), truth)


@CALLS
def test_nothing_of_a_load_before_stands_in_for_what_was_refused(
    call: Callable[..., Any], release: tuple[Path, Truth]
) -> None:
    """The right bytes lie in that very memory from the load before; they must not make a damaged file look right."""
    path, truth = release
    memory = RetainedMemory(40 * SHARD)
    assert same(call(path, expect="acme/minilm", framework="numpy", memory=memory), truth)
    file = path / "y.safetensors"
    content = bytearray(file.read_bytes())
    content[3 * SHARD] ^= 1
    file.write_bytes(content)
    with pytest.raises(ShardMismatch, match="shard 3 of y"):
        call(path, expect="acme/minilm", framework="numpy", memory=memory)
    content[3 * SHARD] ^= 1
    file.write_bytes(content)
    assert same(call(path, expect="acme/minilm", framework="numpy", memory=memory), truth)


def test_several_loads_may_share_it(release: tuple[Path, Truth]) -> None:
    path, truth = release
    memory = RetainedMemory(30 * SHARD)
    outcomes: list[bool] = []

    def work() -> None:
        for _ in range(5):
            found = load(path, expect="acme/minilm", framework="numpy", memory=memory)
            outcomes.append(same(found, truth))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == 20 * [True]


def test_close_gives_back_what_nobody_holds() -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    gc.collect()  # what other tests left is not to go while this one looks
    memory = RetainedMemory(64 * SHARD)
    array, other = memory.take(30 * SHARD), memory.take(20 * SHARD)
    array[:] = 1
    other[:] = 2
    before = resident()
    del array
    gc.collect()
    assert resident() > before - 10 * SHARD, "retained"
    memory.close()
    assert resident() < before - 25 * SHARD
    assert (other == 2).all()
    del other
    gc.collect()
    assert resident() < before - 45 * SHARD


@pytest.mark.parametrize("capacity", [0, -1, SHARD - 1, 1.5, True, "1"])
def test_what_is_no_capacity(capacity: Any) -> None:
    with pytest.raises(UsageError, match="capacity"):
        RetainedMemory(capacity)


@pytest.mark.parametrize(
    "option",
    [{"device": "cuda"}, {"group": "world"}, {"into": {}}, {"memory": 5}],
    ids=lambda option: next(iter(option)),
)
def test_options_it_does_not_go_with(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"memory= is|into= fills"):
        load("acme/x:v1", **{"memory": RetainedMemory(SHARD), **option})


@pytest.mark.parametrize("whole", [True, False])
def test_memory_a_thread_that_was_left_behind_still_fills_is_not_given_to_the_next_load(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that cannot be ended outlives its load, and writes into memory long after."""
    monkeypatch.setattr(limits, "INTERRUPT_SECONDS", 0.05)
    content, _ = safetensors_bytes({"a": ("U8", (SHARD,)), "b": ("U8", (3 * SHARD,))}, 1)
    units = select(manifest({"m.safetensors": content}))
    memory = RetainedMemory(20 * SHARD)
    stuck, go = threading.Semaphore(0), threading.Event()
    views: list[int] = []

    class Stuck:
        def read_into(self, file: object, offset: int, view: memoryview, *, arrived: object = None) -> None:
            views.append(np.frombuffer(view, np.uint8).ctypes.data)
            stuck.release()
            assert go.wait(60)
            view[:] = b"\xee" * len(view)

        def abort(self) -> None:
            """Does not help."""

        def close(self) -> None:
            """Nothing is open."""

    meter = Meter()
    ready = runs([units[1]], longest=1, by_owner=True)
    filler = Checked(Stuck(), request=1, progress=NullProgress(), meter=meter)
    chosen = (units[1],)
    placement = WholeFiles(chosen, memory) if whole else OwnMemory(chosen, memory, meter=meter)
    stream = TensorStream(chosen, ready, filler, placement, Numpy(), pace=Pace(2, None), meter=meter)
    tensors = stream.tensors()

    def consume() -> None:
        with pytest.raises(UsageError, match="enough"):
            next(tensors)

    consumer = threading.Thread(target=consume)
    consumer.start()
    for _ in range(2):  # both threads
        assert stuck.acquire(timeout=30)
    left = [thread for thread in threading.enumerate() if thread.name.startswith("pqreg-load")]
    stream._stop(UsageError("enough"))  # what any other failure does
    consumer.join(30)
    gc.collect()
    low, high = span(memory)
    inside = [place for place in views if low <= place < high]
    assert inside  # of tensors of their own, a shard that several share is read into scratch memory
    taken = [memory.take(SHARD) for _ in range(20)]
    for array in taken:
        assert all(abs(array.ctypes.data - place) >= SHARD for place in inside)
        array[:] = 1
    go.set()
    for thread in left:
        thread.join(30)
        assert not thread.is_alive()
    assert all((array == 1).all() for array in taken)
