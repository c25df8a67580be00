# SPDX-License-Identifier: Apache-2.0
"""The leaves of the log as the catalogue has them: of the recorded statements, each at the place it was given.

A log needs nothing else: from these its tiles can be made again, to the last byte (``storage.logrepair``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.errors import PqregError
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.storage.catalogue.tables import LogEntryRow, NamespaceRow, RepositoryRow, StatementRow


@dataclass(frozen=True, slots=True)
class RecordedLeaf:
    """The leaf at ``index`` as its statement gives it; None with the reason where that cannot be read."""

    index: int
    statement: str
    leaf: Leaf | None
    problem: str = ""


def recorded_leaves(session: Session, start: int, end: int) -> Iterator[RecordedLeaf]:
    """The leaves from ``start`` to before ``end``, in order; those nothing is recorded for are left out."""
    query = (
        select(LogEntryRow, StatementRow, NamespaceRow.name, RepositoryRow.name)
        .join(StatementRow, StatementRow.digest == LogEntryRow.statement)
        .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
        .outerjoin(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
        .where(LogEntryRow.index >= start, LogEntryRow.index < end)
        .order_by(LogEntryRow.index)
        .execution_options(yield_per=16)
    )
    for row, statement, namespace, repository in session.execute(query):
        try:
            leaf = Leaf.of(
                Envelope.parse(statement.envelope),
                kind=Kind.parse(statement.kind),
                name=repository or namespace,
                identity=statement.signer,
                time=int(row.time.timestamp()),
            )
        except PqregError as error:
            yield RecordedLeaf(row.index, row.statement, None, str(error))
        else:
            yield RecordedLeaf(row.index, row.statement, leaf)
