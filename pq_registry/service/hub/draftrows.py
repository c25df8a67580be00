# SPDX-License-Identifier: Apache-2.0
"""Drafts as rows, and the two invariants that the use cases keep: nothing unreachable, nothing unbounded.

Every draft commit is an ancestor of what some name of its repository points to; what becomes unreachable goes in the
same transaction. When a repository's commits or their listings become too many, the oldest are forgotten, so that a
history may end at a parent that is not there any more; a head is never forgotten.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict, QuotaExceeded, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.draft import commit_id
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import Branch, Commit, Pointer
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow, TagRow

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Start:
    """What a commit is put on: a draft commit, a release (``manifest`` and ``sealed`` are its), or nothing."""

    commit: Commit | None = None
    listing: bytes | None = None
    manifest: Digest | None = None
    sealed: bool = False


def find_draft(session: Session, row: RepositoryRow, branch: Branch) -> DraftRow:
    """The name's row.

    Raises:
        RevisionNotFound: if nothing has this name.
    """
    draft = session.get(DraftRow, (row.id, str(branch)))
    if draft is None:
        raise RevisionNotFound(f"no draft {branch} in {row.name}", hint="pqreg draft list shows what there is")
    return draft


def start_of(session: Session, row: RepositoryRow, branch: Branch) -> Start:
    """What a commit to ``branch`` is put on: its head, else the release of the signed tag of that name, else nothing.

    Raises:
        Conflict: if the name is an unsigned tag: those do not move.
    """
    draft = session.get(DraftRow, (row.id, str(branch)))
    if draft is not None:
        if draft.kind != Pointer.BRANCH.value:
            raise Conflict(f"{branch} is a tag, and tags do not move", hint="commit to a branch")
        return start_at(session, row, Commit(draft.head))
    tag = session.get(TagRow, (row.id, str(branch)))
    if tag is None or tag.target is None:
        return Start()
    return start_at(session, row, Commit.of_release(Digest(tag.target)))


def start_at(session: Session, row: RepositoryRow, commit: Commit) -> Start:
    """A commit of this repository, of a draft or of a release.

    Raises:
        RevisionNotFound: if there is none.
    """
    known = session.get(DraftCommitRow, (row.id, str(commit)))
    if known is not None:
        return Start(commit, listing=known.listing)
    release = find_release(session, row, commit)
    if release is None:
        raise RevisionNotFound(f"no commit {commit} in {row.name}")
    return Start(commit, manifest=Digest(release.manifest_digest), sealed=release.sealed)


def find_release(session: Session, row: RepositoryRow, commit: Commit) -> ReleaseRow | None:
    """The release of this repository that is ``commit``."""
    query = select(ReleaseRow).where(
        ReleaseRow.repository_id == row.id, ReleaseRow.digest.startswith(str(commit), autoescape=True)
    )
    return session.scalars(query.order_by(ReleaseRow.id).limit(1)).first()


def has_release(session: Session, row: RepositoryRow) -> bool:
    """Whether the repository has a release."""
    return session.scalars(select(ReleaseRow.id).where(ReleaseRow.repository_id == row.id).limit(1)).first() is not None


def has_draft(session: Session, row: RepositoryRow) -> bool:
    """Whether the repository has a draft."""
    return session.scalars(select(DraftRow.name).where(DraftRow.repository_id == row.id).limit(1)).first() is not None


def is_signed_tag(session: Session, row: RepositoryRow, branch: Branch) -> bool:
    """Whether a signed tag has this name and was not withdrawn."""
    tag = session.get(TagRow, (row.id, str(branch)))
    return tag is not None and tag.target is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommit:
    """A commit that is about to be written."""

    listing: bytes
    files: int
    size: int
    parent: Commit | None
    title: str
    message: str


def add_commit(session: Session, caller: Caller, row: RepositoryRow, new: NewCommit, now: datetime) -> Commit:
    """Write a commit; the same one twice within a second is one.

    Raises:
        QuotaExceeded: if the drafts of this repository would take too much room even without their history.
    """
    parent = None if new.parent is None else str(new.parent)
    id_ = commit_id(
        listing=new.listing, parent=parent, title=new.title, message=new.message, author=caller.token_id, created=now
    )
    if session.get(DraftCommitRow, (row.id, id_)) is None:
        session.add(
            DraftCommitRow(
                repository_id=row.id, id=id_, parent=parent, title=new.title, message=new.message,
                token_id=caller.token_id, files=new.files, size=new.size, listing=new.listing, created=now,
            )
        )  # fmt: skip
        session.flush()
    return Commit(id_)


def set_head(
    session: Session, row: RepositoryRow, branch: Branch, commit: Commit, now: datetime, *, kind: Pointer
) -> None:
    """Let a name point to ``commit``; forgets what is out of reach or too much then.

    Raises:
        QuotaExceeded: if the repository has too many names, or their listings are too long together.
    """
    draft = session.get(DraftRow, (row.id, str(branch)))
    if draft is None:
        names = session.scalar(select(func.count()).where(DraftRow.repository_id == row.id)) or 0
        if names >= limits.DRAFT_NAMES:
            raise QuotaExceeded(
                f"{row.name} has too many drafts", expected=f"at most {limits.DRAFT_NAMES}", found=names,
                hint="delete branches and tags that are not needed",
            )  # fmt: skip
        session.add(
            DraftRow(
                repository_id=row.id, name=str(branch), kind=kind.value, head=str(commit), created=now, updated=now
            )
        )
    else:
        draft.head, draft.updated = str(commit), now
    session.flush()
    _forget_oldest(session, row)


def forget_unreachable(session: Session, row: RepositoryRow) -> None:
    """Remove the commits that no name leads to any more."""
    mine = DraftCommitRow.repository_id == row.id
    query = select(DraftCommitRow.id, DraftCommitRow.parent).where(mine)
    parents: dict[str, str | None] = dict(session.execute(query).all())
    reached: set[str] = set()
    for head in _heads(session, row):
        commit: str | None = head
        while commit in parents and commit not in reached:
            reached.add(commit)
            commit = parents[commit]
    _delete(session, row, parents.keys() - reached)


def _forget_oldest(session: Session, row: RepositoryRow) -> None:
    mine = DraftCommitRow.repository_id == row.id
    length = func.length(DraftCommitRow.listing)
    count, total = session.execute(select(func.count(), func.coalesce(func.sum(length), 0)).where(mine)).one()
    if count <= limits.DRAFT_COMMITS and total <= limits.DRAFT_LISTINGS_BYTES:
        return
    heads, going = _heads(session, row), set()
    query = select(DraftCommitRow.id, length).where(mine).order_by(DraftCommitRow.created, DraftCommitRow.id)
    for id_, size in session.execute(query).all():
        if count <= limits.DRAFT_COMMITS and total <= limits.DRAFT_LISTINGS_BYTES:
            break
        if id_ not in heads:
            going.add(id_)
            count, total = count - 1, total - size
    if total > limits.DRAFT_LISTINGS_BYTES:
        raise QuotaExceeded(
            f"the drafts of {row.name} have too many files",
            expected=f"listings of {limits.DRAFT_LISTINGS_BYTES} bytes", found=f"{total} bytes",
            hint="delete branches and tags that are not needed",
        )  # fmt: skip
    _delete(session, row, going)
    forget_unreachable(session, row)


def _heads(session: Session, row: RepositoryRow) -> set[str]:
    return set(session.scalars(select(DraftRow.head).where(DraftRow.repository_id == row.id)))


def _delete(session: Session, row: RepositoryRow, ids: Collection[str]) -> None:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        session.execute(
            delete(DraftCommitRow).where(DraftCommitRow.repository_id == row.id, DraftCommitRow.id.in_(batch))
        )
