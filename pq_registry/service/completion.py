# SPDX-License-Identifier: Apache-2.0
"""Completing uploads: step 3 of their life (see ``uploads``).

Order, and what a failure at each point leaves behind:

a. SHA-256 of the whole differs from the announced digest: the upload is dropped, rows first.
b. The file is linked to its final name, durably. A crash before this leaves the upload as it was.
c. One transaction makes the blob known, refers to it from the repository and forgets the upload. A crash or failure
   before this leaves a verified blob nobody refers to, and an upload without a file: completing again hashes the blob
   and arrives here.
"""

from __future__ import annotations

import threading
from datetime import datetime
from zlib import crc32

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.errors import Conflict, FileDigestMismatch, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.frontier import Frontiers
from pq_registry.service.names import find_repository
from pq_registry.service.parts import Claims, drop_upload, find_upload
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, BlobSlicingRow, RepositoryBlobRow, UploadPartRow, UploadRow
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.local import LocalBlobStore

_STRIPES = 64


class Completion:
    """Turns a finished upload into a blob."""

    def __init__(
        self,
        catalogue: Catalogue,
        blobs: LocalBlobStore,
        incoming: Incoming,
        frontiers: Frontiers,
        claims: Claims,
        clock: Clock,
    ) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._incoming = incoming
        self._frontiers = frontiers
        self._claims = claims
        self._clock = clock
        # One completion per upload at a time. Which uploads share a lock does not matter, so there are always as many.
        self._locks = tuple(threading.Lock() for _ in range(_STRIPES))

    def complete(self, caller: Caller, repository: RepositoryName, upload_id: str) -> Digest:
        """Verify the whole and make the blob known. Doing so twice answers the same twice.

        Raises:
            NotFound: if there is no such upload.
            Conflict: if parts are missing.
            FileDigestMismatch: if the bytes are another file's; the upload is dropped then.
            StorageError: if the store or the catalogue fails; the upload is left as it is.
        """
        with self._locks[crc32(upload_id.encode()) % _STRIPES]:
            with self._catalogue.reading() as session:
                done = self._completed(session, repository, upload_id)
                if done is not None:
                    return done
                upload = find_upload(session, caller, repository, upload_id)
                parts = session.scalars(
                    select(UploadPartRow).where(UploadPartRow.upload_id == upload_id).order_by(UploadPartRow.number)
                ).all()
                session.expunge_all()
            count = -(-upload.size // upload.part_size)
            if len(parts) != count:
                present = {part.number for part in parts}
                absent = [number for number in range(count) if number not in present]
                raise Conflict(
                    "parts of the upload are missing",
                    expected=f"{count} parts",
                    found=f"{len(absent)} missing, the first is {absent[0]}",
                )
            self._store(caller, repository, upload, {part.number for part in parts})
            self._commit(caller, repository, upload, b"".join(part.shards for part in parts))
        self._claims.drop(upload_id)
        return Digest(upload.digest)

    # ------------------------------------------------------------------------------------------------------------------

    def _store(self, caller: Caller, repository: RepositoryName, upload: UploadRow, parts: set[int]) -> None:
        wanted = Digest(upload.digest)
        if not self._incoming.exists(upload.id):
            # A crash (or a failed transaction) after the file was linked to its final name.
            found = hash_blob(self._blobs, StoredBlob(wanted))
        else:
            found = self._frontiers.finish(upload.id, parts, size=upload.size, part_size=upload.part_size)
        if found != wanted:
            now = self._clock()
            with self._catalogue.writing() as session:
                drop_upload(session, upload)
                audit.record(session, caller, now, audit.Action.UPLOAD_REFUSED, repository, digest=str(wanted))
            self._claims.drop(upload.id)
            self._incoming.discard(upload.id)
            raise FileDigestMismatch(
                "the uploaded bytes are another file's", expected=wanted, found=found, hint="upload it again"
            )
        if self._incoming.exists(upload.id):
            self._blobs.adopt(self._incoming.path(upload.id), wanted)

    def _commit(self, caller: Caller, repository: RepositoryName, upload: UploadRow, shards: bytes) -> None:
        now = self._clock()
        with self._catalogue.writing() as session:
            owner = find_repository(session, repository, lock=True)
            if session.get(UploadRow, upload.id) is None:
                raise NotFound(f"no upload {upload.id}", hint="it was aborted meanwhile")
            _record_blob(session, upload, shards, now)
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

    def _completed(self, session: Session, repository: RepositoryName, upload_id: str) -> Digest | None:
        link = session.scalars(select(RepositoryBlobRow).where(RepositoryBlobRow.upload_id == upload_id)).first()
        if link is None or find_repository(session, repository).id != link.repository_id:
            return None
        return Digest(link.digest)


def _record_blob(session: Session, upload: UploadRow, shards: bytes, now: datetime) -> None:
    known = session.get(BlobRow, upload.digest)
    if known is None:
        session.add(
            BlobRow(
                digest=upload.digest,
                size=upload.size,
                slice_size=upload.slice_size,
                shards=shards,
                verified_at=now,
            )
        )
    elif known.slice_size != upload.slice_size:
        session.merge(BlobSlicingRow(digest=upload.digest, slice_size=upload.slice_size, shards=shards))
    session.flush()
