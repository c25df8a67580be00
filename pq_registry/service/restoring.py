# SPDX-License-Identifier: Apache-2.0
"""Restoring a registry from a backup, and what becomes of its log: there is never a second history.

1. The backup's files are whole, and the catalogue it goes into is empty. Its rows are loaded in one transaction.
2. The newest checkpoint anybody shows is looked for: in the tile store, and wherever the operator says (a mirror, a
   witness). Each must be signed by the log's keys. A tile store with another log in it is refused and left alone.
3. None is newer than the backup's: the log's files are made again from the rows as far as they are missing or damaged,
   and every checkpoint must be the start of the backup's tree. One that is not is a fork: everything is taken back.
4. One is newer: leaves were signed after the backup. If the tile store has them, and they follow the backup's tree, the
   lock is moved forward to that checkpoint and the log goes on from there, if every other checkpoint is a start of
   its tree, too. Leaves whose statements the backup does not
   have are named: those statements are lost here, and their publishers have them.
5. One is newer and the tile store does not have its leaves: the log must not go on from the backup. The newer one is
   written down as published, in the transaction of step 1 already, so that no start of the service gets past it
   (``log.recovery``). Give the tile store the leaves (from a mirror or an auditor) and restore again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from pq_registry import durable
from pq_registry.errors import FormatError, LogError, LogHalted, NotFound, PqregError, UsageError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.note import Note, VerifierKey
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.log.tree import Tree
from pq_registry.service import audit
from pq_registry.service.tokens import host_caller
from pq_registry.storage.backup import LOG_KEY, BackupIndex, read_file, read_index, verify_files
from pq_registry.storage.blobs import DirectUploads
from pq_registry.storage.catalogue.tables import (
    LogEntryRow,
    LogStagedRow,
    LogStateRow,
    NamespaceRow,
    RepositoryRow,
    StatementRow,
)
from pq_registry.storage.loading import empty, load_rows, require_empty, require_schema
from pq_registry.storage.logcheck import signed_checkpoint
from pq_registry.storage.loglock import CatalogueLock
from pq_registry.storage.logrepair import Repaired, rebuild_log
from pq_registry.storage.stores import Stores
from pq_registry.storage.tiles import VKEY_PATH, LogFiles


@unique
class LogOutcome(StrEnum):
    """What became of the log."""

    NONE = "none"
    """There was none yet."""
    WHOLE = "whole"
    """The backup has everything that was ever shown."""
    MOVED = "moved"
    """The lock was moved forward to a newer checkpoint; statements may be lost."""
    STOPPED = "stopped"
    """A newer checkpoint is known and its leaves are not: the log does not go on."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A checkpoint somebody shows; ``source`` says who."""

    source: str
    note: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did. ``lost`` are leaves whose statements the backup does not have."""

    index: BackupIndex
    outcome: LogOutcome
    leaves: int
    newest: str
    lost: tuple[Leaf, ...] = ()
    repaired: tuple[Repaired, ...] = ()


def check_backup(source: Path) -> BackupIndex:
    """Verify a backup as far as that goes without a registry to restore it into.

    Raises:
        UsageError: if there is none.
        FormatError: if it is damaged or of another schema.
        StorageError: if it cannot be read.
    """
    index = read_index(source)
    require_schema(index)
    verify_files(source, index)
    return index


def restore(source: Path, stores: Stores, *, shown: Sequence[Shown], now: datetime) -> Restored:
    """Restore the backup at ``source`` into ``stores``.

    Args:
        source: directory of the backup.
        stores: opened, with this version's schema and nothing in the catalogue.
        shown: checkpoints from elsewhere; the tile store's own is looked at anyway.
        now: when.

    Raises:
        UsageError: if there is no backup, the catalogue is not empty, or the tile store has another log.
        FormatError: if the backup is damaged or of another schema, or a checkpoint is none of this log's.
        LogHalted: if a checkpoint is of another tree than the backup's: nothing was restored.
        StorageError: if something cannot be read or written.
    """
    require_empty(stores.catalogue)
    index = check_backup(source)
    keys = _keys(read_file(source, index, f"log/{VKEY_PATH}"), stores.tiles)
    _require_own_log(stores.tiles, keys)
    known = [(each.source, each.note, _judge(each, keys)) for each in (*shown, *_of_store(stores.tiles, keys))]
    with stores.catalogue.writing() as session:
        load_rows(session, source, index, copies=isinstance(stores.blobs, DirectUploads))
        _hold_back(session, known)
    try:
        return _settle(source, stores, index, known, now)
    except LogHalted:
        with stores.catalogue.writing() as session:
            empty(session)
        raise


def put_log_key(source: Path, index: BackupIndex, target: Path) -> bool:
    """Put the log's secret keys where the service looks for them, if the backup has them and nothing is there."""
    data = read_file(source, index, LOG_KEY)
    if data is None or target.exists():
        return False
    durable.make_directory(target.parent, 0o700)
    durable.write_file(target, data, mode=0o600, exact_mode=True, replace=False)
    return True


def _keys(text: bytes | None, tiles: LogFiles) -> list[VerifierKey]:
    try:
        text = tiles.read(VKEY_PATH) if text is None else text
        return [VerifierKey.parse(line) for line in text.decode("utf-8").splitlines()]
    except NotFound:
        return []
    except UnicodeError:
        raise FormatError("the log's vkey is damaged", expected="UTF-8") from None


def _require_own_log(tiles: LogFiles, keys: Sequence[VerifierKey]) -> None:
    """Refuse the files of another log: what is not of this one is replaced later, as damaged."""
    found: set[str] = set()
    with contextlib.suppress(NotFound, FormatError):
        found |= {key.name for key in _keys(None, tiles) if key not in keys}
    with contextlib.suppress(NotFound, FormatError):
        origin = parse_checkpoint_note(tiles.read(CHECKPOINT_PATH))[0].origin
        found |= {origin} - {key.name for key in keys}
    if found:
        raise UsageError(
            "the tile store holds another log", expected=f"none, or that of {', '.join({key.name for key in keys})}",
            found=f"keys of {', '.join(sorted(found))}", hint="give --data or --storage of this registry's own",
        )  # fmt: skip


def _judge(shown: Shown, keys: Sequence[VerifierKey]) -> Checkpoint:
    if not keys:
        raise FormatError(f"nobody knows whose checkpoint {shown.source} shows", expected="log/vkey in the backup")
    try:
        return signed_checkpoint(shown.note, keys)
    except (FormatError, LogError) as error:
        raise FormatError(f"{shown.source} shows no checkpoint of this log", found=error) from error


def _of_store(tiles: LogFiles, keys: Sequence[VerifierKey]) -> list[Shown]:
    try:
        shown = Shown("the tile store", tiles.read(CHECKPOINT_PATH))
        _judge(shown, keys)
    except (NotFound, FormatError):
        return []  # damaged: the files are made again, and other sources tell how far the log had come
    return [shown]


def _hold_back(session: Session, known: Sequence[tuple[str, bytes, Checkpoint]]) -> None:
    """Should this process end before it has looked further, the log must not start behind what was shown."""
    state = session.scalars(select(LogStateRow)).first()
    if state is not None and known:
        _, note, newest = max(known, key=lambda each: each[2].size)
        if newest.size > parse_checkpoint_note(state.note)[0].size:
            state.published = note


def _settle(
    source: Path, stores: Stores, index: BackupIndex, known: Sequence[tuple[str, bytes, Checkpoint]], now: datetime
) -> Restored:
    catalogue, tiles = stores.catalogue, stores.tiles
    with catalogue.reading() as session:
        state = session.scalars(select(LogStateRow)).first()
    if state is None:
        if known:
            raise LogHalted("the backup is older than the log itself", found=f"{known[0][0]} shows one")
        return Restored(index=index, outcome=LogOutcome.NONE, leaves=0, newest=str(source))
    own, _ = parse_checkpoint_note(state.note)
    where, note, newest = max(known, key=lambda each: each[2].size, default=("the backup", state.note, own))
    if newest.size > own.size:
        return _behind(stores, index, own, Shown(where, note), known, now)
    repaired = [*rebuild_log(catalogue, tiles)]
    vkey = read_file(source, index, f"log/{VKEY_PATH}")
    if vkey is not None:
        tiles.write_vkey(vkey)
        repaired = [one for one in repaired if one.done] + [*rebuild_log(catalogue, tiles)]
    tree = Tree(tiles, own.size, own.root)
    for who, _, checkpoint in known:
        if tree.root_at(checkpoint.size) != checkpoint.root:
            raise _forked(who, checkpoint.size)
    return Restored(
        index=index, outcome=LogOutcome.WHOLE, leaves=own.size, newest=where, repaired=tuple(repaired)
    )  # fmt: skip


def _behind(
    stores: Stores,
    index: BackupIndex,
    own: Checkpoint,
    shown: Shown,
    known: Sequence[tuple[str, bytes, Checkpoint]],
    now: datetime,
) -> Restored:
    lock = CatalogueLock(stores.catalogue)
    newest, _ = parse_checkpoint_note(shown.note)
    try:
        tree = Tree(stores.tiles, newest.size, newest.root)
        same = tree.root_at(own.size) == own.root
        entries = list(tree.entries(own.size, newest.size)) if same else []
        astray = [(who, each.size) for who, _, each in known if tree.root_at(each.size) != each.root]
    except (LogError, NotFound):
        lock.keep_published(newest.size, shown.note, quorum=False, at=now)
        return Restored(index=index, outcome=LogOutcome.STOPPED, leaves=newest.size, newest=shown.source)
    if not same:
        raise _forked(shown.source, own.size)
    if astray:
        raise _forked(*astray[0])
    with stores.catalogue.writing() as session:
        lost = list(_record_found(session, own.size, entries))
        session.execute(delete(LogStagedRow))
        session.execute(update(LogStateRow).values(note=_own_lines(shown.note), previous=None))
        audit.record(
            session, host_caller(), now, audit.Action.LOG_MOVED, newest.origin,
            start=own.size, end=newest.size, lost=len(lost),
        )  # fmt: skip
    lock.keep_published(newest.size, shown.note, quorum=False, at=now)
    repaired = tuple(rebuild_log(stores.catalogue, stores.tiles))
    return Restored(
        index=index, outcome=LogOutcome.MOVED, leaves=newest.size, newest=shown.source, lost=tuple(lost),
        repaired=repaired,
    )  # fmt: skip


def _record_found(session: Session, start: int, entries: Sequence[bytes]) -> list[Leaf]:
    """Record the leaves whose statements are there, as the sequencer would have; answers the others."""
    lost = []
    for number, entry in enumerate(entries, start):
        leaf = Leaf.parse(entry)
        if _statement_of(session, leaf):
            at = from_unix(leaf.time)
            session.add(LogEntryRow(index=number, statement=leaf.payload.hex, time=at))
        else:
            lost.append(leaf)
    return lost


def _statement_of(session: Session, leaf: Leaf) -> bool:
    query = (
        select(StatementRow, NamespaceRow.name, RepositoryRow.name)
        .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
        .outerjoin(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
        .where(StatementRow.digest == leaf.payload.hex)
    )
    found = session.execute(query).one_or_none()
    if found is None:
        return False
    row, namespace, repository = found
    try:
        expected = Leaf.of(
            Envelope.parse(row.envelope), kind=Kind.parse(row.kind), name=repository or namespace,
            identity=row.signer, time=leaf.time,
        )  # fmt: skip
    except PqregError:
        return False
    return expected == leaf


def _own_lines(note: bytes) -> bytes:
    """The note with the log's own lines only, as it stood in the lock: those of the keys its origin names."""
    checkpoint, parsed = parse_checkpoint_note(note)
    return Note(parsed.text, tuple(line for line in parsed.signatures if line.name == checkpoint.origin)).encode()


def _forked(source: str, size: int) -> LogHalted:
    return LogHalted(
        f"{source} shows another tree than the others: a fork",
        expected=f"one tree at {size} leaves",
        hint="nothing was restored; keep both, they are evidence (docs/operations/log.md)",
    )
