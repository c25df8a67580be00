# SPDX-License-Identifier: Apache-2.0
"""Reading a safetensors header, more strictly than its own library does.

A file is ``u64le(N) || N bytes of JSON || data``. Refused are: N above ``limits.SAFETENSORS_HEADER_BYTES`` or past the
end of the file, a first byte other than ``{``, anything that is not strict JSON (duplicate keys above all), fields
beyond ``dtype``, ``shape`` and ``data_offsets``, metadata that is not text, and every table ``tensors.TensorTable``
refuses: unknown dtypes, more than 16 dimensions, holes, overlaps, trailing bytes, misalignment, hostile names. The
library accepts several of these and other readers accept more; a release must not be two models.

Use::

    size = header_size(first_8_bytes, file_size)
    table = parse_header(first_size_bytes, file_size)

``encode_header`` goes the other way: what a signed table says, for programs that read headers.
"""

from __future__ import annotations

import json
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.dtypes import DTYPES
from pq_registry.format.strict_json import Fields, Value, parse_strict
from pq_registry.format.tensors import METADATA_NAME, TensorEntry, TensorTable, dimensions

__all__ = ["DTYPES", "LENGTH_BYTES", "encode_header", "header_size", "parse_header"]

LENGTH_BYTES: Final = 8
"""The length field at the start of the file."""

_WHAT = "the safetensors header"


def header_size(first8: bytes, file_size: int) -> int:
    """How many bytes stand before the data section: the length field and the JSON text, ``8 + N``.

    Args:
        first8: the first 8 bytes of the file.
        file_size: the size of the file.

    Raises:
        FormatError: if there are fewer than 8, or N is too large or past the end of the file.
    """
    if len(first8) != LENGTH_BYTES:
        raise FormatError(f"{_WHAT} is cut off", expected=f"{LENGTH_BYTES} bytes of length", found=len(first8))
    length = int.from_bytes(first8, "little")
    largest = min(limits.SAFETENSORS_HEADER_BYTES, file_size - LENGTH_BYTES)
    if not 2 <= length <= largest:
        raise FormatError(f"{_WHAT} has an impossible size", expected=f"2 to {largest} bytes", found=length)
    return LENGTH_BYTES + length


def parse_header(prefix: bytes, file_size: int) -> TensorTable:
    """Read the header at the start of a file of ``file_size`` bytes.

    Args:
        prefix: the first ``header_size`` bytes of the file.
        file_size: the size of the file.

    Raises:
        FormatError: if the header breaks a rule of this module.
    """
    size = header_size(prefix[:LENGTH_BYTES], file_size)
    if len(prefix) != size:
        raise FormatError(f"{_WHAT} is cut off", expected=f"{size} bytes", found=len(prefix))
    text = prefix[LENGTH_BYTES:]
    # The format demands it and its library does not; other readers look for this byte to recognise the format.
    if not text.startswith(b"{"):
        raise FormatError(f"{_WHAT} does not begin with '{{'", found=repr(text[:8]))
    value = parse_strict(text, what=_WHAT, limit=limits.SAFETENSORS_HEADER_BYTES)
    if not isinstance(value, dict):  # cannot be after the check above; mypy does not know
        raise FormatError(f"{_WHAT} is not an object")
    metadata = _metadata(value.pop(METADATA_NAME, {}))
    if len(value) > limits.TENSORS:
        raise FormatError(f"{_WHAT} lists too many tensors", expected=f"at most {limits.TENSORS}", found=len(value))
    tensors = [_tensor(name, entry) for name, entry in value.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end, tensor.name))
    table = TensorTable(size, metadata, tuple(tensors))
    if table.file_size != file_size:
        raise FormatError(
            "the tensors do not cover the file", expected=f"{file_size} bytes", found=f"{table.file_size} bytes"
        )
    return table


def encode_header(table: TensorTable) -> bytes:
    """The bytes before the data section of a file with this table: the length field, and the JSON text with padding.

    As long as ``table.header_size`` says, unless whoever wrote the original needed fewer characters for the same: then
    it is longer, and ``parse_header`` gives a table that differs in that number alone.
    """
    value: dict[str, object] = {METADATA_NAME: dict(table.metadata)} if table.metadata else {}
    for entry in table.tensors:
        value[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.begin, entry.end]
        }  # fmt: skip
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * max(table.header_size - LENGTH_BYTES - len(text), 0)
    if len(text) > table.header_size - LENGTH_BYTES:
        text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _metadata(value: Value) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise FormatError(f"{_WHAT}: the metadata is malformed", expected="an object", found=repr(value)[:80])
    pairs = []
    for key, text in sorted(value.items()):
        if not isinstance(text, str):
            raise FormatError(f"{_WHAT}: the metadata is malformed", expected="text", found=repr(text)[:80])
        pairs.append((key, text))
    return tuple(pairs)


def _tensor(name: str, value: Value) -> TensorEntry:
    # A name may hold anything until the table has checked it, so it is quoted.
    fields = Fields(value, f"tensor {name!r}"[:200])
    dtype = fields.text("dtype", limit=limits.TENSOR_DTYPE_CHARS)
    shape = dimensions(fields.array("shape", limit=limits.TENSOR_RANK), fields.where)
    offsets = dimensions(fields.array("data_offsets", minimum=2, limit=2), fields.where)
    fields.done()
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])
