# SPDX-License-Identifier: Apache-2.0
"""Making the log's files again from the catalogue: every recorded leaf, hashed up to the newest signed checkpoint.

1. The leaves of the newest checkpoint's tree, from the rows of ``log_entries``; one that no row gives is taken from the
   tile store. Together they must have the checkpoint's root: otherwise nothing is written, and the log needs a backup.
2. Every tile that is missing is written, every damaged one replaced: those of the newest tree, and the partial ones of
   every checkpoint that is kept, from which receipts are made. Other left-over partial tiles become the start of the
   present ones.
3. The checkpoint in the tile store: one that is missing, cannot be read or is not signed by the log's keys is replaced
   by the one published last, an older one is brought forward. A checkpoint that is signed and of another tree is a
   fork: it is evidence and stays.

It may run beside a service: whatever is written is of a tree that was committed, and trees only grow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, LogError, NotFound, PqregError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import VerifierKey
from pq_registry.format.tile import ENTRIES, HASH_BYTES, WIDTH, TilePath, encode_entry, parse_entries, tile_at
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.log.tree import Edge, Tree
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import LogStateRow
from pq_registry.storage.logcheck import kept_sizes, log_keys, partial_tiles, signed_checkpoint
from pq_registry.storage.logleaves import recorded_leaves
from pq_registry.storage.tiles import VKEY_PATH, LogFiles


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done about a damaged object; ``done`` is whether that mended it."""

    subject: str
    action: str
    done: bool = True


def rebuild_log(catalogue: Catalogue, tiles: LogFiles) -> Iterator[Repaired]:
    """Bring the log's files into the state the catalogue says; yields what was done, nothing where all is well.

    Raises:
        StorageError: if catalogue or tile store fail.
    """
    with catalogue.reading() as session:
        state = session.scalars(select(LogStateRow)).first()
        if state is None:
            return
        try:
            newest, _ = parse_checkpoint_note(state.note)
        except FormatError as error:
            yield Repaired(
                "log checkpoint in the catalogue", f"restore the catalogue from a backup: {error}", done=False
            )
            return
        if _root(session, tiles, newest.size) != newest.root:
            hint = "the recorded statements do not lead to the newest checkpoint; restore the catalogue from a backup"
            yield Repaired("log tiles", hint, done=False)
            return
        yield from _tiles(session, tiles, newest.size, kept_sizes(session, state))
    yield from _left_over(tiles, newest.size)
    yield from _checkpoint(tiles, newest, state.published)


def _root(session: Session, tiles: LogFiles, size: int) -> bytes:
    edge = Edge()
    for entries in _batches(session, tiles, size):
        edge = edge.grow(entries).edge
    return edge.root


def _tiles(session: Session, tiles: LogFiles, size: int, kept: Collection[int]) -> Iterator[Repaired]:
    needed = partial_tiles(size, kept)
    edge = Edge()
    for entries in _batches(session, tiles, size, kept):
        growth = edge.grow(entries)
        edge = growth.edge
        for path, data in growth.tiles:
            if path in needed or TilePath.parse(path).width == WIDTH:
                yield from _put(tiles, path, data)


def _batches(session: Session, tiles: LogFiles, size: int, stops: Collection[int] = ()) -> Iterator[list[bytes]]:
    """All leaves, in batches; one of them ends at each of ``stops``."""
    ends = {stop for stop in stops if stop < size}
    for start, end in pairwise(sorted({*range(0, size, limits.LOG_BATCH_ENTRIES), *ends, size})):
        entries: dict[int, bytes] = {
            recorded.index: recorded.leaf.encode()
            for recorded in recorded_leaves(session, start, end)
            if recorded.leaf is not None
        }
        for index in range(start, end):
            if index not in entries:
                entries[index] = _stored(tiles, index, size)
        yield [entries[index] for index in range(start, end)]


def _stored(tiles: LogFiles, index: int, size: int) -> bytes:
    tile = tile_at(ENTRIES, index // WIDTH, size)
    for candidate in (tile, tile.full):
        try:
            return parse_entries(tiles.read(candidate.path), candidate.width)[index % WIDTH]
        except (NotFound, FormatError):
            continue
    return b""  # no leaf: the root comes out as another one


def _put(tiles: LogFiles, path: str, data: bytes) -> Iterator[Repaired]:
    try:
        present = tiles.read(path)
    except NotFound:
        tiles.replace(path, data)
        yield Repaired(f"log {path}", "it was missing and was made again from the catalogue")
        return
    except PqregError:
        present = None  # longer than any tile, or not readable
    if present != data:
        tiles.replace(path, data)
        yield Repaired(f"log {path}", "it was damaged and was made again from the catalogue")


def _left_over(tiles: LogFiles, size: int) -> Iterator[Repaired]:
    for name in list(tiles.names()):
        try:
            tile = TilePath.parse(name)
        except FormatError:
            continue
        hashes = size if tile.level == ENTRIES else size >> (8 * tile.level)
        if tile.width == WIDTH or tile.index * WIDTH + tile.width > hashes:
            continue
        present = tile_at(tile.level, tile.index, size)
        if tile != present:
            yield from _put(tiles, name, _start_of(tiles, present, tile.width))


def _start_of(tiles: LogFiles, present: TilePath, width: int) -> bytes:
    data = tiles.read(present.path)
    if present.level != ENTRIES:
        return data[: width * HASH_BYTES]
    return b"".join(map(encode_entry, parse_entries(data, present.width)[:width]))


def _checkpoint(tiles: LogFiles, newest: Checkpoint, published: bytes | None) -> Iterator[Repaired]:
    subject = "log checkpoint in the tile store"
    try:
        keys = log_keys(tiles)
    except PqregError:
        yield Repaired(f"log {VKEY_PATH}", "the next start of the service writes it again", done=False)
        return
    if published is None:
        return
    latest = _judged(published, keys)
    if latest is None:
        yield Repaired("log checkpoint published last", "restore the catalogue from a backup", done=False)
        return
    try:
        shown = _judged(tiles.read(CHECKPOINT_PATH), keys)
    except PqregError:
        shown = None
    if shown is None:
        tiles.replace(CHECKPOINT_PATH, published)
        yield Repaired(subject, "it was missing or damaged and is the one published last again")
        return
    if shown.size > newest.size or Tree(tiles, newest.size, newest.root).root_at(shown.size) != shown.root:
        yield Repaired(subject, "it is signed and of another tree: keep it, it is evidence", done=False)
    elif shown.size < latest.size:
        tiles.write_checkpoint(published)
        yield Repaired(subject, "it was older than the one published last, which is there again")


def _judged(note: bytes, keys: list[VerifierKey]) -> Checkpoint | None:
    try:
        return signed_checkpoint(note, keys)
    except (FormatError, LogError):
        return None
