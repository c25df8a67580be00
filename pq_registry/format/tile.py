# SPDX-License-Identifier: Apache-2.0
"""Tiles: how a log's tree and its leaves are cut into files that any web server can serve (c2sp.org/tlog-tiles).

::

    tile/<L>/<N>[.p/<W>]          256 hashes of 32 bytes, or W of them: hash i of tile N at level L is the root of the
                                  256^L leaves from (N * 256 + i) * 256^L on
    tile/entries/<N>[.p/<W>]      256 leaves, or W of them, each as u16be length || bytes

N is written in groups of three digits, all but the last with an ``x`` before them: 1234067 is ``x001/x234/067``. A tree
of n leaves has n // 256^L hashes at level L. The tile with the last of them is partial unless 256 divides their number,
and a level without hashes has no tile. Tiles are immutable: a wider one has another path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError

HASH_BYTES: Final = 32
WIDTH: Final = 256
"""Hashes, or leaves, of a full tile."""
ENTRIES: Final = -1
"""The level of entry bundles, which are cut like level 0."""

_HIGHEST = 63
_PATH = re.compile(r"tile/(entries|\d{1,2})/((?:x\d{3}/){0,6}\d{3})(?:\.p/(\d{1,3}))?", re.ASCII)
_FORM = "tile/<0 to 63, or entries>/<number in groups of three digits>[.p/<1 to 255>]"


@dataclass(frozen=True, slots=True)
class TilePath:
    """Names one tile: its level (or ENTRIES), its number at that level and how many hashes or leaves it holds."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        """Refuse what no tree has.

        Raises:
            FormatError: naming the number that is out of range.
        """
        for name, number, low, high in (
            ("level", self.level, ENTRIES, _HIGHEST),
            ("number", self.index, 0, limits.TREE_SIZE // WIDTH),
            ("width", self.width, 1, WIDTH),
        ):
            if type(number) is not int or not low <= number <= high:
                raise FormatError(f"no tile has this {name}", expected=f"{low} to {high}", found=repr(number)[:80])

    @property
    def path(self) -> str:
        """Where the tile is, below the log's prefix."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @property
    def full(self) -> TilePath:
        """The full tile of the same place; it may replace a partial one that is gone."""
        return TilePath(self.level, self.index)

    @classmethod
    def parse(cls, path: str) -> TilePath:
        """Read a path; ``parse(path).path == path``.

        Raises:
            FormatError: if ``path`` is not exactly the path of a tile.
        """
        match = _PATH.fullmatch(path)
        if match is not None:
            level = ENTRIES if match[1] == "entries" else int(match[1])
            tile = cls(level, int(match[2].replace("/", "").replace("x", "")), int(match[3] or WIDTH))
            if tile.path == path:
                return tile
        raise FormatError("not the path of a tile", expected=_FORM, found=repr(path)[:120])


def level_sizes(size: int) -> Iterator[int]:
    """How many hashes a tree of ``size`` leaves has at level 0, 1, …, up to the last level that has any."""
    while size:
        yield size
        size //= WIDTH


def tiles_of(size: int) -> Iterator[TilePath]:
    """Every tile of a tree of ``size`` leaves: the entry bundles, then the hashes from level 0 up."""
    for level, hashes in zip(count(ENTRIES), _with_entries(size), strict=False):
        for index in range(hashes // WIDTH):
            yield TilePath(level, index)
        if hashes % WIDTH:
            yield TilePath(level, hashes // WIDTH, hashes % WIDTH)


def _with_entries(size: int) -> Iterator[int]:
    if size:
        yield size
    yield from level_sizes(size)


def tile_at(level: int, index: int, size: int) -> TilePath:
    """The tile ``index`` of a level as it is in a tree of ``size`` leaves: full, or the partial one at the edge.

    Raises:
        FormatError: if that tree has no such tile.
    """
    hashes = size if level == ENTRIES else size >> (8 * level)
    return TilePath(level, index, min(WIDTH, hashes - index * WIDTH))


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle.

    Raises:
        FormatError: if there are more entries than a bundle holds, or one is too long.
    """
    if not 1 <= len(entries) <= WIDTH:
        raise FormatError("no entry bundle", expected=f"1 to {WIDTH} entries", found=f"{len(entries)}")
    return b"".join(map(encode_entry, entries))


def encode_entry(entry: bytes) -> bytes:
    """One entry as it stands in a bundle.

    Raises:
        FormatError: if it is too long.
    """
    if len(entry) > limits.LOG_ENTRY_BYTES:
        raise FormatError(
            "the entry is too long", expected=f"at most {limits.LOG_ENTRY_BYTES} bytes", found=f"{len(entry)} bytes"
        )
    return len(entry).to_bytes(2) + entry


def parse_entries(data: bytes, count: int) -> list[bytes]:
    """The ``count`` entries of a bundle; ``encode_entries(parse_entries(data, count)) == data``.

    Raises:
        FormatError: if ``data`` is not exactly that many entries.
    """
    entries = []
    at = 0
    for _ in range(count):
        begin = at + 2
        at = begin + int.from_bytes(data[begin - 2 : begin])
        entries.append(data[begin:at])
    # Only the last slice can be short, and so only at the end can there be too few bytes, or too many.
    if at != len(data):
        raise FormatError("not an entry bundle", expected=f"{count} entries, {at} bytes", found=f"{len(data)} bytes")
    return entries
