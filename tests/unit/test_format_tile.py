# SPDX-License-Identifier: Apache-2.0
"""Paths of tiles and entry bundles (c2sp.org/tlog-tiles)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.tile import (
    ENTRIES,
    TilePath,
    encode_entries,
    encode_entry,
    level_sizes,
    parse_entries,
    tile_at,
    tiles_of,
)

ENTRY = st.binary(max_size=40)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (TilePath(0, 0), "tile/0/000"),
        (TilePath(0, 1234067), "tile/0/x001/x234/067"),
        (TilePath(63, 5, 7), "tile/63/005.p/7"),
        (TilePath(ENTRIES, 999, 255), "tile/entries/999.p/255"),
        (TilePath(ENTRIES, 1000), "tile/entries/x001/000"),
    ],
)
def test_the_specification_s_paths(tile, path):
    assert tile.path == path
    assert TilePath.parse(path) == tile


@given(st.integers(-1, 63), st.integers(0, limits.TREE_SIZE // 256), st.integers(1, 256))
def test_paths_round_trip(level, index, width):
    tile = TilePath(level, index, width)
    assert TilePath.parse(tile.path) == tile
    assert tile.full == TilePath(level, index)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/000\n",
        "tile/data/000",
        "tile/0/٠٠٠",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "checkpoint",
    ],
)
def test_no_other_path_is_a_tile_s(path):
    with pytest.raises(FormatError):
        TilePath.parse(path)


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [(64, 0, 1), (-2, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257), (0, 2**56, 1), (0, True, 1)],
)
def test_numbers_that_no_tile_has(level, index, width):
    with pytest.raises(FormatError):
        TilePath(level, index, width)


def test_the_tiles_of_70000_leaves_are_the_specification_s_example():
    paths = [tile.path for tile in tiles_of(70000)]
    assert sum(path.startswith("tile/0/") for path in paths) == 274
    assert sum(path.startswith("tile/entries/") for path in paths) == 274
    assert "tile/0/273.p/112" in paths
    assert [path for path in paths if path.startswith(("tile/1", "tile/2", "tile/3"))] == [
        "tile/1/000",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]


@pytest.mark.parametrize(
    ("size", "sizes"), [(0, []), (1, [1]), (255, [255]), (256, [256, 1]), (65536, [65536, 256, 1])], ids=str
)
def test_level_sizes(size, sizes):
    assert list(level_sizes(size)) == sizes


def test_the_empty_tree_has_no_tiles():
    assert list(tiles_of(0)) == []


def test_a_tile_that_a_tree_has_not():
    assert tile_at(0, 1, 257) == TilePath(0, 1, 1)
    assert tile_at(1, 0, 257) == TilePath(1, 0, 1)
    with pytest.raises(FormatError):
        tile_at(0, 1, 256)
    with pytest.raises(FormatError):
        tile_at(1, 0, 255)


@given(st.lists(ENTRY, min_size=1, max_size=256))
def test_bundles_round_trip(entries):
    data = encode_entries(entries)
    assert parse_entries(data, len(entries)) == entries


def test_the_shortest_and_the_longest_entry():
    entries = [b"", b"x" * limits.LOG_ENTRY_BYTES]
    data = encode_entries(entries)
    assert data[:2] == b"\x00\x00"
    assert data[2:4] == b"\xff\xff"
    assert parse_entries(data, 2) == entries
    with pytest.raises(FormatError):
        encode_entry(b"x" * (limits.LOG_ENTRY_BYTES + 1))


@pytest.mark.parametrize("count", [0, 257])
def test_a_bundle_holds_1_to_256_entries(count):
    with pytest.raises(FormatError):
        encode_entries([b""] * count)


@given(st.lists(ENTRY, min_size=1, max_size=5), st.integers(1, 6), st.integers(-3, 3))
def test_a_bundle_of_another_length_is_refused(entries, count, change):
    data = encode_entries(entries)
    altered = data + bytes(change) if change > 0 else data[: len(data) + change]
    if change == 0 and count == len(entries):
        assert parse_entries(altered, count) == entries
        return
    try:
        found = parse_entries(altered, count)
    except FormatError:
        return
    assert encode_entries(found) == altered
