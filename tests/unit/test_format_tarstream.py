# SPDX-License-Identifier: Apache-2.0
"""The tar of bundles: what stock tar reads, and exactly one form of it is read back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import FormatError
from pq_registry.format.tarstream import BLOCK, END, MEMBER_BYTES, header, member_bytes, padding, parse_header


@given(st.integers(0, MEMBER_BYTES))
def test_a_header_reads_back(size: int) -> None:
    block = header("documents/00001", size)
    assert (len(block), parse_header(block, "documents/00001")) == (BLOCK, size)
    assert (size + padding(size)) % BLOCK == 0
    assert member_bytes(size) == BLOCK + size + padding(size)


@given(st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_is_another_size(place: int, change: int) -> None:
    block = bytearray(header("bundle.json", 1000))
    block[place] ^= change
    with pytest.raises(FormatError):
        parse_header(bytes(block), "bundle.json")


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../b", "a/b/c", ".hidden", "a/.b", "a\nb", "ü", "a//b", "a/", "x" * 101, "a\0b"],
)
def test_no_other_names_can_be_written(name: str) -> None:
    with pytest.raises(FormatError):
        header(name, 1)


@pytest.mark.parametrize("size", [-1, MEMBER_BYTES + 1])
def test_no_other_sizes_can_be_written(size: int) -> None:
    with pytest.raises(FormatError):
        header("bundle.json", size)


def test_limits() -> None:
    assert parse_header(header("bundle.json", 10), "bundle.json", limit=10) == 10
    with pytest.raises(FormatError, match="too large"):
        parse_header(header("bundle.json", 11), "bundle.json", limit=10)
    with pytest.raises(FormatError, match="cut off"):
        parse_header(header("bundle.json", 11)[:-1], "bundle.json")
    with pytest.raises(FormatError, match="go on with"):
        parse_header(bytes(BLOCK), "bundle.json")


def test_stock_tar_reads_it(tmp_path: Path) -> None:
    content = {"bundle.json": b"{}", "documents/00000": b"x" * 700, "files/" + "a" * 64 + ".0": b""}
    data = b"".join(header(name, len(body)) + body + bytes(padding(len(body))) for name, body in content.items()) + END
    (tmp_path / "one.tar").write_bytes(data)
    subprocess.run(["tar", "xf", "one.tar"], cwd=tmp_path, check=True)
    assert {name: (tmp_path / name).read_bytes() for name in content} == content
