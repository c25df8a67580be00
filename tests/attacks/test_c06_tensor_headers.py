# SPDX-License-Identifier: Apache-2.0
"""C6: safetensors headers that lie about their file, or that readers disagree about (CVE-2026-7482 among others)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.tensors import TensorEntry, TensorTable
from tests.format_samples import WEIGHTS, safetensors, tensor


def read(content: bytes) -> TensorTable:
    size = header_size(content[:8], len(content))
    return parse_header(content[:size], len(content))


def u8(begin: int, end: int) -> dict[str, Any]:
    return tensor("U8", [end - begin], begin, end)


LYING = {
    "past the end": safetensors({"x": u8(0, 9)}, bytes(8)),
    "trailing bytes": safetensors({"x": u8(0, 7)}, bytes(8)),
    "a hole": safetensors({"x": u8(0, 4), "y": u8(5, 8)}, bytes(8)),
    "a hole at the start": safetensors({"x": u8(1, 8)}, bytes(8)),
    "an overlap": safetensors({"x": u8(0, 5), "y": u8(4, 8)}, bytes(8)),
    "the same bytes twice": safetensors({"x": u8(0, 8), "y": u8(0, 8)}, bytes(8)),
    "backwards": safetensors({"x": tensor("U8", [4], 8, 4)}, bytes(8)),
    "negative": safetensors({"x": tensor("U8", [1], -1, 0)}, b""),
    "too few bytes for the shape": safetensors({"x": tensor("F32", [3], 0, 8)}, bytes(8)),
    "too many bytes for the shape": safetensors({"x": tensor("F32", [1], 0, 8)}, bytes(8)),
    "a product that overflows 64 bits": safetensors({"x": tensor("U8", [2**32, 2**32 + 1], 0, 0)}),
    "a product that wraps to the size": safetensors({"x": tensor("U8", [2**52, 2**12, 1], 0, 0)}),
    "an overflow behind a zero": safetensors({"x": tensor("U8", [2**50, 0, 2**50], 0, 0)}),
    "a negative dimension": safetensors({"x": tensor("U8", [-2, -4], 0, 8)}, bytes(8)),
    "half a byte": safetensors({"x": tensor("F4", [1], 0, 1)}, bytes(1)),
    "an unknown dtype": safetensors({"x": tensor("F128", [1], 0, 16)}, bytes(16)),
    "a dtype in lower case": safetensors({"x": tensor("u8", [1], 0, 1)}, bytes(1)),
    "17 dimensions": safetensors({"x": tensor("U8", [1] * 17, 0, 1)}, bytes(1)),
    "misaligned": safetensors({"x": u8(0, 1), "y": tensor("F32", [1], 1, 5)}, bytes(5)),
    "the same name twice": safetensors(
        '{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
        bytes(1),
    ),
    "the same name twice, once escaped": safetensors(
        '{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0078":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        bytes(1),
    ),
    "a field twice": safetensors('{"x":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
    "an unknown field": safetensors({"x": {**u8(0, 1), "data": "..."}}, bytes(1)),
    "a missing field": safetensors({"x": {"dtype": "U8", "shape": [1]}}, bytes(1)),
    "three offsets": safetensors({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, bytes(1)),
    "a boolean offset": safetensors({"x": tensor("U8", [1], False, True)}, bytes(1)),
    "a fraction": safetensors('{"x":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}', bytes(1)),
    "text for a number": safetensors({"x": tensor("U8", ["1"], 0, 1)}, bytes(1)),
    "an entry that is no object": safetensors({"x": []}),
    "metadata that is no text": safetensors({"__metadata__": {"format": 1}}),
    "metadata that is no object": safetensors({"__metadata__": ["format"]}),
    "metadata that is null": safetensors({"__metadata__": None}),
    "an array": safetensors("[]"),
    "a space before the brace": safetensors(' {"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
    "a byte order mark": safetensors("\ufeff{}"),
    "NUL padding": safetensors("{}", pad=b"\0\0"),
    "text after the header": safetensors("{}", pad=b"{}"),
    "not UTF-8": safetensors('{"\udcff":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
    "a length past the end": safetensors("{}", length=3),
    "a length of one byte": safetensors("{}", length=1),
    "a length of nothing": safetensors("{}", length=0),
    "a length beyond 2^63": safetensors("{}", length=2**64 - 1),
    "nothing": b"",
    "seven bytes": b"\x02\0\0\0\0\0\0",
    "eight bytes": b"\x02\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("content", LYING.values(), ids=LYING.keys())
def test_a_header_that_lies_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        read(content)


@pytest.mark.parametrize(
    "name", ["", "\0", "a\nb", "\x1b[31m", "\x85", "x" * 513, "é" * 257, "__metadata__"], ids=ascii
)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        TensorTable(100, (), (TensorEntry(name, "U8", (1,), 0, 1),))
    if name != "__metadata__":
        with pytest.raises(FormatError):
            read(safetensors({name: u8(0, 1)}, bytes(1)))


def test_names_that_look_like_paths_are_only_names() -> None:
    assert read(safetensors({"../../etc/passwd": u8(0, 1)}, bytes(1))).tensors[0].name == "../../etc/passwd"


def test_a_header_bomb_is_refused_before_it_is_read() -> None:
    # 100 MB is what the format allows; the length field alone decides, so nothing of it is ever fetched.
    with pytest.raises(FormatError):
        header_size((100_000_000).to_bytes(8, "little"), 10**12)


def test_many_dimensions_cost_nothing() -> None:
    started = time.process_time()
    with pytest.raises(FormatError):
        read(safetensors({"x": tensor("U8", [1] * 1_000_000, 0, 1)}, bytes(1)))
    assert time.process_time() - started < 5  # of this process alone; a library that multiplies them out needs minutes


def test_depth_is_bounded() -> None:
    with pytest.raises(FormatError):
        read(safetensors('{"x":' + "[" * 10_000 + "]" * 10_000 + "}"))


@given(st.integers(0, len(WEIGHTS) - 1), st.integers(1, 255))
def test_no_flipped_byte_of_a_header_makes_another_table_of_the_same_tensors(position: int, mask: int) -> None:
    """A changed header is refused, or it is a different table: it never passes for the original."""
    content = bytearray(WEIGHTS)
    content[position] ^= mask
    original = read(WEIGHTS)
    try:
        table = read(bytes(content))
    except FormatError:
        return
    assert table != original or position >= original.header_size


@given(st.binary(max_size=200), st.integers(0, limits.FILE_BYTES))
def test_any_bytes_are_a_table_or_a_format_error(content: bytes, size: int) -> None:
    try:
        prefix = content[: header_size(content[:8], size)]
        assert parse_header(prefix, size).file_size == size
    except FormatError:
        pass
