# SPDX-License-Identifier: Apache-2.0
"""Reading: repositories, releases, tags, statements and blobs, as far as the caller may read them.

What a repository's grants and a namespace's keys are is answered by ``grants`` and ``keys``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.visible import (
    check_slice_size,
    find_blob,
    find_visible,
    missing_blobs,
    promise_blobs,
    readable_namespace,
    unpromised_blobs,
)
from pq_registry.storage.blobs import BlobReader, BlobStore, SignedRequest
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import NamespaceRow, ReleaseRow, RepositoryRow, StatementRow, TagRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryItem:
    """A repository in a listing; ``tags`` counts those that are not withdrawn."""

    name: str
    releases: int
    tags: int
    updated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseItem:
    """A release in a listing."""

    digest: Digest
    manifest: Digest
    content: Digest
    signer: str
    size: int
    files: int
    created: datetime
    sealed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TagItem:
    """A tag in a listing; ``target`` is None when it is withdrawn."""

    tag: str
    target: Digest | None
    sequence: int
    signer: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """A repository with all tags and one page of releases, newest first."""

    name: str
    tags: list[TagItem]
    releases: list[ReleaseItem]
    next: str | None


@dataclass(frozen=True, slots=True)
class LocatedBlob:
    """A blob's length, and the request by which it is read from the store."""

    size: int
    request: SignedRequest


class Resolving:
    """The use cases that change nothing a reader sees."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, clock: Clock | None = None) -> None:
        """Without a clock it only reads: what ``missing`` answers is then no promise."""
        self._catalogue = catalogue
        self._blobs = blobs
        self._clock = clock

    def repositories(
        self, caller: Caller, *, namespace: Namespace | None, after: RepositoryName | None, limit: int,
        conditions: Iterable[ColumnElement[bool]] = (),
    ) -> tuple[list[RepositoryItem], str | None]:  # fmt: skip
        """One page of what the caller may read, by name, and the ``after`` of the next page.

        ``conditions`` on ``RepositoryRow`` are further ones, as ``service.cards.matching`` makes.
        """
        releases = (
            select(func.count()).where(ReleaseRow.repository_id == RepositoryRow.id).correlate(RepositoryRow)
        ).scalar_subquery()
        tags = (
            select(func.count())
            .where(TagRow.repository_id == RepositoryRow.id, TagRow.target.is_not(None))
            .correlate(RepositoryRow)
        ).scalar_subquery()
        query = (
            select(RepositoryRow.name, RepositoryRow.updated, releases, tags)
            .join(NamespaceRow, NamespaceRow.id == RepositoryRow.namespace_id)
            .where(readable_namespace(caller), releases > 0, *conditions)
            .order_by(RepositoryRow.key)
            .limit(limit + 1)
        )
        if namespace is not None:
            query = query.where(NamespaceRow.key == namespace.key)
        if after is not None:
            query = query.where(RepositoryRow.key > after.key)
        with self._catalogue.reading() as session:
            items = [
                RepositoryItem(name=name, updated=updated, releases=release_count, tags=tag_count)
                for name, updated, release_count, tag_count in session.execute(query)
            ]
        return items[:limit], items[limit - 1].name if len(items) > limit else None

    def repository(self, name: RepositoryName, *, after: Digest | None, limit: int) -> RepositoryView:
        """A repository with its tags and one page of releases.

        Raises:
            NotFound: if there is no such repository, or ``after`` is not a release of it.
        """
        with self._catalogue.reading() as session:
            row = find_visible(session, name)
            query = _releases(row).limit(limit + 1)
            if after is not None:
                query = query.where(ReleaseRow.id < _release_row(session, row, after).id)
            releases = [_release_item(release) for release in session.scalars(query)]
            tags = session.scalars(select(TagRow).where(TagRow.repository_id == row.id).order_by(TagRow.tag))
            following = str(releases[limit - 1].digest) if len(releases) > limit else None
            return RepositoryView(row.name, [tag_item(tag) for tag in tags], releases[:limit], following)

    def releases_with_content(self, name: RepositoryName, content: Digest, *, limit: int) -> list[ReleaseItem]:
        """Releases with exactly these files, newest first; none if there is no such repository."""
        with self._catalogue.reading() as session:
            row = session.scalars(select(RepositoryRow).where(RepositoryRow.key == name.key)).one_or_none()
            if row is None or row.name != str(name):
                return []
            query = _releases(row).where(ReleaseRow.content_digest == content.hex).limit(limit)
            return [_release_item(release) for release in session.scalars(query)]

    def release(self, name: RepositoryName, digest: Digest) -> ReleaseItem:
        """One release.

        Raises:
            NotFound: if the repository has no such release.
        """
        with self._catalogue.reading() as session:
            return _release_item(_release_row(session, find_visible(session, name), digest))

    def tag_envelope(self, name: RepositoryName, tag: Tag) -> tuple[Digest, bytes]:
        """The tag's present statement: payload digest and exact envelope.

        Raises:
            NotFound: if the repository has no such tag.
        """
        with self._catalogue.reading() as session:
            row = session.get(TagRow, (find_visible(session, name).id, str(tag)))
            statement = None if row is None else session.get(StatementRow, row.statement)
            if statement is None:
                raise NotFound(f"no tag {tag} in {name}")
            return Digest(statement.digest), statement.envelope

    def statement_envelope(self, caller: Caller, digest: Digest) -> bytes:
        """The exact envelope of a statement by the digest of its payload.

        Raises:
            NotFound: if there is no such statement in a namespace the caller may read.
        """
        query = (
            select(StatementRow.envelope)
            .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
            .where(StatementRow.digest == digest.hex, readable_namespace(caller))
        )
        with self._catalogue.reading() as session:
            envelope = session.scalars(query).one_or_none()
        if envelope is None:
            raise NotFound(f"no statement {digest}")
        return envelope

    def missing(self, caller: Caller, digests: list[Digest], *, slice_size: int = limits.SHARD_BYTES) -> list[Digest]:
        """Those the caller would have to upload in slices of ``slice_size``, in the order asked.

        The others are kept from being collected until the release that is about to refer to them is committed.

        Raises:
            FormatError: if no release has such slices.
        """
        check_slice_size(slice_size)
        now = None if self._clock is None else self._clock()
        with self._catalogue.reading() as session:
            absent = missing_blobs(session, caller, digests, slice_size=slice_size)
            unpromised = [] if now is None else unpromised_blobs(session, set(digests) - absent, now)
        if unpromised and now is not None:
            with self._catalogue.writing() as session:
                promise_blobs(session, unpromised, now)
                # Again: what was collected before this transaction is missing, and after it nothing is collected.
                absent = missing_blobs(session, caller, digests, slice_size=slice_size)
        return [digest for digest in dict.fromkeys(digests) if digest in absent]

    def open_blob(self, caller: Caller, digest: Digest) -> BlobReader:
        """Open a blob for reading.

        Raises:
            NotFound: if there is no such blob for this caller.
            BlobDamaged: if its bytes were found to be lost.
            StorageError: if the store fails or holds a blob of another length.
        """
        with self._catalogue.reading() as session:
            blob, size = find_blob(session, caller, digest)
        return self._blobs.open(blob, size=size)

    def obtain_blob(self, caller: Caller, digest: Digest) -> BlobReader | LocatedBlob:
        """A blob opened for reading, or where the caller may read it from the store itself.

        Raises:
            NotFound: if there is no such blob for this caller.
            BlobDamaged: if its bytes were found to be lost.
            StorageError: if the store fails or holds a blob of another length.
        """
        with self._catalogue.reading() as session:
            blob, size = find_blob(session, caller, digest)
        request = None if self._clock is None else self._blobs.locate(blob, self._clock())
        return self._blobs.open(blob, size=size) if request is None else LocatedBlob(size, request)


def _releases(row: RepositoryRow) -> Select[ReleaseRow]:
    return select(ReleaseRow).where(ReleaseRow.repository_id == row.id).order_by(ReleaseRow.id.desc())


def _release_row(session: Session, row: RepositoryRow, digest: Digest) -> ReleaseRow:
    release = session.scalars(_releases(row).where(ReleaseRow.digest == digest.hex)).one_or_none()
    if release is None:
        raise NotFound(f"no release {digest} in {row.name}")
    return release


def _release_item(row: ReleaseRow) -> ReleaseItem:
    return ReleaseItem(
        digest=Digest(row.digest),
        manifest=Digest(row.manifest_digest),
        content=Digest(row.content_digest),
        signer=row.signer,
        size=row.size,
        files=row.files,
        created=row.created,
        sealed=row.sealed,
    )


def tag_item(row: TagRow) -> TagItem:
    """A tag's row as an item of a listing."""
    return TagItem(
        tag=row.tag,
        target=None if row.target is None else Digest(row.target),
        sequence=row.sequence,
        signer=row.signer,
        issued=row.issued,
        expires=row.expires,
    )
