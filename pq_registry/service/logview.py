# SPDX-License-Identifier: Apache-2.0
"""What the audit page shows of the log: leaves by name, digest or key, checkpoints, and how witnesses keep up.

This is the service's own account, from its catalogue; whoever looks compares it with the tiles. Leaves are public where
the log is, and whether it is says the route's policy; only what no leaf says depends on the caller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Select, false, func, or_, select, union_all

from pq_registry.errors import CheckpointInvalid, FormatError, NotFound, QuorumNotMet, StorageError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.cosignature import split_cosignature
from pq_registry.format.digest import Digest
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Leaf
from pq_registry.format.note import Note, VerifierKey
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.judge import judge
from pq_registry.service.access import Caller
from pq_registry.service.leaves import Leaves
from pq_registry.service.logsearch import EntryItem, statements_about
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    LogCheckpointRow,
    LogEntryRow,
    LogStateRow,
    NamespaceRow,
    RepositoryRow,
    StatementRow,
)

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,96}(?:/[A-Za-z0-9._-]{0,96})?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointView:
    """A published checkpoint, when that was, and whether it met the service's own policy."""

    checkpoint: Checkpoint
    note: bytes
    quorum: bool
    at: datetime
    lines: Note

    def time_of(self, key: VerifierKey) -> datetime | None:
        """When a key cosigned it, as its line says; the line is not verified here."""
        for line in self.lines.lines_of(key):
            try:
                timestamp, _ = split_cosignature(line.signature)
                return from_unix(timestamp)
            except FormatError:
                continue
        return None


class LogView:
    """Reads the log's tables."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._leaves = Leaves(catalogue)

    def search(
        self, caller: Caller, text: str, *, kind: str | None = None, before: int | None = None, limit: int
    ) -> tuple[list[EntryItem], int | None]:
        """Leaves, newest first, and the ``before`` of the next page.

        ``text`` is a namespace, a repository or the beginning of one, a payload digest, an identity or a leaf's
        number; empty for all. The digest of a release also finds its grants, for whoever may read there: that they
        belong together does not stand in their leaves.
        """
        query = _leaves().order_by(LogEntryRow.index.desc()).limit(limit + 1)
        if text:
            query = query.where(_matching(caller, text))
        if kind is not None:
            query = query.where(StatementRow.kind == kind)
        if before is not None:
            query = query.where(LogEntryRow.index < before)
        with self._catalogue.reading() as session:
            items = [_item(row) for row in session.execute(query)]
        return items[:limit], items[limit - 1].index if len(items) > limit else None

    def leaf(self, index: int) -> EntryItem:
        """One leaf.

        Raises:
            NotFound: if there is none of that number.
        """
        with self._catalogue.reading() as session:
            row = session.execute(_leaves().where(LogEntryRow.index == index)).one_or_none()
        if row is None:
            raise NotFound(f"no leaf {index}")
        return _item(row)

    def leaf_of(self, statement: Digest) -> EntryItem | None:
        """The first leaf of a statement, or None while it has none."""
        query = _leaves().where(LogEntryRow.statement == statement.hex).order_by(LogEntryRow.index).limit(1)
        with self._catalogue.reading() as session:
            row = session.execute(query).one_or_none()
        return None if row is None else _item(row)

    def content(self, item: EntryItem) -> Leaf:
        """What stands in the log for a leaf, made again from the statement and not read from the tiles.

        So a page can be shown, and judged in the browser, also where the tiles say something else.

        Raises:
            NotFound: if the statement is gone.
        """
        leaf = self._leaves.find(item.statement).leaf
        return replace(leaf, time=int(item.time.timestamp()))

    def leaves_of(self, statements: Sequence[Digest]) -> dict[Digest, int]:
        """The number of the first leaf of each statement that has one."""
        query = (
            select(LogEntryRow.statement, func.min(LogEntryRow.index))
            .where(LogEntryRow.statement.in_([digest.hex for digest in statements]))
            .group_by(LogEntryRow.statement)
        )
        with self._catalogue.reading() as session:
            return {Digest(hex_): index for hex_, index in session.execute(query)}

    def newest(self, policy: Policy) -> CheckpointView | None:
        """The checkpoint readers are shown now, dated by the log's own line; None before the first.

        It is renewed when nothing is added, so that it is not that of ``checkpoints``, which stay as they were.

        Raises:
            StorageError: if what is recorded is damaged.
        """
        with self._catalogue.reading() as session:
            note = session.scalars(select(LogStateRow.published)).one_or_none()
        if note is None:
            return None
        checkpoint, lines = _parsed(note)
        try:
            quorum = judge(note, policy) is not None
        except (QuorumNotMet, CheckpointInvalid):
            quorum = False
        undated = CheckpointView(checkpoint=checkpoint, note=note, quorum=quorum, at=from_unix(0), lines=lines)
        return replace(undated, at=undated.time_of(policy.log_pq) or undated.at)

    def checkpoints(self, *, limit: int) -> list[CheckpointView]:
        """The newest published checkpoints, oldest of them first."""
        query = select(LogCheckpointRow).order_by(LogCheckpointRow.size.desc()).limit(limit)
        with self._catalogue.reading() as session:
            return [_checkpoint(row) for row in reversed(session.scalars(query).all())]


def _leaves() -> Select[int, datetime, str, str, str, str, str]:
    return (
        select(
            LogEntryRow.index,
            LogEntryRow.time,
            StatementRow.kind,
            NamespaceRow.name,
            RepositoryRow.name,
            StatementRow.signer,
            StatementRow.digest,
        )
        .join(StatementRow, StatementRow.digest == LogEntryRow.statement)
        .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
        .outerjoin(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
    )


def _item(row: Row[int, datetime, str, str, str, str, str]) -> EntryItem:
    index, time, kind, namespace, repository, signer, digest = row
    name = repository or namespace  # key and status statements have no repository
    return EntryItem(index=index, time=time, kind=kind, name=name, identity=signer, statement=Digest(digest))


def _matching(caller: Caller, text: str) -> ColumnElement[bool]:
    if "/" in text:  # of a reference, the repository
        text = text.partition("@")[0].partition(":")[0]
    found = _HEX.fullmatch(text)
    if found is not None:
        wanted = found[1]
        signed = select(StatementRow.digest).where(StatementRow.signer == wanted)
        return LogEntryRow.statement.in_(union_all(*statements_about(wanted, caller), signed))
    if _NUMBER.fullmatch(text):
        return or_(LogEntryRow.index == int(text), NamespaceRow.key == text.lower())
    if _NAME.fullmatch(text) is None:
        return false()
    column = RepositoryRow.key if "/" in text else NamespaceRow.key
    return column.startswith(text.lower(), autoescape=True)


def _checkpoint(row: LogCheckpointRow) -> CheckpointView:
    checkpoint, lines = _parsed(row.note)
    return CheckpointView(checkpoint=checkpoint, note=row.note, quorum=row.quorum, at=row.at, lines=lines)


def _parsed(note: bytes) -> tuple[Checkpoint, Note]:
    try:
        return parse_checkpoint_note(note)
    except FormatError as error:
        raise StorageError("a recorded checkpoint is damaged", found=error.found, hint="run pqreg fsck") from error
