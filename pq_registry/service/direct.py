# SPDX-License-Identifier: Apache-2.0
"""Uploads straight into an object store (a ``Transfer``).

* A blob of more than one slice is a multipart upload of the store's. Clients send its parts with requests that this
  service signed, each for one part of one length and, where the provider can, one SHA-256. Which parts are there, the
  store is asked; the catalogue has no rows of them. Only the service makes the object of its parts, and then reads it
  from end to end: what it finds, and nothing a client or the store said, is what the blob is.
* A blob of one slice comes through the service, is compared in memory with the slice's digest *and* the blob's, and
  then stored. Bytes that are not the blob's are never stored, so whichever of two requests writes last, the object
  that was verified stays what it is.

Every upload has an object of its own (``docs/adr/0013``): nothing here ever overwrites or renames anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from pq_registry import limits
from pq_registry.errors import Conflict, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.service.parts import Claim, PartFile, PartPlan, PartWriter
from pq_registry.service.transfer import Verified, WantedPart, Watch, part_count, part_length
from pq_registry.storage.blobs import BlobStore, DirectUploads, SignedRequest, StoredBlob, StoredPart
from pq_registry.storage.catalogue.tables import UploadPartRow, UploadRow
from pq_registry.storage.verifying import verify_blob


class ObjectStore(BlobStore, DirectUploads, Protocol):
    """A blob store into which clients write themselves."""


class ObjectTransfer:
    """Into ``store``."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begin(self, upload: UploadRow) -> None:
        """Begin a multipart upload, unless one slice is all there is."""
        if upload.size > upload.slice_size:
            upload.storage_id = self._store.begin(_blob(upload))

    def present(self, upload: UploadRow, rows: Sequence[UploadPartRow]) -> frozenset[int] | None:
        """The parts of the right length that the store holds; all of them once the object was made of them."""
        if not upload.storage_id:
            return frozenset(row.number for row in rows)
        try:
            return frozenset(self._usable(upload))
        except NotFound:
            return frozenset(range(part_count(upload))) if self._is_finished(upload) else None

    def receive(self, upload: UploadRow, plan: PartPlan, claim: Claim, record: Callable[[], None]) -> PartWriter:
        """Take the one slice of a small blob into memory."""
        if upload.storage_id:
            raise Conflict(
                "the parts of this upload go straight to the storage", expected="POST …/urls, and a PUT of each part",
                hint="this client is older than the registry; upgrade it",
            )  # fmt: skip
        return PartWriter(plan, claim, _SmallBlob(self._store, _blob(upload)), record)

    def relayed(self, upload: UploadRow, number: int) -> PartFile:
        """Into memory, and from there to the store once the part is whole."""
        if upload.storage_id:
            return _RelayedPart(self._store, upload, number)
        return _SmallBlob(self._store, _blob(upload))

    def recorded(self, upload: UploadRow, number: int) -> None:
        """Nothing is hashed ahead."""

    def sign(self, upload: UploadRow, parts: Sequence[WantedPart], now: datetime) -> list[SignedRequest]:
        """Sign a PUT of each part."""
        if not upload.storage_id:
            raise Conflict("the parts of this upload come through the registry", expected="PUT …/parts/{n}")
        return [
            self._store.sign_part(
                _blob(upload), upload.storage_id, part.number,
                sha256=part.sha256, length=part_length(upload, part.number), now=now,
            )
            for part in parts
        ]  # fmt: skip

    def verify(self, upload: UploadRow, rows: Sequence[UploadPartRow], watch: Watch) -> Verified:  # noqa: ARG002
        """Make the object of its parts, if that has not been done, and read it."""
        blob = _blob(upload)
        if upload.size == 0:
            self._store.put(blob, b"")
            return Verified(Digest.of(b""), b"")
        if upload.storage_id:
            self._finish(upload)
        try:
            reader = self._store.open(blob, size=upload.size)
        except NotFound:
            if not upload.storage_id:
                return Verified(None, b"")  # the slice was what its sender declared, but not this blob's
            raise StorageError(f"the storage lost an upload of {blob}", hint="complete it again") from None
        try:
            found, shards = verify_blob(reader, slice_size=upload.slice_size, watch=watch)
        finally:
            reader.close()
        return Verified(found, shards)

    def keep(self, upload: UploadRow, *, replace: bool) -> None:
        """The object has its final name; the catalogue will say that it is the blob."""

    def copy(self, upload: UploadRow) -> str:
        """The object of this upload."""
        return upload.id

    def discard(self, upload: UploadRow) -> None:
        """Give up the multipart upload, or remove the object it became."""
        if upload.storage_id:
            self._store.abandon(_blob(upload), upload.storage_id)
        else:
            self._store.remove(_blob(upload))

    def withdraw(self, upload: UploadRow) -> None:
        """Give up this multipart upload; what another one of the same upload became stays."""
        self._store.drop_parts(_blob(upload), upload.storage_id)

    def is_lost(self, upload: UploadRow) -> bool:  # noqa: ARG002 - as in the protocol
        """What the store has lost is begun anew when somebody asks for it."""
        return False

    def sweep(self, known: frozenset[str], now: datetime, *, starting: bool) -> int:
        """Abandon old uploads the store has and the catalogue does not know: a crash came between the two."""
        if starting:
            return 0  # the store may have many, and no request should wait for that
        before = now - timedelta(seconds=limits.ORPHAN_UPLOAD_SECONDS)
        orphans = [
            upload for upload in self._store.unfinished() if upload.blob.copy not in known and upload.started < before
        ]
        for orphan in orphans:
            # Only the parts: the store may have begun an upload twice, and made the blob of the other one's.
            self._store.drop_parts(orphan.blob, orphan.storage_id)
        return len(orphans)

    def close(self) -> None:
        """Nothing runs in the background."""

    # ------------------------------------------------------------------------------------------------------------------

    def _usable(self, upload: UploadRow) -> dict[int, StoredPart]:
        found = self._store.parts(_blob(upload), upload.storage_id)
        return {
            number: part
            for number, part in found.items()
            if 0 <= number < part_count(upload) and part.size == part_length(upload, number)
        }

    def _finish(self, upload: UploadRow) -> None:
        try:
            parts = self._usable(upload)
        except NotFound:
            if self._is_finished(upload):
                return  # by an earlier try, or by another instance
            raise StorageError("the storage lost an upload", hint="open it again") from None
        missing = part_count(upload) - len(parts)
        if missing:
            raise Conflict("parts of the upload are missing", found=f"{missing} missing")
        self._store.finish(_blob(upload), upload.storage_id, parts)

    def _is_finished(self, upload: UploadRow) -> bool:
        return self._store.size(_blob(upload)) == upload.size


class _SmallBlob:
    """The bytes of a blob of one slice, which are stored if they are the blob's (a ``PartFile``)."""

    def __init__(self, store: ObjectStore, blob: StoredBlob) -> None:
        self._store = store
        self._blob = blob
        self._data = b""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Take the slice, which was compared with its digest."""
        assert offset == 0
        self._data = bytes(data)

    def sync(self) -> None:
        """Store it; bytes of another blob are dropped, and completing the upload tells."""
        if Digest.of(self._data) == self._blob.digest:
            self._store.put(self._blob, self._data)

    def close(self) -> None:
        """Forget it."""
        self._data = b""


class _RelayedPart:
    """The bytes of one part of a multipart upload, in memory until they are sent (a ``PartFile``)."""

    def __init__(self, store: ObjectStore, upload: UploadRow, number: int) -> None:
        self._store = store
        self._upload = upload
        self._number = number
        self._data = bytearray()

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Take a slice; they come in order."""
        assert offset == self._number * self._upload.part_size + len(self._data)
        self._data += data

    def sync(self) -> None:
        """Send the part."""
        self._store.send_part(_blob(self._upload), self._upload.storage_id, self._number, bytes(self._data))

    def close(self) -> None:
        """Forget it."""
        self._data = bytearray()


def _blob(upload: UploadRow) -> StoredBlob:
    return StoredBlob(Digest(upload.digest), upload.id)
