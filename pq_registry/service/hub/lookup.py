# SPDX-License-Identifier: Apache-2.0
"""Which row a revision's name stands for, in the order that ``revisions`` describes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from pq_registry import limits
from pq_registry.errors import NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.hubtree import CommitView
from pq_registry.format.name import Tag
from pq_registry.service.hub.model import DRAFT, Branch, Commit, Pointer
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow, TagRow

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_RELEASE = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_REFS = ("refs/heads/", "refs/tags/")

CommitRow = ReleaseRow | DraftCommitRow


@dataclass(frozen=True, slots=True)
class Found:
    """A row that is a revision, and the name it was found by."""

    row: CommitRow
    name: str | None


def look_up(session: Session, row: RepositoryRow, revision: str, *, drafts: bool) -> Found | None:
    """What a revision's name stands for; ``drafts`` is whether any are there for whoever asks."""
    revision = _short(revision)
    found = _tagged(session, row, revision)
    if found is None and drafts and (pointer := _pointer(session, row, revision)) is not None:
        found = at_commit(session, row, pointer.head, revision, drafts=True)
    if found is None and _COMMIT.fullmatch(revision):
        found = at_commit(session, row, revision, None, drafts=drafts)
    match = _RELEASE.fullmatch(revision)
    if found is None and match is not None:
        release = session.scalars(
            select(ReleaseRow).where(ReleaseRow.digest == match[1], ReleaseRow.repository_id == row.id)
        ).one_or_none()
        found = None if release is None else Found(release, None)
    return found


def at_commit(session: Session, row: RepositoryRow, commit: str, name: str | None, *, drafts: bool) -> Found | None:
    """The release or the draft that a commit is."""
    # Every digest that begins with these digits, by the index of digests: g is the letter after f.
    query = select(ReleaseRow).where(
        ReleaseRow.repository_id == row.id, ReleaseRow.digest >= commit, ReleaseRow.digest < f"{commit}g"
    )
    # Of two with the same 40 digits, which took 2^80 tries, it is always the older.
    found: CommitRow | None = session.scalars(query.order_by(ReleaseRow.id).limit(1)).first()
    if found is None and drafts:
        wanted = select(DraftCommitRow).where(DraftCommitRow.repository_id == row.id, DraftCommitRow.id == commit)
        found = session.scalars(wanted.options(defer(DraftCommitRow.listing))).one_or_none()
    return None if found is None else Found(found, name)


def before(session: Session, row: RepositoryRow, commit: CommitRow) -> Found | None:
    """The commit before one: a draft's parent, or the release that the repository got before a release."""
    if isinstance(commit, DraftCommitRow):
        return None if commit.parent is None else at_commit(session, row, commit.parent, None, drafts=True)
    query = (
        select(ReleaseRow)
        .where(ReleaseRow.repository_id == row.id, ReleaseRow.id < commit.id)
        .order_by(ReleaseRow.id.desc())
        .limit(1)
    )
    found = session.scalars(query).first()
    return None if found is None else Found(found, None)


def newest(session: Session, row: RepositoryRow, *, drafts: bool) -> Found | None:
    """The newest release, or where there is none the draft written last."""
    releases = select(ReleaseRow).where(ReleaseRow.repository_id == row.id).order_by(ReleaseRow.id.desc())
    release = session.scalars(releases.limit(1)).first()
    if release is not None:
        return Found(release, None)
    written = select(DraftRow).where(DraftRow.repository_id == row.id).order_by(DraftRow.updated.desc())
    draft = session.scalars(written.limit(1)).first() if drafts else None
    return None if draft is None else at_commit(session, row, draft.head, draft.name, drafts=True)


def commit_view(row: CommitRow) -> CommitView:
    """A release or a draft as a commit."""
    if isinstance(row, ReleaseRow):
        digest = Digest(row.digest)
        return CommitView(
            id=str(Commit.of_release(digest)), title=f"Release {digest}", message="", author=row.signer,
            date=row.committed,
        )  # fmt: skip
    return CommitView(
        id=row.id, title=row.title, message=row.message, author=row.token_id, date=row.created, signed=False
    )


def _tagged(session: Session, row: RepositoryRow, revision: str) -> Found | None:
    try:
        tag = Tag(revision)
    except NameSyntaxError:
        return None
    query = (
        select(ReleaseRow)
        .join(TagRow, TagRow.target == ReleaseRow.digest)
        .where(TagRow.repository_id == row.id, TagRow.tag == str(tag))
    )
    release = session.scalars(query).one_or_none()
    return None if release is None else Found(release, revision)


def _pointer(session: Session, row: RepositoryRow, revision: str) -> DraftRow | None:
    of_draft = revision == DRAFT or revision.startswith(f"{DRAFT}/")
    try:
        branch = Branch.parse(revision) if of_draft else Branch(revision)
    except NameSyntaxError:
        return None
    draft = session.get(DraftRow, (row.id, str(branch)))
    return None if draft is None or (of_draft and draft.kind != Pointer.BRANCH) else draft


def _short(revision: str) -> str:
    if len(revision) > limits.HUB_REVISION_CHARS:
        return ""
    return next((revision.removeprefix(ref) for ref in _REFS if revision.startswith(ref)), revision)
