# SPDX-License-Identifier: Apache-2.0
"""Drafts as they are read. Whoever may not read a repository's drafts gets the answers as if there were none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.errors import NotFound, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.draft import DraftFile, parse_listing
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.hub import draftrows as rows
from pq_registry.service.hub.model import Branch, Commit, Pointer
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.names import find_repository
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.catalogue.tables import RepositoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A name nobody signed and what it points to. ``release`` is set if that is a release."""

    name: str
    kind: Pointer
    head: Commit
    release: Digest | None
    files: int
    size: int
    title: str
    created: datetime
    updated: datetime


class DraftViews:
    """The use cases that read. ``policy`` is the operator's, and may be set anew."""

    def __init__(self, catalogue: Catalogue, policy: DraftPolicy) -> None:
        self._catalogue = catalogue
        self.policy = policy

    def readable(self, caller: Caller, namespace: Namespace) -> bool:
        """Whether the caller may read drafts of a namespace."""
        return self.policy.readable(caller, namespace)

    def listing(self, caller: Caller, name: RepositoryName) -> tuple[Draft, ...]:
        """The drafts of a repository that the caller may read, by name.

        Raises:
            NotFound: if there is no such repository for this caller.
        """
        with self._catalogue.reading() as session:
            row = self.find(session, caller, name)
            if not self.readable(caller, name.namespace):
                return ()
            drafts = session.scalars(
                select(DraftRow).where(DraftRow.repository_id == row.id).order_by(DraftRow.name)
            ).all()
            return tuple(_view(session, row, draft) for draft in drafts)

    def head(self, caller: Caller, name: RepositoryName, branch: Branch) -> Commit | None:
        """What a draft points to; None if there is no such draft.

        Raises:
            NotFound: if there is no such repository for this caller.
        """
        with self._catalogue.reading() as session:
            row = self.find(session, caller, name)
            draft = session.get(DraftRow, (row.id, str(branch)))
            return Commit(draft.head) if draft is not None and self.readable(caller, name.namespace) else None

    def contents(self, caller: Caller, name: RepositoryName, branch: Branch) -> tuple[Draft, tuple[DraftFile, ...]]:
        """A draft and its files; none of one that points to a release.

        Raises:
            NotFound: if there is no such repository for this caller.
            RevisionNotFound: if there is no such draft.
        """
        with self._catalogue.reading() as session:
            row = self.find(session, caller, name)
            if not self.readable(caller, name.namespace):
                raise RevisionNotFound(f"no draft {branch} in {name}")
            draft = rows.find_draft(session, row, branch)
            commit = session.get(DraftCommitRow, (row.id, draft.head))
            return _view(session, row, draft), () if commit is None else parse_listing(commit.listing)

    def find(self, session: Session, caller: Caller, name: RepositoryName, *, lock: bool = False) -> RepositoryRow:
        """The row of a repository that has something for this caller: a release, or a draft that may be read.

        Raises:
            NotFound: if there is none of exactly this name.
        """
        row = find_repository(session, name, lock=lock)
        if rows.has_release(session, row):
            return row
        if self.readable(caller, name.namespace) and rows.has_draft(session, row):
            return row
        raise NotFound(f"no repository {name}", hint="check the name, or push a first release")


def _view(session: Session, row: RepositoryRow, draft: DraftRow) -> Draft:
    commit = session.get(DraftCommitRow, (row.id, draft.head))
    release = None if commit is not None else rows.find_release(session, row, Commit(draft.head))
    facts = commit or release
    return Draft(
        name=draft.name,
        kind=Pointer(draft.kind),
        head=Commit(draft.head),
        release=None if release is None else Digest(release.digest),
        files=0 if facts is None else facts.files,
        size=0 if facts is None else facts.size,
        title="" if commit is None else commit.title,
        created=draft.created,
        updated=draft.updated,
    )
