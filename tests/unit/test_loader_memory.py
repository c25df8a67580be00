# SPDX-License-Identifier: Apache-2.0
"""Memory: aligned, alive as long as anything made of it, and handed out again only after that."""

from __future__ import annotations

import gc
import mmap

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.loader.memory import ALIGNMENT, Arena, anonymous, as_array

SHARD = limits.SHARD_BYTES


def address(array: np.ndarray) -> int:
    return array.ctypes.data


@pytest.mark.parametrize("size", [1, 100, SHARD - 1, SHARD, SHARD + 1, 5 * SHARD])
def test_arena_memory_is_aligned_and_of_the_size_asked_for(size: int):
    array = Arena(keep=0).take(size)
    assert array.nbytes == size
    assert address(array) % ALIGNMENT == 0
    array[:] = 7


def test_views_keep_the_mapping_alive():
    view = as_array(anonymous(4096))[100:200].view(np.uint16)
    gc.collect()
    view[:] = 9
    assert view.sum() == 9 * 50


def test_memory_comes_back_only_when_the_last_view_is_gone():
    arena = Arena(keep=8 * SHARD)
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


def test_smaller_requests_reuse_larger_memory_and_the_best_fit_is_taken():
    arena = Arena(keep=100 * SHARD)
    large, small = arena.take(9 * SHARD), arena.take(3 * SHARD)
    where_large, where_small = address(large), address(small)
    del large, small
    gc.collect()
    assert address(arena.take(2 * SHARD)) == where_small
    gc.collect()
    held = arena.take(5 * SHARD)
    assert address(held) == where_large


def test_no_more_than_keep_is_kept():
    arena = Arena(keep=4 * SHARD)
    arrays = [arena.take(2 * SHARD) for _ in range(6)]
    del arrays
    gc.collect()
    held = arena.take(SHARD)
    assert sum(map(len, arena._idle)) <= 4 * SHARD
    assert held.nbytes == SHARD


def test_a_closed_arena_keeps_nothing_and_its_arrays_stay_valid():
    arena = Arena(keep=100 * SHARD)
    returned, held = arena.take(SHARD), arena.take(SHARD)
    del returned
    gc.collect()
    arena.close()
    assert not arena._returned and not arena._idle
    held[:] = 3
    assert int(held[-1]) == 3
    del held
    gc.collect()
    assert not arena._returned


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
