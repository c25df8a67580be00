# SPDX-License-Identifier: Apache-2.0
"""Collecting what nothing refers to: ``pqreg gc``. It runs beside the service, and beside itself.

Nothing that a release or a draft refers to is ever removed, and nothing that may be about to be referred to:

1. What releases refer to is read from their manifests, and drafts from the listings of all their commits. One that
   cannot be read ends the collection.
2. Uploads nobody touched for the grace time are dropped, but not one that is being verified.
3. A repository's reference to a blob goes if no release or draft of the repository has the blob, the reference and the
   last promise to a publisher (``Resolving.missing``) are older than the grace time, and so is whatever the repository
   is uploading. Then a blob goes to which no reference is left, by the same rule and if no upload of it is under way.
   These conditions are looked at in the transaction that removes the rows, and so is whether anything was committed
   since step 1: then that is read first. Transactions that write follow one another, and rows refer to rows: whoever
   commits a release or a draft later finds the blob missing, before anything of it is recorded.
4. Files go last. In a directory, where a new upload of the same digest takes the same place, a file is removed inside a
   writing transaction that sees neither blob nor upload of its digest; the upload's row precedes the file, and the
   blob's row takes its place (``service.completion``). In an object store every upload has an object of its own, so one
   whose upload and blob are gone stays unknown.

A crash between 3 and 4 leaves files nobody knows; the next collection removes them once they are old enough.
A catalogue that is not the store's own, or from an older backup, must not decide what is garbage: it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum, unique

from sqlalchemy import ColumnElement, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, LogHalted, NotFound, StorageError, UsageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.service import audit
from pq_registry.service.parts import drop_upload
from pq_registry.service.references import References
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import BlobStore, DirectUploads, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    BlobRow,
    BlobSlicingRow,
    LogStateRow,
    ReleaseRow,
    RepositoryBlobRow,
    RepositoryRow,
    UploadRow,
)
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.orphans import batches, unknown_blobs, unknown_uploads
from pq_registry.storage.tiles import LogFiles

_TRIES = 100
"""How often a batch is looked at again because a release was committed meanwhile."""


@unique
class Kind(StrEnum):
    """What can be collected."""

    UPLOAD = "upload"
    REFERENCE = "reference"
    BLOB = "blob"
    OBJECT = "object"
    PARTS = "parts"


@dataclass(frozen=True, slots=True)
class Collected:
    """Something that was removed, or would be; ``size`` is what its removal frees, as far as that is known.

    The file of a blob is reported with the blob.
    """

    kind: Kind
    subject: str
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What is collected from. ``incoming`` is the directory of arriving bytes, where there is one."""

    catalogue: Catalogue
    blobs: BlobStore
    tiles: LogFiles
    incoming: Incoming | None


class Collection:
    """One run."""

    def __init__(self, stock: Stock, *, now: datetime, grace: timedelta, dry: bool) -> None:
        """Prepare.

        Args:
            stock: what is collected from.
            now: when.
            grace: how old what goes has to be.
            dry: whether to say only what would be removed.

        Raises:
            UsageError: if the grace is shorter than a push needs.
        """
        if grace < timedelta(seconds=limits.GC_LEAST_GRACE_SECONDS):
            raise UsageError(
                "the grace time is too short", expected=f"at least {limits.GC_LEAST_GRACE_SECONDS} seconds",
                found=f"{int(grace.total_seconds())} seconds", hint="a push that is under way would lose its files",
            )  # fmt: skip
        self._stock = stock
        self._catalogue, self._blobs = stock.catalogue, stock.blobs
        self._now, self._before, self._dry = now, now - grace, dry
        self._used = References(stock.catalogue, stock.blobs)
        self._gone: set[str] = set()
        self.strays: list[str] = []
        """What stands among the blobs and is none, once ``run`` has ended. It is left alone."""

    def run(self) -> Iterator[Collected]:
        """Collect; yields what went, when it is gone.

        Raises:
            StorageError: if catalogue or store fail, or what they hold is not of one registry.
            PqregError: if a manifest cannot be read.
        """
        _require_own_catalogue(self._stock)
        self._used.read()
        yield from self._uploads()
        references = self._unused_references()
        blobs = self._unused_blobs(references)
        if self._dry:
            yield from (_reference(*reference[1:]) for reference in references)
            yield from (Collected(Kind.BLOB, f"sha256:{blob.digest}", blob.size) for blob in blobs)
        else:
            for start in range(0, len(references), limits.GC_BATCH):
                yield from self._drop_references(references[start : start + limits.GC_BATCH])
            for start in range(0, len(blobs), limits.GC_BATCH):
                yield from self._drop_blobs([blob.digest for blob in blobs[start : start + limits.GC_BATCH]])
        yield from self._objects()

    # -- 2 -----------------------------------------------------------------------------------------------------------

    def _uploads(self) -> Iterator[Collected]:
        idle = select(UploadRow).where(UploadRow.touched <= self._before, _unclaimed(self._now))
        if self._dry:
            with self._catalogue.reading() as session:
                yield from (_upload(row) for row in session.scalars(idle).all())
            return
        with self._catalogue.writing() as session:
            rows = session.scalars(idle).all()
            for row in rows:
                drop_upload(session, row)
                digest = f"sha256:{row.digest}"
                audit.record(session, host_caller(), self._now, audit.Action.UPLOAD_EXPIRED, row.id, digest=digest)
            session.expunge_all()
        for row in rows:
            if row.storage_id and isinstance(self._blobs, DirectUploads):
                self._blobs.abandon(StoredBlob(Digest(row.digest), row.id), row.storage_id)
            elif self._stock.incoming is not None:
                self._stock.incoming.discard(row.id)
            yield _upload(row)

    # -- 3 -----------------------------------------------------------------------------------------------------------

    def _unused_references(self) -> list[tuple[int, str, str]]:
        query = (
            select(RepositoryBlobRow.repository_id, RepositoryBlobRow.digest, RepositoryRow.name)
            .join(RepositoryRow, RepositoryRow.id == RepositoryBlobRow.repository_id)
            .where(*self._old_reference())
            .execution_options(yield_per=1000)
        )
        with self._catalogue.reading() as session:
            return [
                (repository, digest, name)
                for repository, digest, name in session.execute(query)
                if not self._used.by_repository(repository, digest)
            ]

    def _unused_blobs(self, references: Sequence[tuple[int, str, str]]) -> Sequence[_Unused]:
        going: dict[str, int] = {}
        for _, digest, _ in references:
            going[digest] = going.get(digest, 0) + 1
        links = func.count(RepositoryBlobRow.repository_id)
        query = (
            select(BlobRow.digest, BlobRow.size, links)
            .outerjoin(RepositoryBlobRow, RepositoryBlobRow.digest == BlobRow.digest)
            .where(*self._old_blob())
            .group_by(BlobRow.digest, BlobRow.size)
            .execution_options(yield_per=1000)
        )
        with self._catalogue.reading() as session:
            return [
                _Unused(digest, size)
                for digest, size, count in session.execute(query)
                if count == going.get(digest, 0) and not self._used.anywhere(digest)
            ]

    def _drop_references(self, batch: Sequence[tuple[int, str, str]]) -> list[Collected]:
        for _ in range(_TRIES):
            batch = [one for one in batch if not self._used.by_repository(one[0], one[1])]
            with self._catalogue.writing() as session:
                if self._used.are_complete(session):
                    return self._drop_references_now(session, batch)
            self._used.read()
        return []  # releases come faster than they can be read; the next collection has another chance

    def _drop_references_now(self, session: Session, batch: Sequence[tuple[int, str, str]]) -> list[Collected]:
        gone = []
        for repository, digest, name in batch:
            row = (RepositoryBlobRow.repository_id == repository, RepositoryBlobRow.digest == digest)
            found = session.scalars(select(RepositoryBlobRow.digest).where(*row, *self._old_reference())).first()
            if found is not None:
                session.execute(delete(RepositoryBlobRow).where(*row))
                self._record(session, audit.Action.REFERENCE_COLLECTED, name, digest=f"sha256:{digest}")
                gone.append(_reference(digest, name))
        return gone

    def _drop_blobs(self, digests: Sequence[str]) -> list[Collected]:
        for _ in range(_TRIES):
            wanted = [digest for digest in digests if not self._used.anywhere(digest)]
            with self._catalogue.writing() as session:
                if self._used.are_complete(session):
                    return self._drop_blobs_now(session, wanted)
            self._used.read()
        return []

    def _drop_blobs_now(self, session: Session, digests: Sequence[str]) -> list[Collected]:
        linked = exists().where(RepositoryBlobRow.digest == BlobRow.digest)
        query = select(BlobRow.digest, BlobRow.size).where(BlobRow.digest.in_(digests), ~linked, *self._old_blob())
        rows = session.execute(query).all()
        going = [digest for digest, _ in rows]
        session.execute(delete(BlobSlicingRow).where(BlobSlicingRow.digest.in_(going)))
        session.execute(delete(BlobRow).where(BlobRow.digest.in_(going)))
        self._gone.update(going)
        for digest, size in rows:
            self._record(session, audit.Action.BLOB_COLLECTED, f"sha256:{digest}", size=size)
        return [Collected(Kind.BLOB, f"sha256:{digest}", size) for digest, size in rows]

    def _old_reference(self) -> tuple[ColumnElement[bool], ...]:
        promised = exists().where(BlobRow.digest == RepositoryBlobRow.digest, BlobRow.promised > self._before)
        pushing = exists().where(
            UploadRow.repository_id == RepositoryBlobRow.repository_id, UploadRow.touched > self._before
        )
        return RepositoryBlobRow.added <= self._before, ~promised, ~pushing

    def _old_blob(self) -> tuple[ColumnElement[bool], ...]:
        return (
            BlobRow.verified_at <= self._before,
            or_(BlobRow.promised.is_(None), BlobRow.promised <= self._before),
            ~exists().where(UploadRow.digest == BlobRow.digest),
            ~exists().where(ReleaseRow.manifest_digest == BlobRow.digest),
        )

    # -- 4 -----------------------------------------------------------------------------------------------------------

    def _objects(self) -> Iterator[Collected]:
        for batch in batches(self._blobs.iterate(stray=self.strays.append)):
            with self._catalogue.reading() as session:
                unknown = unknown_blobs(session, batch)
            for blob in unknown:
                stored, size = self._blobs.stored_at(blob), self._blobs.size(blob) or 0
                old = stored is not None and stored <= self._before
                if old and (self._dry or self._remove(blob)) and blob.digest.hex not in self._gone:
                    yield Collected(Kind.OBJECT, _object(blob), size)
        yield from self._parts()
        yield from self._arriving()

    def _remove(self, blob: StoredBlob) -> bool:
        if blob.copy:
            self._blobs.remove(blob)
            return True
        with self._catalogue.writing() as session:
            if not unknown_blobs(session, [blob]):
                return False
            self._blobs.remove(blob)
        return True

    def _parts(self) -> Iterator[Collected]:
        if not isinstance(self._blobs, DirectUploads):
            return
        old = [upload for upload in self._blobs.unfinished() if upload.started <= self._before]
        with self._catalogue.reading() as session:
            unknown = unknown_uploads(session, old)
        for upload in unknown:
            if not self._dry:
                # Only the parts: the store may have begun an upload twice, and made a blob of the other one's.
                self._blobs.drop_parts(upload.blob, upload.storage_id)
            yield Collected(Kind.PARTS, _object(upload.blob))

    def _arriving(self) -> Iterator[Collected]:
        incoming = self._stock.incoming
        for upload_id, touched, size in [] if incoming is None else list(incoming.files()):
            if touched > self._before:
                continue
            with self._catalogue.writing() as session:
                if session.get(UploadRow, upload_id) is not None:
                    continue
                if not self._dry and incoming is not None:
                    incoming.discard(upload_id)
            yield Collected(Kind.PARTS, upload_id, size)

    def _record(self, session: Session, action: audit.Action, subject: object, **detail: str | int | None) -> None:
        audit.record(session, host_caller(), self._now, action, subject, **detail)


@dataclass(frozen=True, slots=True)
class _Unused:
    digest: str
    size: int


def _unclaimed(now: datetime) -> ColumnElement[bool]:
    return or_(UploadRow.verifier_until.is_(None), UploadRow.verifier_until <= now)


def _upload(row: UploadRow) -> Collected:
    return Collected(Kind.UPLOAD, f"{row.id} of sha256:{row.digest}")


def _reference(digest: str, name: str) -> Collected:
    return Collected(Kind.REFERENCE, f"{name} to sha256:{digest}")


def _object(blob: StoredBlob) -> str:
    return f"{blob} copy {blob.copy}" if blob.copy else str(blob)


def _require_own_catalogue(stock: Stock) -> None:
    """Refuse a catalogue that does not know what the store's log shows: it would take everything newer for garbage."""
    try:
        shown, _ = parse_checkpoint_note(stock.tiles.read(CHECKPOINT_PATH))
    except NotFound:
        shown = None
    except FormatError as error:
        raise StorageError(
            "the checkpoint in the tile store is damaged", found=error, hint="run pqreg fsck --repair"
        ) from error
    with stock.catalogue.reading() as session:
        note = session.scalar(select(LogStateRow.note))
    newest = None if note is None else parse_checkpoint_note(note)[0]
    if shown is not None and (newest is None or newest.origin != shown.origin or newest.size < shown.size):
        raise LogHalted(
            "the catalogue is not the newest of this store: what it does not know may be needed",
            expected=f"the log {shown.origin} with at least {shown.size} leaves",
            found="no log" if newest is None else f"{newest.origin} with {newest.size}",
            hint="check --database and --storage; after a restore, finish it first (docs/operations/backup.md)",
        )
