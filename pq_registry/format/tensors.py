# SPDX-License-Identifier: Apache-2.0
"""Tensor tables: what a safetensors header says, as values that cannot lie about their file.

The table is part of the signed manifest, so that a reader never has to parse an unsigned header. A table is accepted
only if its tensors tile the data section exactly: sorted by begin, then end, then name, each starts where the one
before ends, the first at 0, each sized exactly by shape and dtype and aligned to its dtype within the data section.
Names are unique, not empty, free of control characters and at most ``limits.TENSOR_NAME_BYTES`` long. Nothing is
clamped or rounded: what does not fit is refused.

Alignment counts from the start of the data section, not of the file: writers before safetensors 0.3 did not pad their
headers, and readers that place the data section in a buffer of their own do not depend on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.dtypes import DTYPES, tensor_bits
from pq_registry.format.strict_json import Fields, Value

__all__ = [
    "CONTROLS",
    "DTYPES",
    "METADATA_NAME",
    "TensorEntry",
    "TensorTable",
    "check_tensor_name",
    "dimensions",
    "tensor_bits",
]

METADATA_NAME: Final = "__metadata__"
"""The header's key that is not a tensor."""

CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters: what no name in a signed document may hold."""

_ENTRY_KEYS = frozenset({"name", "dtype", "shape", "begin", "end"})


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor; ``begin`` and ``end`` are offsets in the data section. Checked by its table."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The content of a safetensors header.

    ``header_size`` is the number of bytes before the data section: the 8 of the length field and the JSON text with
    its padding. A tensor therefore occupies ``header_size + begin`` to ``header_size + end`` of the file. Metadata is
    sorted by key, tensors by (begin, end, name).
    """

    header_size: int
    metadata: tuple[tuple[str, str], ...]
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        """Refuse a table that no well-formed safetensors file can have.

        Raises:
            FormatError: naming the first rule that is broken.
        """
        if not 10 <= self.header_size <= 8 + limits.SAFETENSORS_HEADER_BYTES:
            raise FormatError(
                "the header's size is impossible",
                expected=f"10 to {8 + limits.SAFETENSORS_HEADER_BYTES} bytes",
                found=self.header_size,
            )
        if len(self.metadata) > limits.SAFETENSORS_METADATA:
            raise FormatError(
                "too much metadata",
                expected=f"at most {limits.SAFETENSORS_METADATA} entries",
                found=len(self.metadata),
            )
        if any(one[0] >= next_one[0] for one, next_one in pairwise(self.metadata)):
            raise FormatError("the metadata is not sorted", expected="keys sorted by code point, each once")
        if len(self.tensors) > limits.TENSORS:
            raise FormatError("too many tensors", expected=f"at most {limits.TENSORS}", found=len(self.tensors))
        _check_tiling(self.tensors)

    @property
    def data_size(self) -> int:
        """Bytes of the data section."""
        return self.tensors[-1].end if self.tensors else 0

    @property
    def file_size(self) -> int:
        """Bytes of the whole file."""
        return self.header_size + self.data_size

    def to_value(self) -> Value:
        """The JSON value of this table in a manifest."""
        return {
            "entries": [
                {
                    "begin": entry.begin,
                    "dtype": entry.dtype,
                    "end": entry.end,
                    "name": entry.name,
                    "shape": list(entry.shape),
                }
                for entry in self.tensors
            ],
            "header_size": self.header_size,
            "metadata": [[key, value] for key, value in self.metadata],
        }

    @classmethod
    def from_value(cls, value: Value, where: str) -> TensorTable:
        """Read the JSON value of a table; ``where`` names it in messages.

        Raises:
            FormatError: if it is not exactly what ``to_value`` writes.
        """
        fields = Fields(value, where)
        header_size = fields.integer("header_size")
        metadata = []
        for pair in fields.array("metadata", limit=limits.SAFETENSORS_METADATA):
            if not isinstance(pair, list) or len(pair) != 2:
                fields.fail("metadata", "pairs of a key and a text", pair)
            key, text = pair
            if not isinstance(key, str) or not isinstance(text, str):
                fields.fail("metadata", "pairs of a key and a text", pair)
            metadata.append((key, text))
        tensors = [_entry(item, where) for item in fields.array("entries", limit=limits.TENSORS)]
        fields.done()
        try:
            return cls(header_size, tuple(metadata), tuple(tensors))
        except FormatError as error:
            raise FormatError(f"{where}: {error.message}", expected=error.expected, found=error.found) from None


def _entry(item: Value, where: str) -> TensorEntry:
    # By hand rather than with Fields: a large model has tens of thousands of these.
    if isinstance(item, dict) and item.keys() == _ENTRY_KEYS:
        name, dtype, shape = item["name"], item["dtype"], item["shape"]
        begin, end = item["begin"], item["end"]
        if (
            isinstance(name, str)
            and isinstance(dtype, str)
            and isinstance(shape, list)
            and type(begin) is int
            and type(end) is int
        ):
            return TensorEntry(name, dtype, tuple(dimensions(shape, where)), begin, end)
    raise FormatError(
        f"{where}: an entry is wrong",
        expected="an object with exactly name, dtype, shape, begin and end",
        found=repr(item)[:120],
    )


def dimensions(shape: list[Value], where: str) -> list[int]:
    """The dimensions in ``shape``; true and false are not integers.

    Raises:
        FormatError: if an item is anything but a non-negative integer.
    """
    sizes: list[int] = []
    for size in shape:
        if type(size) is not int or size < 0:
            raise FormatError(f"{where}: a shape is wrong", expected="non-negative integers", found=repr(shape)[:120])
        sizes.append(size)
    return sizes


def check_tensor_name(name: str) -> None:
    """Refuse names that break terminals, logs or other parsers.

    Raises:
        FormatError: naming the rule.
    """
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise FormatError("a tensor's name is not text", expected="what can be written as UTF-8") from None
    if not 0 < size <= limits.TENSOR_NAME_BYTES or CONTROLS.search(name) or name == METADATA_NAME:
        raise FormatError(
            "a tensor's name is not allowed",
            expected=f"1 to {limits.TENSOR_NAME_BYTES} bytes without control characters, not {METADATA_NAME}",
            found=repr(name)[:120],
        )


def _check_tiling(tensors: tuple[TensorEntry, ...]) -> None:
    position = 0
    previous = ("", -1, -1)
    names = set()
    for entry in tensors:
        check_tensor_name(entry.name)
        names.add(entry.name)
        bits = tensor_bits(entry.dtype, entry.shape)
        size = entry.end - entry.begin
        if bits != size * 8:
            raise FormatError(
                "a tensor's offsets disagree with its shape and dtype",
                expected=f"{bits} bits",
                found=f"{size * 8} bits for {entry.name!r}"[:200],
            )
        if entry.begin != position:
            raise FormatError(
                "the tensors leave a hole, overlap or are not sorted",
                expected=f"offset {position}",
                found=f"{entry.begin} for {entry.name!r}"[:200],
            )
        if entry.begin % max(DTYPES[entry.dtype] // 8, 1):
            raise FormatError(
                "a tensor is misaligned",
                expected=f"an offset divisible by the size of {entry.dtype}",
                found=f"{entry.begin} for {entry.name!r}"[:200],
            )
        # At one offset any number of empty tensors may meet; their order is that of their names.
        order = (entry.name, entry.begin, entry.end)
        if order[1:] == previous[1:] and order[0] <= previous[0]:
            raise FormatError("the tensors are not sorted", expected="names sorted by code point at equal offsets")
        previous = order
        position = entry.end
    if len(names) != len(tensors):
        raise FormatError("two tensors have the same name", expected="unique names")
