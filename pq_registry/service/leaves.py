# SPDX-License-Identifier: Apache-2.0
"""Which recorded statement is which leaf: what the catalogue says, as far as the ledger needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, exists, func, or_, select, type_coerce
from sqlalchemy.orm import aliased

from pq_registry import limits
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    LogCheckpointRow,
    LogEntryRow,
    NamespaceRow,
    RepositoryRow,
    StatementRow,
)

_UNTIMED = 0
"""The time of a leaf that is not sequenced yet."""
_BATCH = 256
"""Statements that are read and handed to the sequencer at once: each may be large, but only its leaf is kept."""
_MARGIN_SECONDS = 300
"""How far the clocks of witnesses may be from the service's where its catalogue decides what to look at."""


@dataclass(frozen=True, slots=True)
class Place:
    """A leaf of a statement: its index, and the time in it."""

    index: int
    time: datetime

    @property
    def seconds(self) -> int:
        """The time as it stands in the leaf."""
        return int(self.time.timestamp())


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded statement: its leaf but for the time, and where it is in the log already, newest first."""

    digest: Digest
    leaf: Leaf
    places: tuple[Place, ...]

    def leaf_at(self, place: Place) -> Leaf:
        """The whole leaf."""
        return replace(self.leaf, time=place.seconds)


class Leaves:
    """Reads the tables of statements and leaves."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def find(self, statement: Digest) -> Recorded:
        """A recorded statement.

        Raises:
            NotFound: if no such statement is recorded.
            FormatError: if what is recorded is damaged.
        """
        query = (
            select(StatementRow, NamespaceRow.name, RepositoryRow.name)
            .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
            .outerjoin(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
            .where(StatementRow.digest == statement.hex)
        )
        with self._catalogue.reading() as session:
            found = session.execute(query).one_or_none()
            if found is None:
                raise NotFound(f"no statement {statement}")
            row, namespace, repository = found
            leaf = Leaf.of(
                Envelope.parse(row.envelope),
                kind=Kind.parse(row.kind),
                name=namespace if repository is None else repository,
                identity=row.signer,
                time=_UNTIMED,
            )
            return Recorded(statement, leaf, tuple(map(_place, session.execute(_places(statement)))))

    def newest_place(self, statement: Digest) -> Place | None:
        """Where a statement was logged last."""
        with self._catalogue.reading() as session:
            found = session.execute(_places(statement).limit(1)).one_or_none()
        return None if found is None else _place(found)

    def unlogged(self, since: datetime | None = None) -> Iterator[list[Digest]]:
        """Statements that are nowhere in the log, in the order they were recorded, a few at a time.

        Of those recorded before ``since`` it is known already that there are none.
        """
        order = (StatementRow.recorded, StatementRow.digest)
        absent = ~exists().where(LogEntryRow.statement == StatementRow.digest)
        query = select(*order).where(absent).order_by(*order).limit(_BATCH)
        if since is not None:
            query = query.where(StatementRow.recorded >= since)
        last: tuple[datetime, str] | None = None
        while True:
            with self._catalogue.reading() as session:
                rows = session.execute(query if last is None else query.where(_behind(*last))).all()
            if not rows:
                return
            last = rows[-1][0], rows[-1][1]
            yield [Digest(digest) for _, digest in rows]

    def late(self, examined: int) -> tuple[list[Digest], int]:
        """Statements whose newest leaf was attested too late, and up to which leaf that is known now.

        The times are the catalogue's; whoever uses this looks at the receipts.
        """
        later = aliased(LogEntryRow)
        covering = aliased(LogCheckpointRow)
        first = (
            select(func.min(covering.size))
            .where(covering.quorum.is_(True), covering.size > LogEntryRow.index)
            .correlate(LogEntryRow)
            .scalar_subquery()
        )
        age = type_coerce(LogCheckpointRow.at, BigInteger) - type_coerce(LogEntryRow.time, BigInteger)
        query = (
            select(LogEntryRow.statement)
            .join(LogCheckpointRow, LogCheckpointRow.size == first)
            .where(
                LogEntryRow.index >= examined,
                age > limits.ATTESTATION_SECONDS - _MARGIN_SECONDS,
                ~exists().where(later.statement == LogEntryRow.statement, later.index > LogEntryRow.index),
            )
        )
        newest = select(func.max(LogCheckpointRow.size)).where(LogCheckpointRow.quorum.is_(True))
        with self._catalogue.reading() as session:
            upto = session.scalars(newest).one() or 0
            return [Digest(digest) for digest in session.scalars(query)], upto


def _places(statement: Digest) -> Select[int, datetime]:
    """Where a statement is in the log, newest first."""
    return (
        select(LogEntryRow.index, LogEntryRow.time)
        .where(LogEntryRow.statement == statement.hex)
        .order_by(LogEntryRow.index.desc())
    )


def _place(row: Any) -> Place:
    return Place(row[0], row[1])


def _behind(recorded: datetime, digest: str) -> ColumnElement[bool]:
    return or_(StatementRow.recorded > recorded, and_(StatementRow.recorded == recorded, StatementRow.digest > digest))
