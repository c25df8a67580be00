# SPDX-License-Identifier: Apache-2.0
"""Finding leaves by what their statements are about: for auditors, and for people who look for something.

This is the service's own account of its log. Whoever wants to know reads the tiles; this says where to look. It tells
nobody more than the leaves do: which grants belong to a release is in no leaf, so only who may read the namespace finds
grants by their release.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, select, union_all

from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.visible import readable_namespace
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import LogEntryRow, NamespaceRow, RepositoryRow, StatementRow


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryItem:
    """A leaf in a listing; ``name`` is the repository, or the namespace for key and status statements."""

    index: int
    time: datetime
    kind: str
    name: str
    identity: str
    statement: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to look for; all that is given must agree.

    ``name`` is a repository, or a namespace with all that is in it. ``digest`` is that of a statement's payload, or of
    a release with its grants, the latter for callers who may read the namespace.
    """

    name: str | None = None
    identity: str | None = None
    digest: Digest | None = None
    kind: str | None = None

    def conditions(self, caller: Caller) -> Iterator[ColumnElement[bool]]:
        """The same as conditions of a query, for this caller.

        Raises:
            NameSyntaxError: if ``name`` is none.
            FormatError: if ``identity`` or ``kind`` is none.
        """
        if self.name is not None:
            if "/" in self.name:
                yield RepositoryRow.key == RepositoryName.parse(self.name).key
            else:
                yield NamespaceRow.key == Namespace(self.name).key
        if self.identity is not None:
            yield StatementRow.signer == parse_identity_id(self.identity)
        if self.digest is not None:
            yield LogEntryRow.statement.in_(union_all(*statements_about(self.digest.hex, caller)))
        if self.kind is not None:
            yield StatementRow.kind == Kind.parse(self.kind).value


def statements_about(digest: str, caller: Caller) -> tuple[Select[str], ...]:
    """The statement of this payload digest; the grants of the release of this digest, if the caller may read there.

    For a union and not an OR: a database that knows how many leaves there are would rather read them all, newest first,
    than look two indexes up.
    """
    grants = select(StatementRow.digest).where(StatementRow.release_digest == digest)
    if caller.readable is not None:
        grants = grants.where(StatementRow.namespace_id.in_(select(NamespaceRow.id).where(readable_namespace(caller))))
    return select(StatementRow.digest).where(StatementRow.digest == digest), grants


class LogSearch:
    """Reads the catalogue's table of leaves."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def entries(
        self, caller: Caller, wanted: Wanted, *, after: int | None, limit: int
    ) -> tuple[list[EntryItem], int | None]:
        """One page of leaves, newest first, and the ``after`` of the next page.

        Raises:
            NameSyntaxError, FormatError: if ``wanted`` holds what no leaf can have.
        """
        query = (
            select(LogEntryRow, StatementRow.kind, StatementRow.signer, NamespaceRow.name, RepositoryRow.name)
            .join(StatementRow, StatementRow.digest == LogEntryRow.statement)
            .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
            .outerjoin(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
            .where(*wanted.conditions(caller))
            .order_by(LogEntryRow.index.desc())
            .limit(limit + 1)
        )
        if after is not None:
            query = query.where(LogEntryRow.index < after)
        with self._catalogue.reading() as session:
            items = [
                EntryItem(
                    index=row.index,
                    time=row.time,
                    kind=kind,
                    name=namespace if repository is None else repository,
                    identity=signer,
                    statement=Digest(row.statement),
                )
                for row, kind, signer, namespace, repository in session.execute(query)
            ]
        return items[:limit], items[limit - 1].index if len(items) > limit else None
