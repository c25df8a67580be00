# SPDX-License-Identifier: Apache-2.0
"""fsck's fifth part: the log. What the catalogue says of it, what readers are shown, and what the tree proves.

The newest checkpoint in the catalogue is what counts. Against it, each finding naming its object:

1. every checkpoint that is kept, in catalogue and tile store: signed by the log's keys (as the tile store's ``vkey``
   names them), and of a tree that is the start of the newest;
2. every hash tile and entry bundle: recomputed up to the newest root; partial ones that are left from smaller trees:
   the start of the present one;
3. the staged leaves: those at their place in the tree;
4. every leaf: of a statement that is recorded under this index, with its signer, signatures, name and time.

Statements that are not in the log, and files that are not of it, are notes: the next start logs the former.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import FormatError, LogError, NotFound, PqregError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant
from pq_registry.format.leaf import Leaf
from pq_registry.format.note import VerifierKey
from pq_registry.format.strict_json import Fields, parse_strict
from pq_registry.format.tile import ENTRIES, WIDTH, TilePath, encode_entry, parse_entries, tile_at, tiles_of
from pq_registry.log.merkle import leaf_row, perfect_root
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.log.tree import TileReader, Tree
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    AuditEventRow,
    LogCheckpointRow,
    LogEntryRow,
    LogStagedRow,
    LogStateRow,
    StatementRow,
)
from pq_registry.storage.chains import Finding
from pq_registry.storage.logleaves import recorded_leaves
from pq_registry.storage.tiles import VKEY_PATH, LogFiles

LOG_MOVED = "log-moved"
"""The audit event of a restore that moved the lock forward."""
_TILE = re.compile(r"tile/[\w/.]*\w", re.ASCII)


def check_log(catalogue: Catalogue, tiles: LogFiles) -> Iterator[Finding]:
    """Verify the log; yields what was found, nothing if all is well. It may run beside a service.

    Raises:
        StorageError: if catalogue or tile store cannot be read at all.
    """
    # Read before the catalogue, so that a service that goes on meanwhile does not seem to be ahead of it.
    try:
        shown = tiles.read(CHECKPOINT_PATH)
    except NotFound:
        shown = None
    with catalogue.reading() as session:
        state = session.scalars(select(LogStateRow)).first()
        if state is None:
            if shown is not None or tiles.has_tiles():
                yield Finding("log", "there are tiles, and the catalogue knows of no log")
            return
        yield from _log(session, tiles, state, shown)


def _log(session: Session, tiles: LogFiles, state: LogStateRow, shown: bytes | None) -> Iterator[Finding]:
    try:
        newest, _ = parse_checkpoint_note(state.note)
    except FormatError as error:
        yield Finding("log checkpoint in the catalogue", str(error))
        return
    tree: Tree | None = None
    try:
        tree = Tree(tiles, newest.size, newest.root)
    except (LogError, NotFound) as error:
        yield Finding("log right edge", str(error))
        yield from _damaged_edge(tiles, newest.size)
    keys: list[VerifierKey] = []
    try:
        keys = log_keys(tiles)
    except PqregError as error:
        yield Finding("log vkey", str(error))
    for subject, note in _kept(session, state, shown):
        yield from _checkpoint(subject, note, keys, newest, tree)
    if tree is not None:
        yield from _leaves(session, tree)
        yield from _staged(session, tree)
    yield from _files(tiles, newest.size, partial_tiles(newest.size, kept_sizes(session, state)))
    yield from _not_logged(session)


def _kept(session: Session, state: LogStateRow, shown: bytes | None) -> Iterator[tuple[str, bytes]]:
    yield "log checkpoint in the catalogue", state.note
    if state.previous is not None:
        yield "log checkpoint before the newest", state.previous
    if state.published is not None:
        yield "log checkpoint published last", state.published
    if shown is not None or state.published is not None:
        yield "log checkpoint in the tile store", shown or b""
    rows = session.execute(select(LogCheckpointRow.size, LogCheckpointRow.note).execution_options(yield_per=64))
    for size, note in rows:
        yield f"log checkpoint of {size} leaves", note


def log_keys(tiles: TileReader) -> list[VerifierKey]:
    """The log's keys, as the tile store names them.

    Raises:
        NotFound: if it does not.
        FormatError: if what is there are no keys.
    """
    try:
        text = tiles.read(VKEY_PATH).decode("utf-8")
    except UnicodeError:
        raise FormatError("the log's vkey is damaged", expected="UTF-8") from None
    return [VerifierKey.parse(line) for line in text.splitlines()]


def signed_checkpoint(note: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
    """The checkpoint of a note that every one of ``keys`` has signed.

    Raises:
        FormatError: if it is no checkpoint, or a line is missing.
        LogError: if a line is wrong.
    """
    checkpoint, parsed = parse_checkpoint_note(note)
    for key in keys:
        lines = parsed.lines_of(key)
        if not lines:
            raise FormatError("a line of the log's is missing", expected=f"one of {key.name}, {key.type.name}")
        for line in lines:
            verify_line(key, checkpoint, line)
    return checkpoint


def _checkpoint(
    subject: str, note: bytes, keys: list[VerifierKey], newest: Checkpoint, tree: Tree | None
) -> Iterator[Finding]:
    try:
        checkpoint = signed_checkpoint(note, keys)
        if checkpoint.size > newest.size:
            yield Finding(subject, f"its tree is larger than the catalogue's, which has {newest.size} leaves")
        elif tree is not None and tree.root_at(checkpoint.size) != checkpoint.root:
            yield Finding(subject, "it is of another tree: the log has forked")
    except (LogError, FormatError, NotFound) as error:
        yield Finding(subject, str(error))


def _damaged_edge(tiles: LogFiles, size: int) -> Iterator[Finding]:
    # The root does not say which partial tile is wrong. What each should hold follows from the tiles below it.
    for tile in tiles_of(size):
        if tile.level == ENTRIES or tile.width == WIDTH:
            continue
        try:
            stored = tiles.read(tile.path)
            expected = _row_from_below(tiles, tile)
        except PqregError as error:
            yield Finding(f"log {_named(error) or tile.path}", str(error))
            continue
        if stored != expected:
            yield Finding(f"log {tile.path}", "its hashes are not those of the tiles below it")


def _row_from_below(tiles: LogFiles, tile: TilePath) -> bytes:
    if tile.level == 0:
        bundle = TilePath(ENTRIES, tile.index, tile.width)
        return leaf_row(parse_entries(tiles.read(bundle.path), tile.width))
    first = tile.index * WIDTH
    return b"".join(
        perfect_root(tiles.read(TilePath(tile.level - 1, first + number).path)) for number in range(tile.width)
    )


def _leaves(session: Session, tree: Tree) -> Iterator[Finding]:
    seen: set[str] = set()
    for start in range(0, tree.size, WIDTH):
        end = min(start + WIDTH, tree.size)
        try:
            entries = list(tree.entries(start, end))
        except (LogError, NotFound) as error:
            if str(error) not in seen:
                yield Finding(f"log {_named(error) or f'leaves {start} to {end - 1}'}", str(error))
            seen.add(str(error))
            continue
        yield from _recorded(session, start, entries)
    beyond = session.scalars(select(LogEntryRow.index).where(LogEntryRow.index >= tree.size))
    for index in beyond:
        yield Finding(f"log leaf {index}", f"a statement is recorded for it, and the tree has {tree.size} leaves")


def _recorded(session: Session, start: int, entries: list[bytes]) -> Iterator[Finding]:
    found = set()
    for recorded in recorded_leaves(session, start, start + len(entries)):
        found.add(recorded.index)
        subject = f"log leaf {recorded.index}"
        if recorded.leaf is None:
            yield Finding(subject, recorded.problem)
            continue
        try:
            leaf = Leaf.parse(entries[recorded.index - start])
        except PqregError as error:
            yield Finding(subject, str(error))
            continue
        expected = recorded.leaf
        wrong = [name for name in Leaf.__slots__ if not _equal(name, getattr(leaf, name), getattr(expected, name))]
        if wrong:
            yield Finding(subject, f"its {', '.join(wrong)} is not that of statement sha256:{recorded.statement}")
    missing = sorted(set(range(start, start + len(entries))) - found)
    lost = _lost(session) if missing else []
    for index in missing:
        when = next((when for when, range_ in lost if index in range_), None)
        if when is None:
            yield Finding(f"log leaf {index}", "no statement is recorded for it")
        else:
            yield Finding(f"log leaf {index}", f"its statement was lost by the restore of {when}", note=True)


def _lost(session: Session) -> list[tuple[str, range]]:
    """The leaves that a restore found in the tile store and not in its backup (``service.restoring``)."""
    query = select(AuditEventRow.at, AuditEventRow.detail).where(AuditEventRow.action == LOG_MOVED)
    found = []
    for at, detail in session.execute(query):
        fields = Fields(parse_strict(detail.encode(), what="an audit event", limit=limits.REQUEST_BODY_BYTES), "event")
        found.append((format_instant(at), range(fields.integer("start"), fields.integer("end"))))
    return found


def _equal(field: str, leaf: object, expected: object) -> bool:
    # Names keep the case of the statement; the catalogue keeps the one they were first given.
    return str(leaf).casefold() == str(expected).casefold() if field == "name" else leaf == expected


def _staged(session: Session, tree: Tree) -> Iterator[Finding]:
    for row in session.scalars(select(LogStagedRow)):
        subject = f"log leaves staged from {row.start} on"
        try:
            there = b"".join(map(encode_entry, tree.entries(row.start, tree.size)))
        except PqregError as error:
            yield Finding(subject, str(error))
            continue
        if there != row.entries:
            yield Finding(subject, "they are not the leaves of the tree")


def kept_sizes(session: Session, state: LogStateRow) -> set[int]:
    """The sizes of the checkpoints that are kept: receipts are made from them, and a start reads the last but one."""
    sizes = set(session.scalars(select(LogCheckpointRow.size)))
    for note in (state.note, state.previous, state.published):
        try:
            sizes |= set() if note is None else {parse_checkpoint_note(note)[0].size}
        except FormatError:
            continue
    return sizes


def partial_tiles(size: int, kept: Collection[int]) -> set[str]:
    """The paths of the partial tiles that trees of the ``kept`` sizes have, but for those a full tile has replaced."""
    present = {(tile.level, tile.index) for tile in tiles_of(size) if tile.width < WIDTH}
    return {
        tile.path
        for each in {*kept, size}
        if each <= size
        for tile in tiles_of(each)
        if tile.width < WIDTH and (tile.level, tile.index) in present
    }


def _files(tiles: LogFiles, size: int, needed: set[str]) -> Iterator[Finding]:
    names = list(tiles.names())
    present = {tile.path for tile in tiles_of(size)}
    for missing in sorted((present | needed) - set(names)):
        why = "" if missing in present else ", and receipts are made from it"
        yield Finding(f"log {missing}", f"it is missing from the tile store{why}")
    for name in names:
        if name in {CHECKPOINT_PATH, VKEY_PATH}:
            continue
        try:
            tile = TilePath.parse(name)
        except FormatError:
            yield Finding(f"log file {name}", "it is not of the log", note=True)
            continue
        hashes = size if tile.level == ENTRIES else size >> (8 * tile.level)
        if tile.index * WIDTH + tile.width > hashes:
            yield Finding(f"log {name}", f"it belongs to a tree of more than {size} leaves", note=True)
        elif tile.width < WIDTH:
            yield from _left_over(tiles, tile, tile_at(tile.level, tile.index, size))


def _left_over(tiles: LogFiles, tile: TilePath, present: TilePath) -> Iterator[Finding]:
    if tile == present:
        return
    try:
        if not tiles.read(present.path).startswith(tiles.read(tile.path)):
            yield Finding(f"log {tile.path}", f"it is not the start of {present.path}")
    except PqregError as error:
        yield Finding(f"log {tile.path}", str(error))


def _not_logged(session: Session) -> Iterator[Finding]:
    query = select(StatementRow.digest).where(StatementRow.digest.not_in(select(LogEntryRow.statement)))
    for digest in session.scalars(query):
        yield Finding(f"statement {Digest(digest)}", "it is not in the log yet", note=True)


def _named(error: PqregError) -> str | None:
    match = _TILE.search(error.message)
    return None if match is None else match[0]
