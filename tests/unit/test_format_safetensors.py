# SPDX-License-Identifier: Apache-2.0
"""Safetensors headers as tables: what the library writes is read, and the table is the file's only description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pq_registry.errors import FormatError
from pq_registry.format.safetensors import DTYPES, encode_header, header_size, parse_header
from pq_registry.format.tensors import TensorEntry, TensorTable
from tests.format_samples import WEIGHTS, safetensors, tensor


def table_of(content: bytes) -> TensorTable:
    size = header_size(content[:8], len(content))
    return parse_header(content[:size], len(content))


def test_the_table_is_sorted_by_offset_and_then_by_name() -> None:
    table = table_of(WEIGHTS)
    assert table.tensors == (
        TensorEntry("b", "F32", (2, 2), 0, 16),
        TensorEntry("nothing", "I64", (0, 4), 16, 16),
        TensorEntry("a", "BF16", (3,), 16, 22),
    )
    assert table.metadata == (("format", "pt"),)
    assert (table.data_size, table.file_size) == (22, len(WEIGHTS))
    assert WEIGHTS[table.header_size :] == bytes(range(22))


def test_a_table_comes_back_from_its_json() -> None:
    table = table_of(WEIGHTS)
    assert TensorTable.from_value(json.loads(json.dumps(table.to_value())), "x") == table


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "h": np.ones((3,), np.float16),
        "s": np.array(7, np.int64),
        "e": np.zeros((0, 5), np.uint8),
        "ключ": np.array([True, False]),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np", "a": ""})
    content = (tmp_path / "x.safetensors").read_bytes()
    table = table_of(content)
    assert table.metadata == (("a", ""), ("format", "np"))
    assert {entry.name: entry.shape for entry in table.tensors} == {name: a.shape for name, a in arrays.items()}
    for entry in table.tensors:
        data = content[table.header_size + entry.begin : table.header_size + entry.end]
        assert data == arrays[entry.name].tobytes()


def test_a_header_made_of_a_table_says_the_same() -> None:
    table = table_of(WEIGHTS)
    header = encode_header(table)
    assert len(header) == table.header_size
    assert table_of(header + bytes(table.data_size)) == table


def test_a_header_that_was_shorter_than_ours_grows() -> None:
    content = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    table = table_of(len(content).to_bytes(8, "little") + content + b"a")
    assert encode_header(table) == len(content).to_bytes(8, "little") + content
    cut = TensorTable(table.header_size - 5, table.metadata, table.tensors)
    header = encode_header(cut)
    assert len(header) % 8 == 0
    assert table_of(header + b"a").tensors == table.tensors


def test_order_and_spaces_of_the_header_do_not_matter_to_the_tensors() -> None:
    one = safetensors({"x": tensor("U8", [1], 0, 1), "y": tensor("U8", [1], 1, 2)}, b"ab")
    two = safetensors(
        '{ "y":{"data_offsets":[1,2],"dtype":"U8","shape":[1]},\n"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"ab",
        pad=b"   ",
    )
    assert table_of(one).tensors == table_of(two).tensors


def test_files_without_tensors() -> None:
    assert table_of(safetensors("{}")).tensors == ()
    assert table_of(safetensors({"__metadata__": {}})).metadata == ()
    assert table_of(safetensors({"s": tensor("F64", [], 0, 8)}, bytes(8))).tensors[0].shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_its_size(dtype: str) -> None:
    size = DTYPES[dtype]  # bytes of eight elements
    assert table_of(safetensors({"x": tensor(dtype, [8], 0, size)}, bytes(size))).tensors[0].dtype == dtype
    with pytest.raises(FormatError):
        table_of(safetensors({"x": tensor(dtype, [8], 0, size + 1)}, bytes(size + 1)))


def test_the_prefix_must_be_the_whole_header() -> None:
    size = header_size(WEIGHTS[:8], len(WEIGHTS))
    for prefix in (WEIGHTS[: size - 1], WEIGHTS[: size + 1], b"", WEIGHTS[:8]):
        with pytest.raises(FormatError):
            parse_header(prefix, len(WEIGHTS))


def test_an_unpadded_header_of_an_old_writer_is_read() -> None:
    content = safetensors({"x": tensor("F64", [1], 0, 8)}, bytes(8))
    odd = content if (len(content) - 8) % 8 else safetensors({"xy": tensor("F64", [1], 0, 8)}, bytes(8))
    assert table_of(odd).header_size % 8
