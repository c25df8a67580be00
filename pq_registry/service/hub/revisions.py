# SPDX-License-Identifier: Apache-2.0
"""What a revision of a repository is, for the Hub's clients: a signed release, or a draft that nobody signed.

A revision is looked for in this order, and the first that there is counts:

1. a signed tag of that name, unless it was withdrawn: its release;
2. ``draft`` or ``draft/<branch>``: what was pushed to main or to that branch, whatever is signed under the name;
3. a branch or a tag that nobody signed;
4. 40 hex digits: the commit that is a release or a draft of this repository; 64, or ``sha256:`` and 64: a release.

``refs/heads/x`` and ``refs/tags/x`` are x. So a name that is signed never answers with a draft. Drafts are there for
those whom the ``DraftPolicy`` lets read them; for everybody else there is no such revision, and a repository with
nothing but drafts does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import EntryNotFound, NotFound, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.hubtree import CommitView, find_file
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller, Permission
from pq_registry.service.hub.listings import Listings, ReceiptSource
from pq_registry.service.hub.lookup import Found, at_commit, before, commit_view, look_up, newest
from pq_registry.service.hub.model import DRAFT, MAIN, Commit, HubFile, Pointer, Revision
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftRow
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow, TagRow


@dataclass(frozen=True, slots=True)
class Ref:
    """A name and the commit it stands for now."""

    name: str
    commit: Commit
    signed: bool


@dataclass(frozen=True, slots=True)
class Refs:
    """The names of a repository. Signed tags are ``tags``, but for main, which every client takes for a branch."""

    branches: tuple[Ref, ...]
    tags: tuple[Ref, ...]


class Revisions:
    """Reads revisions. ``policy`` says who may read drafts."""

    def __init__(
        self,
        catalogue: Catalogue,
        blobs: BlobStore,
        receipts: ReceiptSource,
        policy: DraftPolicy = DraftPolicy.PUBLISHERS,
    ) -> None:
        self.policy = policy
        self._catalogue = catalogue
        self._listings = Listings(catalogue, blobs, receipts)

    def find(self, caller: Caller, name: RepositoryName, revision: str) -> Revision:
        """The revision and its files.

        Raises:
            NotFound: if there is no such repository for the caller.
            RevisionNotFound: if it has no such revision for the caller.
            StorageError: if what is stored of it cannot be read.
        """
        with self._catalogue.reading() as session:
            row = self._row(session, caller, name)
            found = look_up(session, row, revision, drafts=self._drafts(caller, name))
            if found is None:
                self._require(session, caller, name, row)
                raise _unknown(name, revision)
        return self._revision(caller, name, found)

    def current(self, caller: Caller, name: RepositoryName) -> Revision:
        """Main, or where there is none the newest release, or the draft written last.

        Raises:
            NotFound: if there is no such repository for the caller.
            RevisionNotFound: if it has nothing at all.
            StorageError: if what is stored of it cannot be read.
        """
        with self._catalogue.reading() as session:
            row = self._row(session, caller, name)
            drafts = self._drafts(caller, name)
            found = look_up(session, row, MAIN, drafts=drafts) or newest(session, row, drafts=drafts)
            if found is None:
                self._require(session, caller, name, row)
                raise RevisionNotFound(f"{name} has no revision", hint="push a release, or upload something to main")
        return self._revision(caller, name, found)

    def obtain(self, caller: Caller, name: RepositoryName, revision: str, path: str) -> tuple[Revision, HubFile]:
        """One file of a revision.

        Raises:
            EntryNotFound: if the revision has no such file; it says which commit that was.
            NotFound, RevisionNotFound, StorageError: as ``find``.
        """
        found = self.find(caller, name, revision)
        at = find_file(found.files, path)
        if at is None:
            raise EntryNotFound(
                f"{name} has no such file at {found.commit}", commit=str(found.commit), found=repr(path)[:200],
                hint="list the files of the revision: names are compared exactly",
            )  # fmt: skip
        return found, found.files[at]

    def refs(self, caller: Caller, name: RepositoryName) -> Refs:
        """The names of the repository's revisions, those that are signed and those that are not.

        A draft whose name is signed as well is shown by the name that reaches it: ``draft`` or ``draft/<branch>``.

        Raises:
            NotFound: if there is no such repository for the caller.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            row = self._required(session, caller, name)
            signed = {
                tag.tag: Ref(tag.tag, Commit.of_release(Digest(tag.target)), signed=True)
                for tag in session.scalars(
                    select(TagRow).where(TagRow.repository_id == row.id, TagRow.target.is_not(None))
                )
                if tag.target is not None
            }
            rows: Sequence[DraftRow] = ()
            if self._drafts(caller, name):
                rows = session.scalars(select(DraftRow).where(DraftRow.repository_id == row.id)).all()
        branches, tags = [signed[MAIN]] if MAIN in signed else [], [ref for key, ref in signed.items() if key != MAIN]
        for draft in rows:
            head = Commit(draft.head)
            if draft.kind == Pointer.BRANCH:
                branches.append(Ref(_shown(draft.name) if draft.name in signed else draft.name, head, signed=False))
            elif draft.name not in signed:
                tags.append(Ref(draft.name, head, signed=False))
        return Refs(tuple(sorted(branches, key=_by_name)), tuple(sorted(tags, key=_by_name)))

    def history(
        self, caller: Caller, name: RepositoryName, revision: str, *, after: Commit | None, limit: int
    ) -> tuple[list[CommitView], Commit | None]:
        """One page of the commits up to a revision, newest first, and the ``after`` of the next page.

        Before a release stand the releases that the repository got before it; before a draft the commits it was made
        of, down to the release it began with.

        Raises:
            NotFound, RevisionNotFound: as ``find``, also if ``after`` is no commit of this repository.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            row = self._required(session, caller, name)
            drafts = self._drafts(caller, name)
            if after is None:
                found = look_up(session, row, revision, drafts=drafts)
            else:
                last = at_commit(session, row, str(after), None, drafts=drafts)
                found = None if last is None else before(session, row, last.row)
                if last is not None and found is None:
                    return [], None
            if found is None:
                raise _unknown(name, revision)
            commits: list[CommitView] = []
            step: Found | None = found
            while step is not None and len(commits) <= limit:
                commits.append(commit_view(step.row))
                step = before(session, row, step.row)
        following = Commit(commits[limit - 1].id) if len(commits) > limit else None
        return commits[:limit], following

    def require(self, caller: Caller, name: RepositoryName) -> None:
        """Make sure that there is such a repository for the caller.

        Raises:
            NotFound: if there is not.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            self._required(session, caller, name)

    def _required(self, session: Session, caller: Caller, name: RepositoryName) -> RepositoryRow:
        """The repository's row, if it has anything the caller may read.

        Raises:
            NotFound: if it has not, or there is none of exactly this name.
        """
        row = self._row(session, caller, name)
        self._require(session, caller, name, row)
        return row

    def _row(self, session: Session, caller: Caller, name: RepositoryName) -> RepositoryRow:
        """The repository's row, whatever it has; who found nothing in it must ask ``_require`` before saying so."""
        row = None
        if caller.may(Permission.READ, name.namespace.key):
            row = session.scalars(select(RepositoryRow).where(RepositoryRow.key == name.key)).one_or_none()
        if row is None:
            raise _absent(name)
        if row.name != str(name):
            self._require(session, caller, name, row)
            raise NotFound(f"no repository {name}", hint=f"it is written {row.name}")
        return row

    def _require(self, session: Session, caller: Caller, name: RepositoryName, row: RepositoryRow) -> None:
        wanted = [select(exists().where(ReleaseRow.repository_id == row.id))]
        if self._drafts(caller, name):
            wanted.append(select(exists().where(DraftRow.repository_id == row.id)))
        if not any(session.scalar(each) for each in wanted):
            raise _absent(name)

    def _drafts(self, caller: Caller, name: RepositoryName) -> bool:
        return self.policy.readable(caller, name.namespace)

    def _revision(self, caller: Caller, name: RepositoryName, found: Found) -> Revision:
        row = found.row
        view = commit_view(row)
        if isinstance(row, ReleaseRow):
            release = Digest(row.digest)
            files, sealed, parent = self._listings.of(caller, release), row.sealed, None
        else:
            release, sealed = None, False
            files = self._listings.of_draft(row.repository_id, row.id)
            parent = None if row.parent is None else Commit(row.parent)
        return Revision(
            repository=name,
            commit=Commit(view.id),
            name=found.name,
            release=release,
            sealed=sealed,
            title=view.title,
            author=view.author,
            created=view.date,
            parent=parent,
            files=files,
        )


def _absent(name: RepositoryName) -> NotFound:
    return NotFound(f"no repository {name}", hint="check the name, or push a first release")


def _unknown(name: RepositoryName, revision: str) -> RevisionNotFound:
    return RevisionNotFound(
        f"{name} has no such revision", expected="a tag, a branch, a commit or the digest of a release",
        found=repr(revision)[: limits.HUB_REVISION_CHARS], hint="see which there are: HfApi.list_repo_refs",
    )  # fmt: skip


def _shown(branch: str) -> str:
    return DRAFT if branch == MAIN else f"{DRAFT}/{branch}"


def _by_name(ref: Ref) -> str:
    return ref.name
