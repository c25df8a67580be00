# SPDX-License-Identifier: Apache-2.0
"""What the audit page shows of namespaces: who may sign, how much was signed when, and what was revoked.

Everything here is limited to what the caller may read. It is the service's own account and proves nothing; what can be
proved is in the log (``service.logview``) and is checked by whoever looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace
from pq_registry.format.status import StatusStatement
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.names import find_namespace
from pq_registry.service.visible import readable_namespace
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    IdentityRow,
    NamespaceIdentityRow,
    NamespaceRow,
    ReleaseRow,
    RepositoryRow,
    StatementRow,
    StatusRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceItem:
    """A namespace in a listing."""

    name: str
    repositories: int
    releases: int
    identities: int
    last_signed: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityItem:
    """An identity registered for a namespace."""

    id: str
    level: int
    public: str
    registered: datetime
    signed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """The newest status statement of a namespace."""

    digest: Digest
    statement: StatusStatement
    expired: bool


@dataclass(frozen=True, slots=True)
class Activity:
    """Signatures per week, oldest first, of every namespace that has any; ``starts`` are the weeks' first days."""

    starts: tuple[datetime, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]


class Overview:
    """What there is, in numbers and lists."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def namespaces(self, caller: Caller) -> list[NamespaceItem]:
        """The namespaces the caller may read, by name, at most ``limits.PAGE_ITEMS``."""
        query = (
            select(
                NamespaceRow.name,
                _count(RepositoryRow.id, _of_repositories(), _has_release()),
                _count(ReleaseRow.id, ReleaseRow.repository_id == RepositoryRow.id, _of_repositories()),
                _count(NamespaceIdentityRow.identity_id, NamespaceIdentityRow.namespace_id == NamespaceRow.id),
                select(func.max(StatementRow.recorded))
                .where(StatementRow.namespace_id == NamespaceRow.id)
                .correlate(NamespaceRow)
                .scalar_subquery(),
            )
            .where(readable_namespace(caller))
            .order_by(NamespaceRow.key)
            .limit(limits.PAGE_ITEMS)
        )
        with self._catalogue.reading() as session:
            return [
                NamespaceItem(
                    name=name, repositories=repositories, releases=releases, identities=identities, last_signed=last
                )
                for name, repositories, releases, identities, last in session.execute(query)
            ]

    def activity(self, caller: Caller, *, namespace: Namespace | None = None) -> Activity:
        """Signatures per week, of one namespace or of the ``limits.CHART_ROWS`` that signed most."""
        starts = _weeks(self._clock())
        week = timedelta(weeks=1)
        counts = [
            func.sum(case((and_(StatementRow.recorded >= start, StatementRow.recorded < start + week), 1), else_=0))
            for start in starts
        ]
        total = func.count()
        query = (
            select(NamespaceRow.name, *counts)
            .join(StatementRow, StatementRow.namespace_id == NamespaceRow.id)
            .where(readable_namespace(caller), StatementRow.recorded >= starts[0])
            .group_by(NamespaceRow.id)
            .order_by(total.desc(), NamespaceRow.key)
            .limit(limits.CHART_ROWS)
        )
        if namespace is not None:
            query = query.where(NamespaceRow.key == namespace.key)
        with self._catalogue.reading() as session:
            rows = tuple((name, tuple(map(int, numbers))) for name, *numbers in session.execute(query))
        return Activity(starts, rows)

    def namespace(self, name: Namespace) -> None:
        """Make sure that there is such a namespace.

        Raises:
            NotFound: if there is none.
        """
        with self._catalogue.reading() as session:
            _require(session, name)

    def identities(self, name: Namespace) -> list[IdentityItem]:
        """The identities registered for a namespace, oldest first.

        Raises:
            NotFound: if there is no such namespace.
        """
        with self._catalogue.reading() as session:
            row = _require(session, name)
            signed = _count(
                StatementRow.digest,
                StatementRow.signer == IdentityRow.id,
                StatementRow.namespace_id == NamespaceIdentityRow.namespace_id,
            )
            query = (
                select(IdentityRow.id, IdentityRow.public, NamespaceIdentityRow.registered, signed)
                .join(NamespaceIdentityRow, NamespaceIdentityRow.identity_id == IdentityRow.id)
                .where(NamespaceIdentityRow.namespace_id == row.id)
                .order_by(NamespaceIdentityRow.registered, IdentityRow.id)
            )
            return [
                IdentityItem(id=id_, level=_level(public), public=public, registered=registered, signed=number)
                for id_, public, registered, number in session.execute(query)
            ]

    def status(self, name: Namespace) -> StatusView | None:
        """What the namespace has revoked; None if it has never published a status statement.

        Raises:
            NotFound: if there is no such namespace.
        """
        with self._catalogue.reading() as session:
            row = session.get(StatusRow, _require(session, name).id)
            recorded = None if row is None else session.get(StatementRow, row.statement)
            if recorded is None:
                return None
            envelope = Envelope.parse(recorded.envelope)
        statement = StatusStatement.parse(envelope.payload)
        expired = self._clock() >= statement.expires
        return StatusView(digest=envelope.payload_digest, statement=statement, expired=expired)


def _require(session: Session, name: Namespace) -> NamespaceRow:
    row = find_namespace(session, name)
    if row is None:
        raise NotFound(f"no namespace {name}")
    return row


def _count(column: object, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    counted = select(func.count(column)).where(*conditions)  # type: ignore[arg-type]  # a mapped column
    return counted.correlate(NamespaceRow, IdentityRow, NamespaceIdentityRow).scalar_subquery()


def _of_repositories() -> ColumnElement[bool]:
    return RepositoryRow.namespace_id == NamespaceRow.id


def _has_release() -> ColumnElement[bool]:
    return select(ReleaseRow.id).where(ReleaseRow.repository_id == RepositoryRow.id).exists()


def _level(public: str) -> int:
    return PublicIdentity.from_pem(public.encode("ascii")).profile.level


def _weeks(now: datetime) -> tuple[datetime, ...]:
    monday = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=now.weekday())
    return tuple(monday - timedelta(weeks=back) for back in reversed(range(limits.CHART_WEEKS)))
