# SPDX-License-Identifier: Apache-2.0
"""Drafts: what is pushed through the Hub's protocol, and is nobody's word until ``pqreg sign`` makes a release of it.

1. A draft is a name that points to a commit. Signed tags are something else and never move by any of this: a commit to
   ``main`` while tag ``main`` is signed goes to the draft of that name, on top of the signed release's files.
2. Who may read drafts is the policy's business; whoever may not finds none. Whoever changes one must be allowed to
   publish in the namespace, and with policy ``off`` nobody adds to any.
3. A commit says which blobs its files are. They must be blobs the caller may read, which the service has verified;
   the repository refers to them from then on, and collection keeps what any draft commit lists.
4. Drafts of a sealed release do not exist: its files are ciphertext.
5. Two who commit to one draft at the same time follow one another, unless one named the parent it worked on.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import AccessDenied, AlreadyExists, Conflict, DraftMoved, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.draft import encode_listing, parse_listing
from pq_registry.format.manifest import MANIFEST_NAME, Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller, Permission, denied
from pq_registry.service.clock import Clock
from pq_registry.service.hub import draftrows as rows
from pq_registry.service.hub.changes import Changes, Files, apply_changes, check_words, draft_files
from pq_registry.service.hub.draftview import DraftViews
from pq_registry.service.hub.model import MAIN, Branch, Commit, Pointer
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.names import obtain_repository
from pq_registry.service.visible import link_blobs, visible_blobs
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.catalogue.intaketables import XetPlaceRow, XorbRow, XorbSourceRow
from pq_registry.storage.catalogue.tables import RepositoryBlobRow
from pq_registry.storage.hashing import read_blob

_FIRST = "initial commit"


class Drafts(DraftViews):
    """The use cases around drafts. Whoever may not read a draft gets the answers as if there were none."""

    def __init__(
        self, catalogue: Catalogue, blobs: BlobStore, clock: Clock, policy: DraftPolicy = DraftPolicy.PUBLISHERS
    ) -> None:
        super().__init__(catalogue, policy)
        self._blobs = blobs
        self._clock = clock

    def create(self, caller: Caller, name: RepositoryName, *, exist_ok: bool) -> bool:
        """Make a repository that has nothing but an empty draft ``main``; answers whether it was made.

        Raises:
            AccessDenied: if the caller may not publish there, or drafts are off.
            AlreadyExists: if it is there, unless that is fine.
            Conflict: if the name is taken in another spelling.
        """
        self._require_writer(caller, name)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_repository(session, name, now)
            if rows.has_release(session, row) or rows.has_draft(session, row):
                if exist_ok:
                    return False
                raise AlreadyExists(f"the repository {name} is there already")
            new = rows.NewCommit(listing=encode_listing(()), files=0, size=0, parent=None, title=_FIRST, message="")
            commit = rows.add_commit(session, caller, row, new, now)
            rows.set_head(session, row, Branch(MAIN), commit, now, kind=Pointer.BRANCH)
            audit.record(session, caller, now, audit.Action.REPOSITORY_CREATED, name, head=str(commit))
        return True

    def commit(
        self,
        caller: Caller,
        name: RepositoryName,
        branch: Branch,
        changes: Changes,
        *,
        title: str,
        message: str,
        parent: Commit | None,
    ) -> Commit:
        """Put a commit on a draft; one that changes nothing answers what is there.

        Args:
            caller: who.
            name: the repository.
            branch: the draft.
            changes: what it changes.
            title: of the commit.
            message: what else is said about it.
            parent: what it was worked out for; None for whatever is the head.

        Raises:
            AccessDenied: if the caller may not publish there, or drafts are off.
            NotFound: if there is no such repository; EntryNotFound if what it deletes or copies is not there.
            Conflict: if the head is another than ``parent``, a blob is not there, or the release below is sealed.
            FormatError: if a path or a text is malformed.
            QuotaExceeded: if the repository has too many drafts.
        """
        self._require_writer(caller, name)
        check_words(title, message)
        for _ in range(limits.DRAFT_TRIES):
            with self._catalogue.reading() as session:
                start = rows.start_of(session, self.find(session, caller, name), branch)
                facts = visible_blobs(
                    session, caller, (put[0] for put in changes.put.values()), slice_size=limits.SHARD_BYTES
                )
            _require_parent(name, branch, start.commit, parent)
            for path, (digest, _) in changes.put.items():
                if digest not in facts:
                    raise Conflict(f"{path} has not been uploaded", expected=f"a verified blob {digest}")
            before = self._files(caller, start)
            after = apply_changes(before, changes, {digest: fact.size for digest, fact in facts.items()})
            if start.commit is not None and after == before:
                return start.commit
            done = self._write(caller, name, branch, start.commit, after, title=title, message=message)
            if done is not None:
                return done
        raise Conflict(f"the draft {branch} of {name} is moved all the time", hint="try again")

    def branch(self, caller: Caller, name: RepositoryName, branch: Branch, start: Commit) -> None:
        """Let a new branch begin at a commit of this repository.

        Raises:
            PqregError: as ``tag``.
        """
        self._name(caller, name, branch, start, Pointer.BRANCH)

    def tag(self, caller: Caller, name: RepositoryName, tag: Branch, commit: Commit) -> None:
        """Set a new unsigned tag at a commit of this repository.

        Raises:
            AccessDenied: if the caller may not publish there, or drafts are off.
            NotFound: if there is no such repository or commit.
            AlreadyExists: if the name is taken, by a signed tag for instance.
            QuotaExceeded: if the repository has too many drafts.
        """
        self._name(caller, name, tag, commit, Pointer.TAG)

    def squash(self, caller: Caller, name: RepositoryName, branch: Branch, *, title: str, message: str) -> Commit:
        """Put the files of a draft into one commit without history.

        Raises:
            AccessDenied: if the caller may not publish there, or drafts are off.
            NotFound: if there is no such repository or draft.
            Conflict: if it points to a release, or is a tag.
        """
        self._require_writer(caller, name)
        check_words(title, message)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = self.find(session, caller, name, lock=True)
            draft = rows.find_draft(session, row, branch)
            old = session.get(DraftCommitRow, (row.id, draft.head))
            if old is None or draft.kind != Pointer.BRANCH.value:
                raise Conflict(f"{branch} of {name} has no history to squash", found="a release or a tag")
            new = rows.NewCommit(
                listing=old.listing, files=old.files, size=old.size, parent=None, title=title, message=message
            )
            commit = rows.add_commit(session, caller, row, new, now)
            rows.set_head(session, row, branch, commit, now, kind=Pointer.BRANCH)
            rows.forget_unreachable(session, row)
            _record(session, caller, now, audit.Action.DRAFT_SQUASHED, name, branch, commit)
        return commit

    # -- removing ----------------------------------------------------------------------------------------------------

    def delete_name(self, caller: Caller, name: RepositoryName, branch: Branch, *, kind: Pointer) -> None:
        """Remove a branch or a tag, as the Hub's clients do it; never ``main``.

        Raises:
            AccessDenied: if the caller may not publish there, or the name is ``main`` or a signed tag's.
            NotFound: if there is no such repository, branch or tag.
            Conflict: if it is the other of the two.
        """
        if str(branch) == MAIN:
            raise AccessDenied(f"{MAIN} is where clients begin and stays", hint="pqreg draft drop removes the draft")
        self._drop(caller, name, branch, head=None, kind=kind)

    def drop(self, caller: Caller, name: RepositoryName, branch: Branch, *, head: Commit | None) -> None:
        """Remove a draft, of whatever kind; with ``head`` only if that is still what it points to.

        Raises:
            AccessDenied: if the caller may not publish there.
            NotFound: if there is no such repository or draft.
            Conflict: if it has moved.
        """
        self._drop(caller, name, branch, head=head, kind=None)

    def delete_repository(self, caller: Caller, name: RepositoryName) -> list[StoredBlob]:
        """Remove a repository that never had a release, with all its drafts.

        Answers the bytes of xorbs that nobody knows of any more: whoever calls this removes them (``Xorbs.discard``).

        Raises:
            AccessDenied: if the caller may not publish there, or it has a release.
            NotFound: if there is no such repository.
        """
        _require_publisher(caller, name)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = self.find(session, caller, name, lock=True)
            if rows.has_release(session, row):
                raise AccessDenied(
                    f"{name} has signed releases, which are logged for good and stay",
                    hint="withdraw its tags (pqreg rm) or revoke releases; drafts can be dropped (pqreg draft drop)",
                )
            mine = XorbRow.repository_id == row.id
            stored = session.scalars(select(XorbRow).where(mine, XorbRow.stored.is_(True))).all()
            blocks = [StoredBlob(Digest(xorb.digest), xorb.id) for xorb in stored]
            xorbs = select(XorbRow.id).where(mine)
            session.execute(delete(XorbSourceRow).where(XorbSourceRow.xorb_id.in_(xorbs)))
            for table in (DraftRow, DraftCommitRow, RepositoryBlobRow, XorbRow, XetPlaceRow):
                session.execute(delete(table).where(table.repository_id == row.id))
            audit.record(session, caller, now, audit.Action.REPOSITORY_REMOVED, name)
            try:
                with session.begin_nested():
                    session.delete(row)
            except IntegrityError:
                session.expire(row)  # an upload of it is under way: the row goes unseen until there is something again
        return blocks

    # -- parts -------------------------------------------------------------------------------------------------------

    def _require_writer(self, caller: Caller, name: RepositoryName) -> None:
        _require_publisher(caller, name)
        if not self.policy.writable:
            raise AccessDenied(
                "this registry takes no drafts, so nothing can be written through the Hub's protocol",
                hint="publish signed releases with pqreg push, or ask the operator for setting drafts",
            )

    def _files(self, caller: Caller, start: rows.Start) -> Files:
        if start.listing is not None:
            return {file.path.text: (file.sha256, file.size) for file in parse_listing(start.listing)}
        if start.manifest is None:
            return {}
        if start.sealed:
            raise Conflict(
                "the release below is sealed, and its files are ciphertext: there are no drafts of it",
                hint="publish with pqreg push --seal, or commit to a branch of another name",
            )
        with self._catalogue.reading() as session:
            facts = visible_blobs(session, caller, [start.manifest], slice_size=limits.SHARD_BYTES)
        if start.manifest not in facts:
            raise NotFound(f"the {MANIFEST_NAME} of release {start.commit} is not there")
        manifest = Manifest.parse(read_blob(self._blobs, facts[start.manifest].blob, limit=limits.MANIFEST_BYTES))
        return {entry.path.text: (entry.sha256, entry.size) for entry in manifest.files}

    def _write(
        self,
        caller: Caller,
        name: RepositoryName,
        branch: Branch,
        parent: Commit | None,
        files: Files,
        *,
        title: str,
        message: str,
    ) -> Commit | None:
        """Write the commit; None if the draft has moved since its parent was read."""
        listed = draft_files(files)
        size = sum(file.size for file in listed)
        new = rows.NewCommit(
            listing=encode_listing(listed), files=len(listed), size=size, parent=parent, title=title, message=message
        )
        now = self._clock()
        with self._catalogue.writing() as session:
            row = self.find(session, caller, name, lock=True)
            if rows.start_of(session, row, branch).commit != parent:
                return None
            link_blobs(session, row, (file.sha256 for file in listed), now)
            commit = rows.add_commit(session, caller, row, new, now)
            rows.set_head(session, row, branch, commit, now, kind=Pointer.BRANCH)
            _record(session, caller, now, audit.Action.DRAFT_COMMITTED, name, branch, commit, files=len(listed))
        return commit

    def _name(self, caller: Caller, name: RepositoryName, branch: Branch, start: Commit, kind: Pointer) -> None:
        self._require_writer(caller, name)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = self.find(session, caller, name, lock=True)
            if session.get(DraftRow, (row.id, str(branch))) is not None or rows.is_signed_tag(session, row, branch):
                raise AlreadyExists(f"{branch} is there already in {name}", hint="choose another name")
            commit = rows.start_at(session, row, start).commit
            assert commit is not None
            rows.set_head(session, row, branch, commit, now, kind=kind)
            _record(session, caller, now, audit.Action.DRAFT_SET, name, branch, commit, kind=kind.value)

    def _drop(
        self, caller: Caller, name: RepositoryName, branch: Branch, *, head: Commit | None, kind: Pointer | None
    ) -> None:
        _require_publisher(caller, name)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = self.find(session, caller, name, lock=True)
            draft = session.get(DraftRow, (row.id, str(branch)))
            if draft is None and kind is not None and rows.is_signed_tag(session, row, branch):
                raise AccessDenied(f"{branch} of {name} is signed", hint=f"pqreg rm {name}:{branch} withdraws it")
            draft = rows.find_draft(session, row, branch)
            if kind is not None and draft.kind != kind.value:
                raise Conflict(f"{branch} of {name} is a {draft.kind}", expected=f"a {kind.value}")
            if head is not None and draft.head != str(head):
                raise Conflict(
                    f"the draft {branch} of {name} has moved", expected=head, found=draft.head,
                    hint="look at it again: pqreg draft show",
                )  # fmt: skip
            gone = Commit(draft.head)
            session.delete(draft)
            session.flush()
            rows.forget_unreachable(session, row)
            _record(session, caller, now, audit.Action.DRAFT_DROPPED, name, branch, gone)


def _require_publisher(caller: Caller, name: RepositoryName) -> None:
    if not caller.may(Permission.PUBLISH, name.namespace.key):
        raise denied(Permission.PUBLISH, f"namespace {name.namespace}")


def _require_parent(name: RepositoryName, branch: Branch, head: Commit | None, parent: Commit | None) -> None:
    if parent is not None and parent != head:
        raise DraftMoved(
            f"the draft {branch} of {name} is not at the commit this one was made for",
            expected=parent, found=head or "nothing", hint="read the draft again and repeat the commit",
        )  # fmt: skip


def _record(
    session: Session,
    caller: Caller,
    now: datetime,
    action: audit.Action,
    name: RepositoryName,
    branch: Branch,
    commit: Commit,
    **detail: str | int,
) -> None:
    audit.record(session, caller, now, action, f"{name}@{branch}", head=str(commit), **detail)
