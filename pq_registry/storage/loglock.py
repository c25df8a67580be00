# SPDX-License-Identifier: Apache-2.0
"""The log's lock in the catalogue: tables ``log_state``, ``log_staged``, ``log_checkpoints`` and ``log_entries``.

A commit is one transaction: ``UPDATE … WHERE note = <the one expected>`` decides between sequencers, in every database
and without any lock of ours; the leaves are staged and their statements recorded beside it.

What a failing transaction means is not left open if it can be known: before COMMIT nothing has happened, and often the
database says that COMMIT did not either (``catalogue.failures``). Any other failure of COMMIT is unclear.

In a database that several instances use, an unclear COMMIT and a note that another has replaced end the sequencer
(LogSuperseded): whoever leads then, perhaps the same instance, recovers from what the database holds. In SQLite, which
one service uses, neither can happen unless something is broken: the log halts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import cast

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, update

from pq_registry import limits
from pq_registry.errors import Conflict, FormatError, LogHalted, LogSuperseded, LogUnavailable, StorageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.tile import encode_entry
from pq_registry.log.stores import Batch, Locked
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.failures import is_undone
from pq_registry.storage.catalogue.tables import LogCheckpointRow, LogEntryRow, LogStagedRow, LogStateRow

PUBLISHED_CHANNEL = "pqreg_published"
"""Where PostgreSQL tells every instance the size of the tree that was published (LISTEN, NOTIFY)."""
_ONLY = 1
"""The key of the one row of ``log_state``."""
_STATE, _STAGED, _CHECKPOINTS, _ENTRIES = (
    cast("Table", row.__table__) for row in (LogStateRow, LogStagedRow, LogCheckpointRow, LogEntryRow)
)
# Made once and run without the object mapper: building and mapping them anew costs more than the database does, and
# every batch goes through here twice.
_ONLY_ROW = _STATE.c.id == _ONLY
_LOOK = select(_STATE.c.note, _STATE.c.published).where(_ONLY_ROW).with_for_update()
_BEGIN = insert(_STATE).values(id=_ONLY)
_REPLACE = (
    update(_STATE)
    .where(_ONLY_ROW, _STATE.c.note == bindparam("expected"))
    .values(note=bindparam("new"), previous=bindparam("expected"))
)
_UNSTAGE = delete(_STAGED)
_STAGE = insert(_STAGED)
_RECORD = insert(_ENTRIES)
_SHOW = update(_STATE).where(_ONLY_ROW).values(published=bindparam("shown"))
_KEPT = select(_CHECKPOINTS.c.quorum).where(_CHECKPOINTS.c.size == bindparam("kept_size"))
_KEEP = insert(_CHECKPOINTS)
_COVERING = (
    select(_CHECKPOINTS.c.note).where(_CHECKPOINTS.c.size > bindparam("covered")).order_by(_CHECKPOINTS.c.size).limit(1)
)
_COVERING_WITH_QUORUM = _COVERING.where(_CHECKPOINTS.c.quorum.is_(True))
_BETTER = (
    update(_CHECKPOINTS)
    .where(_CHECKPOINTS.c.size == bindparam("kept_size"))
    .values(note=bindparam("better"), quorum=True, at=bindparam("now"))
)
_OLDER = (
    select(_CHECKPOINTS.c.size, _CHECKPOINTS.c.at)
    .where(_CHECKPOINTS.c.quorum.is_(True))
    .order_by(_CHECKPOINTS.c.size.desc())
    .offset(bindparam("recent"))
    .limit(3)
)
_DROP = delete(_CHECKPOINTS).where(_CHECKPOINTS.c.size == bindparam("dropped"))
_DROP_WITHOUT = delete(_CHECKPOINTS).where(_CHECKPOINTS.c.quorum.is_(False), _CHECKPOINTS.c.size < bindparam("covered"))

_NOTIFY = select(func.pg_notify(bindparam("channel"), bindparam("payload")))


class CatalogueLock:
    """A ``LogLock`` in the catalogue's database."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._shared = catalogue.url is not None
        self._lost: Callable[..., LogHalted | LogSuperseded] = LogSuperseded if self._shared else LogHalted

    def load(self) -> Locked | None:
        """What was committed last; None before the first commit.

        Raises:
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            row = session.get(LogStateRow, _ONLY)
            return None if row is None else Locked(row.note, row.previous, row.published)

    def commit(self, expected: bytes | None, new: bytes, batch: Batch) -> None:
        """Replace the note, stage the leaves and record their statements: all of it or nothing.

        Raises:
            LogUnavailable: if nothing happened.
            LogHalted, LogSuperseded: if another sequencer has replaced the note, or nobody knows what happened.
        """
        committing = False
        try:
            with self._catalogue.writing() as session:
                connection = session.connection()
                if not _replace_note(connection, expected, new):
                    raise self._lost(
                        "another sequencer has committed to this log",
                        hint="run one service per log; stop the other one, then start this one again",
                    )
                _stage(connection, batch)
                committing = True
        except (LogHalted, LogSuperseded):
            raise
        except (StorageError, Conflict) as error:
            if committing and not is_undone(error):
                raise self._lost(
                    "it is not known whether the newest batch was committed",
                    found=error,
                    hint="start the service again; it finds out and completes the batch",
                ) from error
            raise LogUnavailable("the catalogue did not take the batch", found=error, hint=error.hint) from error

    def staged(self) -> list[tuple[int, bytes]]:
        """The leaves of the newest batch that has any, with their indexes.

        Raises:
            LogHalted: if what is staged cannot be read.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            rows = session.scalars(select(LogStagedRow).order_by(LogStagedRow.start)).all()
        return [
            (row.start + number, entry)
            for row in rows
            for number, entry in enumerate(_entries(row))
        ]  # fmt: skip

    def keep_published(self, size: int, note: bytes, quorum: bool, at: datetime) -> None:
        """Remember what readers were shown: the newest, and for each size the first, or the first with a quorum.

        Of those with a quorum that are older than the newest ``limits.LOG_RECENT_CHECKPOINTS``, no more are kept than
        every leaf needs to be attested in time: under load there would be dozens in a second.

        Raises:
            LogHalted, LogSuperseded: if a larger tree has been published.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.writing() as session:
            connection = session.connection()
            state = connection.execute(_LOOK).one_or_none()
            if state is None or (state.published is not None and _size(state.published) > size):
                raise self._lost("a larger tree has been published by another sequencer", found=f"{size} leaves")
            connection.execute(_SHOW, {"shown": note})
            kept = connection.execute(_KEPT, {"kept_size": size}).one_or_none()
            if kept is None:
                connection.execute(_KEEP, {"size": size, "note": note, "quorum": quorum, "at": at})
            elif quorum and not kept.quorum:
                connection.execute(_BETTER, {"kept_size": size, "better": note, "now": at})
            _thin_out(connection)
            if self._shared:
                connection.execute(_NOTIFY, {"channel": PUBLISHED_CHANNEL, "payload": str(size)})

    def published_covering(self, index: int, *, quorum_first: bool = True) -> bytes | None:
        """The first published checkpoint of a tree with leaf ``index``, if ``quorum_first`` the first with a quorum.

        Without any with a quorum it is the first of all.

        Raises:
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            connection = session.connection()
            found = connection.scalar(_COVERING_WITH_QUORUM, {"covered": index}) if quorum_first else None
            return found or connection.scalar(_COVERING, {"covered": index})


def _replace_note(connection: Connection, expected: bytes | None, new: bytes) -> bool:
    if expected is not None:
        return connection.execute(_REPLACE, {"expected": expected, "new": new}).rowcount == 1
    if connection.execute(_LOOK).one_or_none() is not None:
        return False
    connection.execute(_BEGIN, {"note": new})
    return True


def _stage(connection: Connection, batch: Batch) -> None:
    connection.execute(_UNSTAGE)
    if not batch.entries:
        return
    connection.execute(_STAGE, {"start": batch.start, "entries": b"".join(map(encode_entry, batch.entries))})
    at = datetime.fromtimestamp(batch.time, UTC)
    rows = [
        {"index": index, "statement": statement.hex, "time": at}
        for index, statement in enumerate(batch.statements, batch.start)
        if statement is not None
    ]
    if rows:
        connection.execute(_RECORD, rows)


def _thin_out(connection: Connection) -> None:
    # Of three in a row the one in the middle goes if the last one attests what came after the first in time.
    rows = connection.execute(_OLDER, {"recent": limits.LOG_RECENT_CHECKPOINTS}).all()
    if len(rows) == 3:
        (last, newer), (middle, _), (_, older) = rows
        connection.execute(_DROP_WITHOUT, {"covered": last})
        if newer - older <= timedelta(seconds=limits.LOG_CHECKPOINT_SPACING_SECONDS):
            connection.execute(_DROP, {"dropped": middle})


def _entries(row: LogStagedRow) -> list[bytes]:
    entries, at = [], 0
    while at < len(row.entries):
        begin = at + 2
        at = begin + int.from_bytes(row.entries[begin - 2 : begin])
        entries.append(row.entries[begin:at])
    if at != len(row.entries):
        raise LogHalted("the staged leaves are damaged", found=f"those from {row.start} on", hint="run pqreg fsck")
    return entries


@lru_cache(2)
def _size(note: bytes) -> int:
    try:
        return parse_checkpoint_note(note)[0].size
    except FormatError as error:
        raise LogHalted("the published checkpoint in the catalogue is damaged", found=error) from error
