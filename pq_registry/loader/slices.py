# SPDX-License-Identifier: Apache-2.0
"""Which bytes of a tensor an index of numpy's basic kind needs, and what is taken of them afterwards.

Integers in front and the first slice after them choose one contiguous range of the tensor, which is all that is read:
rows of a matrix, or rows of one expert among many. What remains of the index is applied to what was read, and copied,
so that nothing else of it stays in memory.

Elements smaller than a byte (F4) are packed along the last dimension; there a slice begins and ends between bytes.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import prod
from types import EllipsisType
from typing import Any, Final

import numpy as np

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import DTYPES
from pq_registry.loader.dtypes import Raw

Step = int | slice
"""An index of one dimension; integers are not negative."""

_ITEMS: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a tensor: ``begin`` to ``end`` of its bytes, seen as ``block`` of items, and ``index`` into that.

    ``entry`` describes the result.
    """

    begin: int
    end: int
    item: int
    block: tuple[int, ...]
    index: tuple[Step, ...]
    entry: TensorEntry

    def take(self, raw: Raw) -> Raw:
        """The bytes of the result, from those of the range."""
        array = raw.view(_ITEMS[self.item]).reshape(self.block)
        taken = array[self.index]
        if taken.size == array.size and taken.flags.c_contiguous:
            return raw
        return np.array(taken, order="C").reshape(-1).view(np.uint8)


def part(entry: TensorEntry, index: Any) -> Part:
    """The part of a tensor that ``index`` chooses.

    Args:
        entry: the tensor.
        index: what stands between the brackets: integers, slices with any step, ``...``, or a tuple of these.

    Raises:
        UsageError: if it is no such index, out of range, or cuts through a byte.
    """
    steps = _steps(entry, index)
    shape = tuple(_length(step, size) for step, size in zip(steps, entry.shape, strict=True) if isinstance(step, slice))
    dims, item = entry.shape, DTYPES[entry.dtype] // 8
    if not item:
        dims, steps = _packed(entry, steps)
        item = 1
    begin, depth = 0, 0
    while depth < len(dims) and isinstance(step := steps[depth], int):
        begin += step * item * prod(dims[depth + 1 :])
        depth += 1
    block, rest = dims[depth:], steps[depth:]
    if rest:
        chosen = range(*_slice(rest[0]).indices(block[0]))
        low, high = (min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1) if chosen else (0, 0)
        begin += low * item * prod(block[1:])
        block = (high - low, *block[1:])
        rest = (_moved(chosen, low), *rest[1:])
    if not prod(shape):
        begin, block, rest = 0, (0,), (slice(None),)
    size = item * prod(block)
    bits = DTYPES[entry.dtype] * prod(shape)
    return Part(begin, begin + size, item, block, rest, TensorEntry(entry.name, entry.dtype, shape, 0, bits // 8))


def _steps(entry: TensorEntry, index: Any) -> tuple[Step, ...]:
    """One index for each dimension."""
    given = index if isinstance(index, tuple) else (index,)
    rank = len(entry.shape)
    gaps = sum(isinstance(one, EllipsisType) for one in given)
    if gaps > 1 or len(given) - gaps > rank:
        raise _refused(entry, index, f"at most {rank} integers or slices, and one ...")
    full: list[Any] = []
    for one in given:
        full += [slice(None)] * (rank - len(given) + 1) if isinstance(one, EllipsisType) else [one]
    full += [slice(None)] * (rank - len(full))
    return tuple(_step(entry, one, size) for one, size in zip(full, entry.shape, strict=True))


def _step(entry: TensorEntry, one: Any, size: int) -> Step:
    try:
        if isinstance(one, slice):
            one.indices(size)
            return one
        # A tensor of one element would answer operator.index, where its framework takes it for a list or a mask.
        mask = isinstance(one, bool) or "bool" in str(getattr(one, "dtype", ""))
        if mask or getattr(one, "ndim", None):
            raise TypeError
        number = operator.index(one)
    except (TypeError, ValueError):
        raise _refused(entry, one, "integers, slices of integers, and ...") from None
    if not -size <= number < size:
        raise _refused(entry, one, f"{-size} to {size - 1}")
    return number % size


def _packed(entry: TensorEntry, steps: tuple[Step, ...]) -> tuple[tuple[int, ...], tuple[Step, ...]]:
    """Dimensions and index with the last dimension counted in bytes."""
    bits = DTYPES[entry.dtype]
    per_byte = 0 if 8 % bits else 8 // bits
    if all(isinstance(step, slice) and step.indices(size) == (0, size, 1) for step, size in _pairs(entry, steps)):
        return (entry.end - entry.begin,), (slice(None),)
    last = steps[-1]
    if isinstance(last, slice) and per_byte and not entry.shape[-1] % per_byte:
        low, high, stride = last.indices(entry.shape[-1])
        if stride == 1 and not low % per_byte and not high % per_byte:
            cut = slice(low // per_byte, max(low, high) // per_byte)
            return (*entry.shape[:-1], entry.shape[-1] // per_byte), (*steps[:-1], cut)
    raise _refused(entry, last, f"whole bytes of {entry.dtype}: in the last dimension an even number of elements")


def _pairs(entry: TensorEntry, steps: tuple[Step, ...]) -> list[tuple[Step, int]]:
    return list(zip(steps, entry.shape, strict=True))


def _slice(step: Step) -> slice:
    assert isinstance(step, slice)
    return step


def _length(step: Step, size: int) -> int:
    return len(range(*_slice(step).indices(size)))


def _moved(chosen: range, low: int) -> slice:
    """``chosen`` as a slice of what begins at ``low``."""
    if not chosen:
        return slice(0, 0)
    stop = chosen[-1] - low + (1 if chosen.step > 0 else -1)
    return slice(chosen[0] - low, stop if stop >= 0 else None, chosen.step)


def _refused(entry: TensorEntry, index: Any, expected: str) -> UsageError:
    return UsageError(
        f"the tensor {entry.name!r} of shape {list(entry.shape)} has no such part",
        expected=expected,
        found=repr(index)[:80],
        hint="get_tensor gives the whole tensor, to index it as its framework allows",
    )
