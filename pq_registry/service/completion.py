# SPDX-License-Identifier: Apache-2.0
"""Completing uploads: step 3 of their life (see ``uploads``).

Order, and what a failure at each point leaves behind:

a. The whole is read and hashed. If its SHA-256 is not the announced digest, the row says so and the bytes are
   removed; whoever asks next is told, and the row goes.
b. The verified bytes get their final name, durably: a link in a directory; in an object store they have it already.
   A crash before this leaves the upload as it was.
c. One transaction makes the blob known, refers to it from the repository and forgets the upload. A crash or failure
   before this leaves a verified blob nobody refers to, and an upload without a file: completing again hashes the blob
   and arrives here. Between the first byte under a blob's final name and this transaction there is always the row of
   an upload: what may be removed is decided by that. If the blob was known and its bytes were found to be lost
   (``BlobRow.damaged``), these have taken their place.
d. If another upload of the same digest came first, its object stays the blob, and this one's is removed. A crash
   before that leaves an object nobody refers to, which ``pqreg gc`` removes.

Blobs of one part are verified in the request's thread, larger ones as jobs (``verifying``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from zlib import crc32

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict, FileDigestMismatch, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.names import find_repository
from pq_registry.service.parts import Claims, drop_upload, find_upload
from pq_registry.service.transfer import Transfer, Verified, Watch, part_count
from pq_registry.service.verifying import Verifications
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, BlobSlicingRow, RepositoryBlobRow, UploadPartRow, UploadRow

_STRIPES = 64
_OTHER = "other bytes"


@dataclass(frozen=True, slots=True)
class Verifying:
    """An upload that is still being read: how far that is."""

    verified: int
    size: int


class Completion:
    """Turns a finished upload into a blob."""

    def __init__(self, catalogue: Catalogue, transfer: Transfer, claims: Claims, clock: Clock) -> None:
        self._catalogue = catalogue
        self._transfer = transfer
        self._claims = claims
        self._clock = clock
        self._verifications = Verifications(catalogue, clock)
        # One completion per upload at a time. Which uploads share a lock does not matter, so there are always as many.
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))
        self._turns = threading.BoundedSemaphore(limits.HEAVY_TASKS)
        self._seats = threading.BoundedSemaphore(limits.VERIFYING_WAITERS)

    def complete(self, caller: Caller, repository: RepositoryName, upload_id: str) -> Digest | Verifying:
        """Verify the whole and make the blob known. Doing so twice answers the same twice.

        Answers ``Verifying`` if that takes longer than a request may; the next request waits on.

        Raises:
            NotFound: if there is no such upload.
            Conflict: if parts are missing.
            FileDigestMismatch: if the bytes are another file's; the upload is dropped then.
            StorageError: if the store or the catalogue fails; the upload is left as it is.
        """
        may_wait = self._seats.acquire(blocking=False)
        try:
            return self._complete(caller, repository, upload_id, limits.VERIFYING_WAIT_SECONDS if may_wait else 0)
        finally:
            if may_wait:
                self._seats.release()

    def close(self) -> None:
        """Stop verifying."""
        self._verifications.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _complete(
        self, caller: Caller, repository: RepositoryName, upload_id: str, seconds: float
    ) -> Digest | Verifying:
        deadline = time.monotonic() + seconds
        while True:
            with self._catalogue.reading() as session:
                done = self._completed(session, repository, upload_id)
                if done is not None:
                    return done
                upload = find_upload(session, caller, repository, upload_id)
                session.expunge_all()
            if upload.refused:
                self._tell_refusal(upload)
            left = deadline - time.monotonic()
            if upload.size <= limits.PART_BYTES:
                with self._locks[crc32(upload_id.encode()) % _STRIPES], self._turns:
                    self._work(caller, repository, upload_id, _unwatched, is_whole=False)
            elif self._verifications.is_elsewhere(upload):
                if left <= 0:
                    return Verifying(upload.verified, upload.size)
                self._verifications.pause(min(left, limits.VERIFYING_POLL_SECONDS))
            else:
                job = self._verifications.find(upload_id)
                if job is None:
                    self._require_whole(upload, self._rows(upload_id))
                    work = partial(self._work, caller, repository, upload_id)
                    job = self._verifications.obtain(upload_id, work)
                if not job.wait(max(left, 0)):
                    return Verifying(job.verified, upload.size)

    def _work(
        self, caller: Caller, repository: RepositoryName, upload_id: str, watch: Watch, *, is_whole: bool = True
    ) -> None:
        """Everything from the bytes of an upload to the blob or to its refusal.

        ``is_whole`` says that its parts are known to be all there.
        """
        with self._catalogue.reading() as session:
            upload = session.get(UploadRow, upload_id)
            session.expunge_all()
        if upload is None or upload.refused:
            return  # another request was quicker
        rows = self._rows(upload_id)
        if not is_whole:
            self._require_whole(upload, rows)
        verified = self._transfer.verify(upload, rows, watch)
        if verified.digest != Digest(upload.digest):
            self._refuse(caller, repository, upload, verified.digest)
            return
        with self._catalogue.reading() as session:
            known = session.get(BlobRow, upload.digest)
            is_lost = known is not None and known.damaged is not None
        self._transfer.keep(upload, replace=is_lost)
        try:
            is_kept = self._commit(caller, repository, upload, verified)
        except NotFound:
            self._transfer.discard(upload)  # aborted meanwhile: nobody else would
            raise
        self._claims.drop(upload.id)
        if not is_kept:
            self._transfer.discard(upload)

    def _rows(self, upload_id: str) -> Sequence[UploadPartRow]:
        query = select(UploadPartRow).where(UploadPartRow.upload_id == upload_id).order_by(UploadPartRow.number)
        with self._catalogue.reading() as session:
            rows = session.scalars(query).all()
            session.expunge_all()
        return rows

    def _require_whole(self, upload: UploadRow, rows: Sequence[UploadPartRow]) -> None:
        present = self._transfer.present(upload, rows)
        if present is None:
            raise StorageError("the storage lost an upload", hint="open it again")
        count = part_count(upload)
        if len(present) != count:
            absent = [number for number in range(count) if number not in present]
            raise Conflict(
                "parts of the upload are missing",
                expected=f"{count} parts",
                found=f"{len(absent)} missing, the first is {absent[0]}",
            )

    def _refuse(self, caller: Caller, repository: RepositoryName, upload: UploadRow, found: Digest | None) -> None:
        now = self._clock()
        with self._catalogue.writing() as session:
            row = session.get(UploadRow, upload.id)
            if row is None:
                return  # completed by another instance, or aborted: then it is theirs to say what stays
            row.refused = _OTHER if found is None else str(found)
            audit.record(
                session, caller, now, audit.Action.UPLOAD_REFUSED, repository, digest=f"sha256:{upload.digest}"
            )
        self._claims.drop(upload.id)
        self._transfer.discard(upload)

    def _tell_refusal(self, upload: UploadRow) -> None:
        with self._catalogue.writing() as session:
            drop_upload(session, upload)
        raise FileDigestMismatch(
            "the uploaded bytes are another file's",
            expected=f"sha256:{upload.digest}", found=upload.refused, hint="upload it again",
        )  # fmt: skip

    def _commit(self, caller: Caller, repository: RepositoryName, upload: UploadRow, verified: Verified) -> bool:
        now = self._clock()
        copy = self._transfer.copy(upload)
        with self._catalogue.writing() as session:
            owner = find_repository(session, repository, lock=True)
            row = session.get(UploadRow, upload.id)
            if row is None:  # another instance may have been as far, and a little quicker
                is_kept = self._is_kept(session, upload, copy)
                if is_kept or self._completed(session, repository, upload.id) is not None:
                    return is_kept
            if row is None or row.refused:
                raise NotFound(f"no upload {upload.id}", hint="it was aborted meanwhile")
            is_kept = record_blob(session, upload, copy, verified.shards, now)
            link = session.get(RepositoryBlobRow, (owner.id, upload.digest))
            if link is None:
                link = RepositoryBlobRow(repository_id=owner.id, digest=upload.digest, added=now)
                session.add(link)
            link.upload_id = upload.id
            drop_upload(session, upload)
            audit.record(
                session, caller, now, audit.Action.BLOB_STORED, repository,
                digest=f"sha256:{upload.digest}", size=upload.size,
            )  # fmt: skip
        return is_kept

    def _is_kept(self, session: Session, upload: UploadRow, copy: str) -> bool:
        blob = session.get(BlobRow, upload.digest)
        return blob is not None and blob.copy == copy

    def _completed(self, session: Session, repository: RepositoryName, upload_id: str) -> Digest | None:
        link = session.scalars(select(RepositoryBlobRow).where(RepositoryBlobRow.upload_id == upload_id)).first()
        if link is None or find_repository(session, repository).id != link.repository_id:
            return None
        return Digest(link.digest)


def record_blob(session: Session, upload: UploadRow, copy: str, shards: bytes, now: datetime) -> bool:
    """Make the blob known; whether the bytes of this upload are the ones that stay."""
    known = session.get(BlobRow, upload.digest)
    if known is None:
        session.add(
            BlobRow(
                digest=upload.digest,
                size=upload.size,
                slice_size=upload.slice_size,
                shards=shards,
                verified_at=now,
                copy=copy,
            )
        )
    else:
        if known.slice_size != upload.slice_size:
            session.merge(BlobSlicingRow(digest=upload.digest, slice_size=upload.slice_size, shards=shards))
        if known.damaged is not None:
            known.copy, known.size, known.verified_at, known.damaged = copy, upload.size, now, None
    session.flush()
    return known is None or known.copy == copy


def _unwatched(_count: int) -> None:
    """Nobody wants to know how far it is."""
