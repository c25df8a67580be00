# SPDX-License-Identifier: Apache-2.0
"""Memory: aligned, alive as long as anything made of it, and handed out again only after that."""

from __future__ import annotations

import gc
import mmap
import random
from itertools import pairwise

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import StorageError
from pq_registry.loader.memory import ALIGNMENT, Arena, RetainedMemory, anonymous, as_array
from pq_registry.loader.placement import OwnMemory

SHARD = limits.SHARD_BYTES


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("size", [1, 100, SHARD - 1, SHARD, SHARD + 1, 5 * SHARD, 20 * SHARD])
def test_arena_memory_is_aligned_and_of_the_size_asked_for(size: int):
    array = Arena(10 * SHARD).take(size)
    assert array.nbytes == size
    assert address(array) % ALIGNMENT == 0
    array[:] = 7


def test_views_keep_the_mapping_alive():
    view = as_array(anonymous(4096))[100:200].view(np.uint16)
    gc.collect()
    view[:] = 9
    assert view.sum() == 9 * 50


def test_memory_comes_back_only_when_the_last_view_is_gone():
    arena = Arena(8 * SHARD)
    first = arena.take(2 * SHARD)
    where = address(first)
    view = first[10:20].view(np.uint8).reshape(2, 5)
    del first
    gc.collect()
    other = arena.take(2 * SHARD)
    assert address(other) != where, "a view is still in use"
    exported = view.data
    del view
    gc.collect()
    another = arena.take(2 * SHARD)
    assert address(another) != where, "a buffer is still exported"
    exported.release()
    del exported
    gc.collect()
    assert address(arena.take(2 * SHARD)) == where


def test_the_lowest_place_is_used_first_and_neighbours_join():
    arena = Arena(10 * SHARD)
    arrays = [arena.take(2 * SHARD) for _ in range(5)]
    start = address(arrays[0])
    assert [address(array) - start for array in arrays] == [0, 2 * SHARD, 4 * SHARD, 6 * SHARD, 8 * SHARD]
    del arrays[1:3]
    gc.collect()
    assert address(arena.take(4 * SHARD)) == start + 2 * SHARD, "two neighbours that came back are one place"
    gc.collect()
    held = arena.take(3 * SHARD)
    assert address(held) == start + 2 * SHARD
    rest = arena.take(SHARD)
    assert address(rest) == start + 5 * SHARD


@pytest.mark.parametrize("seed", range(5))
def test_no_two_arrays_ever_share_memory(seed: int):
    rng = random.Random(seed)
    arena = Arena(40 * SHARD)
    held: dict[int, np.ndarray] = {}
    for number in range(400):
        if held and rng.random() < 0.5:
            key = rng.choice(list(held))
            assert held[key][0] == held[key][-1] == key % 251, "somebody else wrote here"
            del held[key]
        else:
            array = arena.take(rng.randrange(SHARD, 9 * SHARD))
            array[0] = array[-1] = number % 251
            held[number] = array
            del array
    spans = sorted((address(array), address(array) + array.nbytes) for array in held.values())
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    held.clear()
    array = arena.take(40 * SHARD)
    assert array.nbytes == 40 * SHARD, "everything came back"
    assert arena._free == []


def test_what_finds_no_place_gets_memory_of_its_own():
    arena = Arena(4 * SHARD)
    inside, outside, large = arena.take(3 * SHARD), arena.take(2 * SHARD), arena.take(9 * SHARD)
    for array in (inside, outside, large):
        array[:] = 1
    start = address(inside)
    del inside, outside, large
    gc.collect()
    assert address(arena.take(4 * SHARD)) == start


def test_a_closed_arena_gives_pages_back_and_its_arrays_stay_valid():
    before = resident()
    arena = Arena(32 * SHARD)
    returned, held = arena.take(20 * SHARD), arena.take(10 * SHARD)
    returned[:] = 1
    held[:] = 3
    assert resident() - before > 29 * SHARD
    del returned
    gc.collect()
    arena.close()
    assert resident() - before < 12 * SHARD
    assert int(held[0]) == int(held[-1]) == 3
    del held
    gc.collect()
    assert resident() - before < 2 * SHARD, "also what came back after the end"


@pytest.mark.parametrize("kind", [Arena, RetainedMemory])
def test_pages_that_come_back_after_the_end_are_not_taken_from_whoever_has_them_next(
    kind: type[Arena], monkeypatch: pytest.MonkeyPatch
):
    """Whatever another thread takes while an array comes back keeps what is written to it."""
    arena = kind(8 * SHARD)
    first, second = arena.take(4 * SHARD), arena.take(4 * SHARD)
    arena.close()
    discard = arena._discard
    taken = []

    def meanwhile(begin: int, end: int) -> None:
        taken.append(arena.take(4 * SHARD))
        taken[-1][:] = 7
        discard(begin, end)

    monkeypatch.setattr(arena, "_discard", meanwhile)
    del first
    gc.collect()
    monkeypatch.setattr(arena, "_discard", discard)
    taken.append(arena.take(4 * SHARD))
    taken[-1][:] = 7
    arena.close()
    del second
    gc.collect()
    assert len(taken) == 2 and all(bool((array == 7).all()) for array in taken)


def resident() -> int:
    """Bytes of private memory of this process."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))


def test_large_pages_are_asked_for_and_their_absence_is_no_error(monkeypatch: pytest.MonkeyPatch):
    advice = []

    class Mapping(mmap.mmap):
        def madvise(self, option: int, *args: int) -> None:
            advice.append(option)
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Mapping)
    assert len(anonymous(SHARD)) == SHARD
    assert advice == [mmap.MADV_HUGEPAGE]


def test_memory_the_system_refuses_is_an_error_of_the_tree():
    with pytest.raises(StorageError, match="memory") as caught:
        anonymous(2**62)
    assert "iter_tensors" in (caught.value.hint or "")


def test_a_stream_that_ends_keeps_no_memory_for_what_the_caller_still_holds():
    arena = Arena(4 * SHARD)
    held, dropped = arena.take(SHARD), arena.take(SHARD)
    OwnMemory((), arena, meter=Meter()).clear()
    del dropped
    later = arena.take(SHARD)
    assert not np.shares_memory(later, np.frombuffer(arena._mapping, np.uint8))
    assert held.size == SHARD
