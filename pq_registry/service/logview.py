# SPDX-License-Identifier: Apache-2.0
"""What the audit page shows of the log: leaves by name, digest or key, checkpoints, and how witnesses keep up.

The leaf itself is read from the tiles as anybody could; only what stands in the catalogue besides (which namespace,
which statement) is the service's own account. Leaves are public where the log is, so nothing here depends on the
caller; whether the log is public is the route's policy.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Select, func, or_, select

from pq_registry.errors import FormatError, NotFound
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.cosignature import split_cosignature
from pq_registry.format.digest import Digest
from pq_registry.format.note import Note, VerifierKey
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    LogCheckpointRow,
    LogEntryRow,
    NamespaceRow,
    RepositoryRow,
    StatementRow,
)

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafItem:
    """A leaf in a listing."""

    index: int
    time: datetime
    kind: str
    name: str
    identity: str
    statement: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointView:
    """A published checkpoint, the times of its cosignatures by key, and its age."""

    checkpoint: Checkpoint
    note: bytes
    quorum: bool
    at: datetime
    times: dict[str, datetime]

    def time_of(self, key: VerifierKey) -> datetime | None:
        """When a key cosigned it, as its line says; the line is not verified here."""
        return self.times.get(_name_of(key))


class LogView:
    """Reads the log's tables."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def search(
        self, text: str, *, kind: str | None, before: int | None, limit: int
    ) -> tuple[list[LeafItem], int | None]:
        """Leaves, newest first, and the ``before`` of the next page.

        ``text`` is a namespace, a repository or the beginning of one, a payload digest, an identity or a leaf's
        number; empty for all.
        """
        query = _leaves().order_by(LogEntryRow.index.desc()).limit(limit + 1)
        if text:
            query = query.where(_matching(text))
        if kind is not None:
            query = query.where(StatementRow.kind == kind)
        if before is not None:
            query = query.where(LogEntryRow.index < before)
        with self._catalogue.reading() as session:
            items = [_item(*row) for row in session.execute(query)]
        return items[:limit], items[limit - 1].index if len(items) > limit else None

    def leaf(self, index: int) -> LeafItem:
        """One leaf.

        Raises:
            NotFound: if there is none of that number.
        """
        with self._catalogue.reading() as session:
            row = session.execute(_leaves().where(LogEntryRow.index == index)).one_or_none()
        if row is None:
            raise NotFound(f"no leaf {index}")
        return _item(*row)

    def leaf_of(self, statement: Digest) -> LeafItem | None:
        """The first leaf of a statement, or None while it has none."""
        query = _leaves().where(LogEntryRow.statement == statement.hex).order_by(LogEntryRow.index).limit(1)
        with self._catalogue.reading() as session:
            row = session.execute(query).one_or_none()
        return None if row is None else _item(*row)

    def leaves_of(self, statements: Sequence[Digest]) -> dict[Digest, int]:
        """The number of the first leaf of each statement that has one."""
        query = (
            select(LogEntryRow.statement, func.min(LogEntryRow.index))
            .where(LogEntryRow.statement.in_([digest.hex for digest in statements]))
            .group_by(LogEntryRow.statement)
        )
        with self._catalogue.reading() as session:
            return {Digest(hex_): index for hex_, index in session.execute(query)}

    def newest(self) -> CheckpointView | None:
        """The newest published checkpoint; None before the first."""
        found = self.checkpoints(limit=1)
        return found[-1] if found else None

    def checkpoints(self, *, limit: int) -> list[CheckpointView]:
        """The newest published checkpoints, oldest of them first."""
        query = select(LogCheckpointRow).order_by(LogCheckpointRow.size.desc()).limit(limit)
        with self._catalogue.reading() as session:
            return [_checkpoint(row) for row in reversed(session.scalars(query).all())]


def _leaves() -> Select[tuple[int, datetime, str, str, str | None, str, str]]:
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


def _item(
    index: int, time: datetime, kind: str, namespace: str, repository: str | None, signer: str, digest: str
) -> LeafItem:
    return LeafItem(
        index=index, time=time, kind=kind, name=repository or namespace, identity=signer, statement=Digest(digest)
    )


def _matching(text: str) -> ColumnElement[bool]:
    found = _HEX.fullmatch(text)
    if found is not None:
        wanted = found[1]
        return or_(StatementRow.digest == wanted, StatementRow.signer == wanted, StatementRow.release_digest == wanted)
    if _NUMBER.fullmatch(text):
        return or_(LogEntryRow.index == int(text), NamespaceRow.key == text.lower())
    if "/" in text:
        return RepositoryRow.key.startswith(text.lower(), autoescape=True)
    return NamespaceRow.key.startswith(text.lower(), autoescape=True)


def _checkpoint(row: LogCheckpointRow) -> CheckpointView:
    checkpoint, note = parse_checkpoint_note(row.note)
    return CheckpointView(checkpoint=checkpoint, note=row.note, quorum=row.quorum, at=row.at, times=_times(note))


def _times(note: Note) -> dict[str, datetime]:
    times = {}
    for line in note.signatures:
        try:
            timestamp, _ = split_cosignature(line.signature)
            times[f"{line.name}+{line.key_id.hex()}"] = datetime.fromtimestamp(timestamp, UTC)
        except (FormatError, OverflowError, ValueError):
            continue  # a line without a time (the log's Ed25519 one) or with one no calendar has
    return times


def _name_of(key: VerifierKey) -> str:
    return f"{key.name}+{key.key_id.hex()}"
