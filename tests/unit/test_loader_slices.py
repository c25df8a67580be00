# SPDX-License-Identifier: Apache-2.0
"""Parts of tensors: what numpy would give, from no more bytes than the front of the index needs."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import tensor_bits
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.slices import part


def entry(dtype: str, shape: tuple[int, ...]) -> TensorEntry:
    return TensorEntry("t", dtype, shape, 0, tensor_bits(dtype, shape) // 8)


def taken(tensor: TensorEntry, raw: np.ndarray, index: Any) -> np.ndarray:
    chosen = part(tensor, index)
    return Numpy().make(chosen.entry, chosen.take(raw[chosen.begin : chosen.end].copy()))


def sample(dtype: str, shape: tuple[int, ...]) -> tuple[TensorEntry, np.ndarray, np.ndarray]:
    tensor = entry(dtype, shape)
    raw = np.random.default_rng(5).integers(0, 2 if dtype == "BOOL" else 256, tensor.end, np.uint8)
    return tensor, raw, Numpy().make(tensor, raw)


def index_of(size: int) -> st.SearchStrategy[Any]:
    slices = st.slices(size)
    return st.one_of(slices, st.integers(-size, size - 1)) if size else slices


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    steps = [draw(index_of(size)) for size in shape]
    given_ = draw(st.integers(0, len(steps)))
    kind = draw(st.sampled_from(["tuple", "ellipsis", "tail"]))
    if kind == "tail":  # an ellipsis in front
        return shape, (..., *steps[len(steps) - given_ :])
    if kind == "ellipsis":
        return shape, (*steps[:given_], ...)
    return shape, tuple(steps[:given_]) if given_ != 1 else steps[0]


@given(cases(), st.sampled_from(["U8", "BF16", "F32", "C64"]))
def test_what_numpy_gives(case: tuple[tuple[int, ...], Any], dtype: str) -> None:
    shape, index = case
    tensor, raw, whole = sample(dtype, shape)
    found = taken(tensor, raw, index)
    expected = np.asarray(whole[index])
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("index", "range_"),
    [
        (slice(10, 20), (10 * 40, 20 * 40)),
        (slice(10, 20, 3), (10 * 40, 20 * 40)),
        (slice(None, None, -1), (0, 100 * 40)),
        (slice(20, 10, -4), (12 * 40, 21 * 40)),
        (7, (7 * 40, 8 * 40)),
        ((7, slice(1, 3)), (7 * 40 + 1 * 8, 7 * 40 + 3 * 8)),
        ((7, 4, 1), (7 * 40 + 4 * 8 + 4, 7 * 40 + 5 * 8)),
        ((slice(3, 4), slice(1, 2)), (3 * 40, 4 * 40)),
        ((..., 0), (0, 100 * 40)),
        (slice(5, 5), (0, 0)),
    ],
)
def test_no_more_is_read_than_the_front_of_the_index_needs(index: Any, range_: tuple[int, int]) -> None:
    chosen = part(entry("F32", (100, 5, 2)), index)
    assert (chosen.begin, chosen.end) == range_


def test_a_part_of_what_was_read_is_a_copy_and_the_whole_is_not() -> None:
    tensor, raw, _ = sample("U8", (10, 10))
    assert np.shares_memory(part(tensor, slice(2, 5)).take(raw[20:50]), raw)
    narrowed = part(tensor, (slice(2, 5), 0)).take(raw[20:50])
    assert not np.shares_memory(narrowed, raw) and narrowed.nbytes == 3
    assert narrowed.base is None or narrowed.base.nbytes == 3
    in_one_piece = part(tensor, (slice(2, 3), slice(4, 6))).take(raw[20:30])
    assert not np.shares_memory(in_one_piece, raw) and in_one_piece.nbytes == 2


def test_packed_elements_are_cut_between_bytes() -> None:
    tensor, raw, whole = sample("F4", (6, 4, 8))
    for index in (
        ...,
        2,
        slice(1, 5, 2),
        (2, slice(1, 3)),
        (..., slice(2, 6)),
        (slice(None), 1, slice(4, None)),
        (0, 0),
    ):
        assert taken(tensor, raw, index).tobytes() == np.ascontiguousarray(whole[index]).tobytes(), index
    for last in (1, slice(1, 4), slice(0, 3), slice(None, None, 2), slice(4, 0, -1)):
        with pytest.raises(UsageError, match="even number"):
            part(tensor, (..., last))
    odd, raw, whole = sample("F4", (2, 3))
    assert taken(odd, raw, ...).tobytes() == whole.tobytes()
    with pytest.raises(UsageError):
        part(odd, 0)


def test_f4_in_one_dimension() -> None:
    tensor, raw, whole = sample("F4", (16,))
    assert taken(tensor, raw, slice(4, 10)).tobytes() == whole[4:10].tobytes()
    assert part(tensor, slice(4, 10)).end - part(tensor, slice(4, 10)).begin == 3


@pytest.mark.parametrize(
    "index",
    [
        10,
        -11,
        (0, 0, 0),
        None,
        True,
        np.bool_(True),
        [1, 2],
        np.array([1]),
        "x",
        1.5,
        slice("a"),
        (..., ...),
        slice(0, 3, 0),
    ],
    ids=repr,
)
def test_other_indices_are_refused(index: Any) -> None:
    with pytest.raises(UsageError, match="no such part"):
        part(entry("F32", (10, 2)), index)


def test_integers_of_numpy_are_integers() -> None:
    assert part(entry("U8", (10, 2)), np.int64(3)).begin == 6


def test_every_pair_of_small_slices() -> None:
    tensor, raw, whole = sample("U16", (4, 3))
    ends = [None, -5, -1, 0, 1, 3, 9]
    for start, stop, step in product(ends, ends, [None, 1, 2, -1, -3]):
        one = slice(start, stop, step)
        assert taken(tensor, raw, one).tobytes() == whole[one].tobytes(), one
        assert taken(tensor, raw, (slice(None), one)).tobytes() == whole[:, one].tobytes(), one


class OneElement:
    """As torch's tensors are: whatever has one element answers ``operator.index``."""

    def __init__(self, *shape: int, dtype: str = "torch.int64") -> None:
        self.ndim = len(shape)
        self.dtype = dtype

    def __index__(self) -> int:
        return 1


def test_a_list_or_mask_of_one_element_is_no_integer() -> None:
    assert part(entry("F32", (10, 2)), OneElement()).entry == part(entry("F32", (10, 2)), 1).entry
    for index in (OneElement(1), OneElement(1, 1), OneElement(dtype="torch.bool")):
        with pytest.raises(UsageError, match="no such part"):
            part(entry("F32", (10, 2)), index)
