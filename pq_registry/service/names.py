# SPDX-License-Identifier: Apache-2.0
"""Namespaces and repositories as rows. Names are unique without regard to case and answer only to their own spelling.

Whoever asks for ``Acme/MiniLM`` where ``acme/minilm`` exists is told so: signed names are compared exactly, so a
second spelling could never verify.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.errors import Conflict, NotFound
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.storage.catalogue.tables import NamespaceRow, RepositoryRow


def find_repository(session: Session, name: RepositoryName, *, lock: bool = False) -> RepositoryRow:
    """The repository's row.

    Args:
        session: a transaction.
        name: the repository.
        lock: whether nobody else may decide upon this repository until the transaction ends.

    Raises:
        NotFound: if there is no repository of exactly this name.
    """
    query = select(RepositoryRow).where(RepositoryRow.key == name.key)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"no repository {name}", hint="check the name, or push a first release")
    if row.name != str(name):
        raise NotFound(f"no repository {name}", hint=f"it is written {row.name}")
    return row


def obtain_repository(session: Session, name: RepositoryName, now: datetime) -> RepositoryRow:
    """The repository's row, locked, made if it is not there.

    Raises:
        Conflict: if the name is taken in another spelling.
    """
    row = session.scalars(select(RepositoryRow).where(RepositoryRow.key == name.key).with_for_update()).one_or_none()
    if row is None:
        namespace = obtain_namespace(session, name.namespace, now)
        row = RepositoryRow(namespace_id=namespace.id, key=name.key, name=str(name), created=now, updated=now)
        session.add(row)
        session.flush()
    _require_spelling(row.name, str(name))
    return row


def find_namespace(session: Session, namespace: Namespace) -> NamespaceRow | None:
    """The namespace's row, if there is one of exactly this spelling."""
    row = session.scalars(select(NamespaceRow).where(NamespaceRow.key == namespace.key)).one_or_none()
    return row if row is not None and row.name == str(namespace) else None


def obtain_namespace(session: Session, namespace: Namespace, now: datetime) -> NamespaceRow:
    """The namespace's row, locked, made if it is not there.

    Raises:
        Conflict: if the name is taken in another spelling.
    """
    query = select(NamespaceRow).where(NamespaceRow.key == namespace.key).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is None:
        row = NamespaceRow(key=namespace.key, name=str(namespace), created=now)
        session.add(row)
        session.flush()
    _require_spelling(row.name, str(namespace))
    return row


def _require_spelling(existing: str, asked: str) -> None:
    if existing != asked:
        raise Conflict("the name exists in another spelling", expected=existing, found=asked, hint=f"use {existing}")
