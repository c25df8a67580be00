# SPDX-License-Identifier: Apache-2.0
"""A log's tree over its tiles: read without trusting them, and grown from its right edge.

``Tree`` believes the size and root it is given (from a checkpoint somebody judged) and nothing else. Its constructor
reads the partial tiles at the right edge and recomputes the root from them; any other tile is believed once the hash
over it stands in the tile above it, which was itself checked in this way. So a proof, a leaf or an older root that
comes out is that of the checkpoint's tree, whoever stored the tiles. Bytes that do not fit are ``TileMismatch``; a
partial tile that is gone is taken from the full one that replaced it (c2sp.org/tlog-tiles).

``Edge`` is what the sequencer holds: the partial tiles, from which ``grow`` computes every new tile without reading
one. It is a value: where a commit fails, the edge before it is still there. ::

    growth = tree.edge().grow([b"leaf", b"another"])
    for path, data in growth.tiles: ...    # then sign growth.edge.size and growth.edge.root
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Final, Protocol

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound, TileMismatch, UsageError
from pq_registry.format.tile import (
    ENTRIES,
    HASH_BYTES,
    WIDTH,
    TilePath,
    encode_entry,
    level_sizes,
    parse_entries,
    tile_at,
)
from pq_registry.log.merkle import fold_row, leaf_row, perfect_root, root_of_peaks

_ROW_BYTES: Final = WIDTH * HASH_BYTES

Pyramid = tuple[bytes, ...]
"""The hashes of a tile and the rows above them, as far as their nodes are complete."""


class TileReader(Protocol):
    """Wherever the files of a log are."""

    def read(self, path: str) -> bytes:
        """The file at ``path``, e.g. ``tile/0/000.p/7`` or ``checkpoint``.

        Raises:
            NotFound: if there is no such file.
        """
        ...


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: its partial tiles, the hashes from level 0 up, and its partial entry bundle."""

    size: int = 0
    rows: tuple[bytes, ...] = ()
    bundle: bytes = b""
    root: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Compute the root."""
        peaks = [peak for row in reversed(self.rows) for peak in _peaks(_pyramid(row))]
        object.__setattr__(self, "root", root_of_peaks(peaks))

    def grow(self, entries: Sequence[bytes]) -> Growth:
        """The tree with ``entries`` added, and every tile it has that this one has not.

        Raises:
            FormatError: if an entry is too long.
        """
        size = self.size + len(entries)
        tiles: list[tuple[str, bytes]] = []
        bundle, rest, index = [self.bundle], list(map(encode_entry, entries)), self.size // WIDTH
        room = WIDTH - self.size % WIDTH
        while len(rest) >= room:
            tiles.append((TilePath(ENTRIES, index).path, b"".join([*bundle, *rest[:room]])))
            bundle, rest, index, room = [], rest[room:], index + 1, WIDTH
        edge_bundle = b"".join([*bundle, *rest])
        if rest:
            tiles.append((tile_at(ENTRIES, index, size).path, edge_bundle))
        rows: list[bytes] = []
        new = leaf_row(entries)
        for level in count():
            before = self.rows[level] if level < len(self.rows) else b""
            if level >= len(self.rows) and not new:
                break
            index = self.size >> (8 * (level + 1))
            row, above = before + new, []
            whole = len(row) - len(row) % _ROW_BYTES
            for at in range(0, whole, _ROW_BYTES):
                full = row[at : at + _ROW_BYTES]
                tiles.append((TilePath(level, index).path, full))
                above.append(perfect_root(full))
                index += 1
            rows.append(row[whole:])
            if new and rows[-1]:
                tiles.append((tile_at(level, index, size).path, rows[-1]))
            new = b"".join(above)
        return Growth(Edge(size, tuple(rows), edge_bundle), tuple(tiles))


@dataclass(frozen=True, slots=True)
class Growth:
    """What adding entries gives: the new edge, and path and bytes of each new tile, entry bundles first."""

    edge: Edge
    tiles: tuple[tuple[str, bytes], ...]


class Tree:
    """The tree of ``size`` leaves with this ``root``, read from tiles that nobody vouches for.

    Raises:
        NotFound: if a tile at the right edge is missing.
        TileMismatch: if the tiles there do not have this root.
    """

    def __init__(self, reader: TileReader, size: int, root: bytes) -> None:
        self.size, self.root = size, root
        self._reader = reader
        self._full = lru_cache(limits.TREE_TILES)(self._read_full)
        self._edge: list[Pyramid] = []
        for level, hashes in enumerate(level_sizes(size)):
            row = self._row(tile_at(level, hashes // WIDTH, size)) if hashes % WIDTH else b""
            self._edge.append(_pyramid(row))
        found = root_of_peaks([peak for rows in reversed(self._edge) for peak in _peaks(rows)])
        if found != root:
            raise TileMismatch(
                f"the tiles at the right edge are not those of the tree of {size} leaves",
                expected=f"root {root.hex()}",
                found=found.hex(),
                hint="the tiles, or the copy of them, were altered; get them from another source",
            )

    def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """The hashes that lead from leaf ``index`` to the root (RFC 6962 §2.1.1).

        Raises:
            UsageError: if there is no such leaf.
            NotFound: if a tile is missing.
            TileMismatch: if a tile is not of this tree.
        """
        self._check_range(index, index + 1)
        proof, start, end = [], 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(start, middle))
                start = middle
        return tuple(reversed(proof))

    def consistency_proof(self, old_size: int) -> tuple[bytes, ...]:
        """The hashes that show the tree of ``old_size`` leaves to be this one's start (RFC 6962 §2.1.2).

        Raises:
            UsageError: if that tree is larger than this one.
            NotFound: if a tile is missing.
            TileMismatch: if a tile is not of this tree.
        """
        self._check_range(0, old_size)
        if old_size == 0:
            return ()
        proof, start, end = [], 0, self.size
        while old_size != end:
            middle = start + _split(end - start)
            if old_size <= middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(start, middle))
                start = middle
        if start:
            proof.append(self._range_root(start, end))
        return tuple(reversed(proof))

    def root_at(self, old_size: int) -> bytes:
        """The root this tree had at ``old_size`` leaves. A checkpoint of that size with another root is equivocation.

        Raises:
            UsageError: if that tree is larger than this one.
            NotFound: if a tile is missing.
            TileMismatch: if a tile is not of this tree.
        """
        self._check_range(0, old_size)
        return self._range_root(0, old_size)

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves from ``start`` to before ``end``, each checked against its hash in the tree.

        Raises:
            UsageError: if there are no such leaves.
            NotFound: if a tile is missing.
            TileMismatch: if a tile is not of this tree.
        """
        self._check_range(start, end)
        for index in range(start // WIDTH, -(-end // WIDTH)):
            first = index * WIDTH
            yield from self._bundle(index)[max(0, start - first) : end - first]

    def leaf_hashes(self, start: int, end: int) -> Iterator[bytes]:
        """The hashes of the leaves from ``start`` to before ``end``.

        Raises:
            UsageError: if there are no such leaves.
            NotFound: if a tile is missing.
            TileMismatch: if a tile is not of this tree.
        """
        self._check_range(start, end)
        for index in range(start, end):
            yield self._node(0, index)

    def edge(self) -> Edge:
        """What is needed to grow this tree.

        Raises:
            NotFound: if the last entry bundle is missing.
            TileMismatch: if it is not of this tree.
        """
        entries = self._bundle(self.size // WIDTH) if self.size % WIDTH else []
        return Edge(self.size, tuple(rows[0] for rows in self._edge), b"".join(map(encode_entry, entries)))

    def _bundle(self, index: int) -> list[bytes]:
        tile = tile_at(ENTRIES, index, self.size)
        data, stored = self._read(tile)
        try:
            entries = parse_entries(data, stored.width)[: tile.width]
        except FormatError as error:
            raise TileMismatch(
                f"{stored.path} is not an entry bundle", expected=error.expected, found=error.found
            ) from None
        if leaf_row(entries) != self._tile(0, index)[0]:
            raise TileMismatch(
                f"{stored.path} holds other leaves than the tree", expected="the leaves whose hashes are in the tree"
            )
        return entries

    def _range_root(self, start: int, end: int) -> bytes:
        # start is a multiple of the largest power of two in the length wherever RFC 6962 splits, so that each piece is
        # a node of the tree.
        peaks = []
        while start < end:
            height = (end - start).bit_length() - 1
            peaks.append(self._node(height, start >> height))
            start += 1 << height
        return root_of_peaks(peaks)

    def _node(self, height: int, position: int) -> bytes:
        """The root of the ``position``-th perfect subtree of 2^``height`` leaves."""
        level, row = divmod(height, 8)
        bits = 8 - row
        at = (position & ((1 << bits) - 1)) * HASH_BYTES
        return self._tile(level, position >> bits)[row][at : at + HASH_BYTES]

    def _tile(self, level: int, index: int) -> Pyramid:
        return self._edge[level] if index == self.size >> (8 * (level + 1)) else self._full(level, index)

    def _read_full(self, level: int, index: int) -> Pyramid:
        tile = TilePath(level, index)
        rows = _pyramid(self._row(tile))
        at = index % WIDTH * HASH_BYTES
        expected = self._tile(level + 1, index // WIDTH)[0][at : at + HASH_BYTES]
        if rows[-1] != expected:
            raise TileMismatch(
                f"{tile.path} is not of the tree of {self.size} leaves",
                expected=f"root {expected.hex()}",
                found=rows[-1].hex(),
                hint="the tile, or the copy of it, was altered; get it from another source",
            )
        return rows

    def _row(self, tile: TilePath) -> bytes:
        data, stored = self._read(tile)
        if len(data) != stored.width * HASH_BYTES:
            raise TileMismatch(
                f"{stored.path} is cut short or too long",
                expected=f"{stored.width * HASH_BYTES} bytes",
                found=f"{len(data)} bytes",
            )
        return data[: tile.width * HASH_BYTES]

    def _read(self, tile: TilePath) -> tuple[bytes, TilePath]:
        """The bytes of the tile, or of the full one in its place, and which of the two they are."""
        try:
            return self._reader.read(tile.path), tile
        except NotFound:
            if tile.width == WIDTH:
                raise
        return self._reader.read(tile.full.path), tile.full

    def _check_range(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.size:
            raise UsageError(
                f"the tree has {self.size} leaves", expected=f"0 to {self.size}", found=f"{start} to {end}"
            )


def _split(size: int) -> int:
    """The largest power of two smaller than ``size``: where RFC 6962 divides a tree."""
    return 1 << ((size - 1).bit_length() - 1)


def _pyramid(row: bytes) -> Pyramid:
    rows = [row]
    while len(rows[-1]) > HASH_BYTES:
        rows.append(fold_row(rows[-1]))
    return tuple(rows)


def _peaks(rows: Pyramid) -> list[bytes]:
    """The roots of the perfect subtrees over the hashes of a partial tile, the largest first."""
    return [row[-HASH_BYTES:] for row in reversed(rows) if len(row) // HASH_BYTES & 1]
