# SPDX-License-Identifier: Apache-2.0
"""Uploads: bytes in parts, verified on arrival, resumable by client and service alike, visible only when complete.

The life of an upload:

1. ``open`` makes the sparse file and the row, or finds the caller's unfinished upload of the same digest.
2. ``begin_part`` and ``PartWriter``: each slice is compared with the BLAKE3 digest its sender declared *before* it is
   written; then fdatasync, then the row. Only then is the part acknowledged. A part with a row never changes again.
   A second sender of the same unfinished part takes it over; the first one is refused at its next slice.
3. ``complete`` (in ``completion``): every part has a row, and the SHA-256 of the whole is the digest that was
   announced, or everything is dropped.

A crash in 2 costs the parts without a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict, FormatError, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.completion import Completion
from pq_registry.service.frontier import Frontiers
from pq_registry.service.names import obtain_repository
from pq_registry.service.parts import Claims, PartPlan, PartWriter, drop_upload, find_upload
from pq_registry.service.visible import check_slice_size
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import UploadPartRow, UploadRow
from pq_registry.storage.incoming import Incoming, new_upload_id
from pq_registry.storage.local import LocalBlobStore


@dataclass(frozen=True, slots=True)
class UploadState:
    """What a client needs to go on: the parts the service has, and how large parts are."""

    id: str
    part_size: int
    parts: tuple[int, ...]


def part_size_for(size: int, slice_size: int) -> int:
    """The smallest multiple of eight slices that cuts ``size`` into at most ``limits.PARTS`` parts."""
    unit = slice_size * (limits.PART_BYTES // limits.SHARD_BYTES)
    return unit * max(1, -(-size // (unit * limits.PARTS)))


class Uploads:
    """The use cases around uploads."""

    def __init__(self, catalogue: Catalogue, blobs: LocalBlobStore, incoming: Incoming, clock: Clock) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._incoming = incoming
        self._clock = clock
        self._claims = Claims()
        self._frontiers = Frontiers(incoming)
        self._completion = Completion(catalogue, blobs, incoming, self._frontiers, self._claims, clock)

    def open(
        self, caller: Caller, repository: RepositoryName, *, digest: Digest, size: int, slice_size: int
    ) -> tuple[UploadState, bool]:
        """Start an upload, or find the caller's unfinished one; answers whether it is new.

        Raises:
            FormatError: if size or slice size are out of bounds, or differ from those of the unfinished upload.
            Conflict: if the repository has too many unfinished uploads, or its name exists in another spelling.
            StorageError: if the file cannot be made.
        """
        if not 0 <= size <= limits.FILE_BYTES:
            raise FormatError("the size is out of bounds", expected=f"0 to {limits.FILE_BYTES}", found=size)
        check_slice_size(slice_size)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_repository(session, repository, now)
            wanted = (UploadRow.repository_id == row.id, UploadRow.digest == digest.hex)
            upload = session.scalars(select(UploadRow).where(*wanted, UploadRow.token_id == caller.token_id)).first()
            if upload is not None:
                if (upload.size, upload.slice_size) != (size, slice_size):
                    raise FormatError(
                        "an unfinished upload of this digest has another size",
                        expected=f"{upload.size} bytes in slices of {upload.slice_size}",
                        found=f"{size} bytes in slices of {slice_size}",
                        hint="abort it first",
                    )
                upload.touched = now
                return self._state(session, upload), False
            unfinished = session.scalars(select(func.count()).where(UploadRow.repository_id == row.id)).one()
            if unfinished >= limits.OPEN_UPLOADS:
                raise Conflict("the repository has too many unfinished uploads", expected=f"{limits.OPEN_UPLOADS}")
            upload = UploadRow(
                id=new_upload_id(),
                repository_id=row.id,
                token_id=caller.token_id,
                digest=digest.hex,
                size=size,
                slice_size=slice_size,
                part_size=part_size_for(size, slice_size),
                created=now,
                touched=now,
            )
            session.add(upload)
            audit.record(
                session, caller, now, audit.Action.UPLOAD_OPENED, repository, digest=str(digest), size=size
            )  # fmt: skip
            # Before the commit: a row without a file is worse than a file without a row, which is swept.
            self._incoming.create(upload.id, size)
            return UploadState(upload.id, upload.part_size, ()), True

    def show(self, caller: Caller, repository: RepositoryName, upload_id: str) -> UploadState:
        """The state of an unfinished upload of the caller's.

        Raises:
            NotFound: if there is none.
        """
        with self._catalogue.reading() as session:
            return self._state(session, find_upload(session, caller, repository, upload_id))

    def begin_part(
        self, caller: Caller, repository: RepositoryName, upload_id: str, *, number: int, length: int, shards: bytes
    ) -> PartWriter | None:
        """Prepare for the bytes of one part. None if exactly this part is already there.

        Raises:
            NotFound: if there is no such upload.
            FormatError: if number, length or the declared digests do not fit the upload.
            Conflict: if the part is there with other digests.
        """
        with self._catalogue.reading() as session:
            upload = find_upload(session, caller, repository, upload_id)
            session.expunge(upload)
        plan = PartPlan.of(upload, number, length=length, shards=shards)
        claim = self._claims.take(upload_id, number)
        try:
            with self._catalogue.reading() as session:
                present = session.get(UploadPartRow, (upload_id, number))
            if present is None:
                return PartWriter(plan, claim, self._incoming.open(upload_id), lambda: self._record(upload, plan))
            if present.shards != shards:
                raise Conflict(f"part {number} is already there with other bytes", hint="abort the upload first")
        except BaseException:
            claim.release()
            raise
        claim.release()
        return None

    def complete(self, caller: Caller, repository: RepositoryName, upload_id: str) -> Digest:
        """Verify the whole and make the blob known; see ``Completion.complete``."""
        return self._completion.complete(caller, repository, upload_id)

    def abort(self, caller: Caller, repository: RepositoryName, upload_id: str) -> None:
        """Give an upload up.

        Raises:
            NotFound: if there is no such upload.
        """
        now = self._clock()
        with self._catalogue.writing() as session:
            upload = find_upload(session, caller, repository, upload_id)
            drop_upload(session, upload)
            audit.record(
                session, caller, now, audit.Action.UPLOAD_ABORTED, repository, digest=f"sha256:{upload.digest}"
            )
        self._discard(upload_id)

    def sweep(self, caller: Caller, *, starting: bool) -> int:
        """Drop uploads nobody touched for long; at the start of the service also whatever a crash left behind.

        Answers how many uploads and files were dropped.
        """
        now = self._clock()
        idle_since = now - timedelta(seconds=limits.UPLOAD_IDLE_SECONDS)
        dropped: list[str] = []
        with self._catalogue.writing() as session:
            for upload in session.scalars(select(UploadRow)).all():
                if upload.touched <= idle_since or (starting and self._is_lost(upload)):
                    drop_upload(session, upload)
                    digest = f"sha256:{upload.digest}"
                    audit.record(session, caller, now, audit.Action.UPLOAD_EXPIRED, upload.id, digest=digest)
                    dropped.append(upload.id)
            known = set(session.scalars(select(UploadRow.id)).all()) - set(dropped)
        for upload_id in dropped:
            self._discard(upload_id)
        if not starting:
            return len(dropped)
        return len(dropped) + self._incoming.sweep(known)

    def close(self) -> None:
        """Stop hashing in the background."""
        self._frontiers.close()

    # ----------------------------------------------------------------------------------------------------------------

    def _state(self, session: Session, upload: UploadRow) -> UploadState:
        query = select(UploadPartRow.number).where(UploadPartRow.upload_id == upload.id).order_by(UploadPartRow.number)
        return UploadState(upload.id, upload.part_size, tuple(session.scalars(query).all()))

    def _record(self, upload: UploadRow, plan: PartPlan) -> None:
        with self._catalogue.writing() as session:
            row = session.get(UploadRow, upload.id)
            if row is None:
                raise NotFound(f"no upload {upload.id}", hint="it was aborted meanwhile")
            row.touched = self._clock()
            session.add(UploadPartRow(upload_id=upload.id, number=plan.number, shards=plan.shards))
        self._frontiers.report(upload.id, plan.number, size=upload.size, part_size=upload.part_size)

    def _is_lost(self, upload: UploadRow) -> bool:
        blob = StoredBlob(Digest(upload.digest))
        return not self._incoming.exists(upload.id) and self._blobs.size(blob) != upload.size

    def _discard(self, upload_id: str) -> None:
        self._frontiers.forget(upload_id)
        self._claims.drop(upload_id)
        self._incoming.discard(upload_id)
