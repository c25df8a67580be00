# SPDX-License-Identifier: Apache-2.0
"""Uploads: bytes in parts, resumable by client and service alike, visible only when complete.

The life of an upload:

1. ``open`` makes the store ready and the row, or finds the caller's unfinished upload of the same digest. How bytes
   come in is the business of a ``Transfer``: through the service (relay), or straight into an object store (direct).
2. Relayed: ``begin_part`` and ``PartWriter``. Each slice is compared with the BLAKE3 digest its sender declared
   *before* it is written; then it is made durable, then the row. Only then is the part acknowledged. A part with a row
   never changes again. A second sender of the same unfinished part takes it over; the first one is refused at its next
   slice. Direct: ``sign`` answers a request for each part, which the client sends to the store.
3. ``complete`` (in ``completion``): every part is there, and the SHA-256 of the whole, as this service reads it, is the
   digest that was announced, or everything is dropped.

A crash in 2 costs the parts without a row. No state is kept in memory that another instance would miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict, FormatError, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.completion import Completion, Verifying
from pq_registry.service.names import find_repository, obtain_repository
from pq_registry.service.parts import Claims, PartPlan, PartWriter, UndeclaredPart, drop_upload, find_upload
from pq_registry.service.transfer import Transfer, WantedPart, part_count
from pq_registry.service.visible import check_slice_size
from pq_registry.storage.blobs import SignedRequest
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import UploadPartRow, UploadRow
from pq_registry.storage.incoming import new_upload_id

_TOUCH_SECONDS = limits.UPLOAD_IDLE_SECONDS // 100
"""How old the time at which an upload was last touched may be before it is written down again."""


@dataclass(frozen=True, slots=True)
class UploadState:
    """What a client needs to go on: the parts that are there, how large parts are, and where they go."""

    id: str
    part_size: int
    parts: tuple[int, ...]
    is_direct: bool = False

    @property
    def transfer(self) -> str:
        """``direct`` if parts go straight to the storage, else ``relay``."""
        return "direct" if self.is_direct else "relay"


def part_size_for(size: int, slice_size: int) -> int:
    """The smallest multiple of eight slices that cuts ``size`` into at most ``limits.PARTS`` parts."""
    unit = slice_size * (limits.PART_BYTES // limits.SHARD_BYTES)
    return unit * max(1, -(-size // (unit * limits.PARTS)))


class Uploads:
    """The use cases around uploads."""

    def __init__(self, catalogue: Catalogue, transfer: Transfer, clock: Clock) -> None:
        self._catalogue = catalogue
        self._transfer = transfer
        self._clock = clock
        self._claims = Claims()
        self._completion = Completion(catalogue, transfer, self._claims, clock)

    def open(
        self, caller: Caller, repository: RepositoryName, *, digest: Digest, size: int, slice_size: int
    ) -> tuple[UploadState, bool]:
        """Start an upload, or find the caller's unfinished one; answers whether it is new.

        Raises:
            FormatError: if size or slice size are out of bounds, or differ from those of the unfinished upload.
            Conflict: if the repository has too many unfinished uploads, or its name exists in another spelling.
            StorageError: if the store fails.
        """
        if not 0 <= size <= limits.FILE_BYTES:
            raise FormatError("the size is out of bounds", expected=f"0 to {limits.FILE_BYTES}", found=size)
        check_slice_size(slice_size)
        now = self._clock()
        with self._catalogue.reading() as session:
            found = self._unfinished(session, caller, repository, digest)
        if found is None:
            upload = UploadRow(
                id=new_upload_id(),
                token_id=caller.token_id,
                digest=digest.hex,
                size=size,
                slice_size=slice_size,
                part_size=part_size_for(size, slice_size),
                created=now,
                touched=now,
                storage_id="",
            )
            found = self._add(caller, repository, upload, now)
            if found is None:
                return UploadState(upload.id, upload.part_size, (), bool(upload.storage_id)), True
        if (found.size, found.slice_size) != (size, slice_size):
            raise FormatError(
                "an unfinished upload of this digest has another size",
                expected=f"{found.size} bytes in slices of {found.slice_size}",
                found=f"{size} bytes in slices of {slice_size}",
                hint="abort it first",
            )
        self._touch(found, now)
        return self._state(found), False

    def show(self, caller: Caller, repository: RepositoryName, upload_id: str) -> UploadState:
        """The state of an unfinished upload of the caller's.

        Raises:
            NotFound: if there is none.
            StorageError: if the store fails.
        """
        return self._state(self._find(caller, repository, upload_id))

    def begin_part(
        self, caller: Caller, repository: RepositoryName, upload_id: str, *, number: int, length: int, shards: bytes
    ) -> PartWriter | None:
        """Prepare for the bytes of one part. None if exactly this part is already there.

        Raises:
            NotFound: if there is no such upload.
            FormatError: if number, length or the declared digests do not fit the upload.
            Conflict: if the part is there with other digests, or parts of this upload do not come this way.
        """
        upload = self._find(caller, repository, upload_id)
        plan = PartPlan.of(upload, number, length=length, shards=shards)
        claim = self._claims.take(upload_id, number)
        try:
            with self._catalogue.reading() as session:
                present = session.get(UploadPartRow, (upload_id, number))
            if present is None:
                return self._transfer.receive(upload, plan, claim, lambda: self._record(upload, plan))
            if present.shards != shards:
                raise Conflict(f"part {number} is already there with other bytes", hint="abort the upload first")
        except BaseException:
            claim.release()
            raise
        claim.release()
        return None

    def begin_undeclared(
        self, caller: Caller, repository: RepositoryName, upload_id: str, *, number: int
    ) -> UndeclaredPart:
        """Prepare for the bytes of one part whose slices nobody declared, by way of the service whatever the store.

        Raises:
            NotFound: if there is no such upload.
            FormatError: if the number does not fit the upload.
            StorageError: if the store fails.
        """
        upload = self._find(caller, repository, upload_id)
        _require_part(upload, number)
        self._touch(upload, self._clock())
        claim = self._claims.take(upload_id, number)
        try:
            with self._catalogue.reading() as session:
                row = None if upload.storage_id else session.get(UploadPartRow, (upload_id, number))
            return UndeclaredPart(
                upload, number, claim, self._transfer.relayed(upload, number),
                present=None if row is None else row.shards,
                # Which parts an object store has, it is asked itself.
                record=(lambda _plan: None) if upload.storage_id else partial(self._record, upload),
                contradicted=partial(self._give_up, caller, repository, upload_id),
            )  # fmt: skip
        except BaseException:
            claim.release()
            raise

    def sign(
        self, caller: Caller, repository: RepositoryName, upload_id: str, parts: Sequence[WantedPart]
    ) -> list[SignedRequest]:
        """Requests by which the caller sends parts straight to the storage, in the order asked.

        Raises:
            NotFound: if there is no such upload.
            FormatError: if a number does not fit the upload.
            Conflict: if parts of this upload come through the service.
            StorageError: if the store fails.
        """
        upload = self._find(caller, repository, upload_id)
        for part in parts:
            _require_part(upload, part.number)
        now = self._clock()
        self._touch(upload, now)
        return self._transfer.sign(upload, parts, now)

    def complete(self, caller: Caller, repository: RepositoryName, upload_id: str) -> Digest | Verifying:
        """Verify the whole and make the blob known; see ``Completion.complete``."""
        return self._completion.complete(caller, repository, upload_id)

    def abort(self, caller: Caller, repository: RepositoryName, upload_id: str) -> None:
        """Give an upload up.

        Raises:
            NotFound: if there is no such upload.
            StorageError: if the store fails; the upload is gone all the same.
        """
        now = self._clock()
        with self._catalogue.writing() as session:
            upload = find_upload(session, caller, repository, upload_id)
            drop_upload(session, upload)
            audit.record(
                session, caller, now, audit.Action.UPLOAD_ABORTED, repository, digest=f"sha256:{upload.digest}"
            )
        self._discard(upload)

    def sweep(self, caller: Caller, *, starting: bool) -> int:
        """Drop uploads nobody touched for long; at the start of the service also whatever a crash left behind.

        Answers how many uploads and files were dropped.

        Raises:
            StorageError: if a store fails; what is left is dropped by the next sweep.
        """
        now = self._clock()
        idle_since = now - timedelta(seconds=limits.UPLOAD_IDLE_SECONDS)
        dropped: list[UploadRow] = []
        with self._catalogue.writing() as session:
            # There may be very many, and no other transaction writes meanwhile: only what can go is read.
            rows = select(UploadRow) if starting else select(UploadRow).where(UploadRow.touched <= idle_since)
            for upload in session.scalars(rows).all():
                if upload.touched <= idle_since or (starting and self._transfer.is_lost(upload)):
                    drop_upload(session, upload)
                    digest = f"sha256:{upload.digest}"
                    audit.record(session, caller, now, audit.Action.UPLOAD_EXPIRED, upload.id, digest=digest)
                    dropped.append(upload)
            known = frozenset(session.scalars(select(UploadRow.id)).all()) - {upload.id for upload in dropped}
        for upload in dropped:
            self._discard(upload)
        return len(dropped) + self._transfer.sweep(known, now, starting=starting)

    def close(self) -> None:
        """Stop hashing in the background."""
        self._completion.close()
        self._transfer.close()

    # ----------------------------------------------------------------------------------------------------------------

    def _unfinished(
        self, session: Session, caller: Caller, repository: RepositoryName, digest: Digest
    ) -> UploadRow | None:
        """The caller's unfinished upload of ``digest``, if there is one."""
        try:
            owner = find_repository(session, repository)
        except NotFound:
            return None
        wanted = (UploadRow.repository_id == owner.id, UploadRow.digest == digest.hex)
        found = session.scalars(select(UploadRow).where(*wanted, UploadRow.token_id == caller.token_id)).first()
        return None if found is None or found.refused else found

    def _add(self, caller: Caller, repository: RepositoryName, upload: UploadRow, now: datetime) -> UploadRow | None:
        """Make store and row of a new upload; answers the one another request made meanwhile, if one did."""
        # The store first: a row without a file is worse than a file without a row, which is swept. And no transaction
        # waits for a store: while one writes, nobody else does.
        self._transfer.begin(upload)
        try:
            with self._catalogue.writing() as session:
                owner = obtain_repository(session, repository, now)
                found = self._unfinished(session, caller, repository, Digest(upload.digest))
                if found is None:
                    self._insert(session, owner.id, upload)
                    audit.record(
                        session, caller, now, audit.Action.UPLOAD_OPENED, repository,
                        digest=f"sha256:{upload.digest}", size=upload.size,
                    )  # fmt: skip
        except BaseException:
            self._discard(upload)
            raise
        if found is not None:
            self._discard(upload)
        return found

    def _insert(self, session: Session, repository_id: int, upload: UploadRow) -> None:
        same = (UploadRow.repository_id == repository_id, UploadRow.digest == upload.digest)
        for refused in session.scalars(select(UploadRow).where(*same, UploadRow.token_id == upload.token_id)):
            drop_upload(session, refused)
        unfinished = session.scalars(select(func.count()).where(UploadRow.repository_id == repository_id)).one()
        if unfinished >= limits.OPEN_UPLOADS:
            raise Conflict("the repository has too many unfinished uploads", expected=f"{limits.OPEN_UPLOADS}")
        upload.repository_id = repository_id
        session.add(upload)
        session.flush()

    def _find(self, caller: Caller, repository: RepositoryName, upload_id: str) -> UploadRow:
        with self._catalogue.reading() as session:
            upload = find_upload(session, caller, repository, upload_id)
            session.expunge(upload)
        if upload.refused:
            raise Conflict("the bytes of this upload were another file's", hint="open the upload again")
        return upload

    def _state(self, upload: UploadRow) -> UploadState:
        query = select(UploadPartRow).where(UploadPartRow.upload_id == upload.id)
        with self._catalogue.reading() as session:
            rows = session.scalars(query).all()
        parts = self._transfer.present(upload, rows)
        if parts is None:
            self._begin_again(upload)
            parts = frozenset()
        return UploadState(upload.id, upload.part_size, tuple(sorted(parts)), bool(upload.storage_id))

    def _begin_again(self, upload: UploadRow) -> None:
        """Another start in the store, which has lost the first, for example by a lifecycle rule of the bucket."""
        lost = upload.storage_id
        self._transfer.begin(upload)
        with self._catalogue.writing() as session:
            same = (UploadRow.id == upload.id, UploadRow.storage_id == lost)
            found = session.scalars(select(UploadRow).where(*same)).one_or_none()
            if found is not None:
                found.storage_id = upload.storage_id
        if found is None:
            self._transfer.withdraw(upload)
            raise Conflict("another request began this upload again", hint="ask again")

    def _touch(self, upload: UploadRow, now: datetime) -> None:
        if now - upload.touched < timedelta(seconds=_TOUCH_SECONDS):
            return
        with self._catalogue.writing() as session:
            session.execute(update(UploadRow).where(UploadRow.id == upload.id).values(touched=now))

    def _record(self, upload: UploadRow, plan: PartPlan) -> None:
        with self._catalogue.writing() as session:
            row = session.get(UploadRow, upload.id)
            if row is None:
                raise NotFound(f"no upload {upload.id}", hint="it was aborted meanwhile")
            row.touched = self._clock()
            session.add(UploadPartRow(upload_id=upload.id, number=plan.number, shards=plan.shards))
        self._transfer.recorded(upload, plan.number)

    def _give_up(self, caller: Caller, repository: RepositoryName, upload_id: str) -> None:
        with suppress(NotFound):  # another request did it
            self.abort(caller, repository, upload_id)

    def _discard(self, upload: UploadRow) -> None:
        self._claims.drop(upload.id)
        self._transfer.discard(upload)


def _require_part(upload: UploadRow, number: int) -> None:
    count = part_count(upload)
    if not 0 <= number < count:
        raise FormatError("no such part", expected=f"0 to {count - 1}", found=number)
