# SPDX-License-Identifier: Apache-2.0
"""One part of an upload on its way to disk, and who may write it.

The bytes of a part that has been acknowledged must never change, or a file could be hashed and then altered before it
is adopted. So every part in flight has exactly one holder: a newcomer takes the claim over (its predecessor may hang
on a dead connection), and the predecessor's next write is refused. Writing, syncing and recording happen under the
claim's lock, so taking over waits for at most one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import delete
from sqlalchemy.orm import Session

from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, check_shard, shard_digests
from pq_registry.errors import Conflict, FormatError, NotFound
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.storage.catalogue.tables import RepositoryRow, UploadPartRow, UploadRow


def find_upload(session: Session, caller: Caller, repository: RepositoryName, upload_id: str) -> UploadRow:
    """The row of an unfinished upload of the caller's in this repository.

    Raises:
        NotFound: if there is none.
    """
    upload = session.get(UploadRow, upload_id)
    if upload is not None and upload.token_id == caller.token_id:
        owner = session.get(RepositoryRow, upload.repository_id)
        if owner is not None and owner.name == str(repository):
            return upload
    raise NotFound(f"no upload {upload_id[:40]} in {repository}", hint="open it again; it may have expired")


def drop_upload(session: Session, upload: UploadRow) -> None:
    """Remove an upload's rows."""
    session.execute(delete(UploadPartRow).where(UploadPartRow.upload_id == upload.id))
    session.execute(delete(UploadRow).where(UploadRow.id == upload.id))


class Claim:
    """The right to write one part."""

    def __init__(self, claims: Claims, upload_id: str, number: int) -> None:
        self.key = (upload_id, number)
        self.lock = threading.Lock()
        self.lost = False
        self._claims = claims

    def require(self) -> None:
        """Refuse if another request took over. The caller holds ``lock``.

        Raises:
            Conflict: if it did.
        """
        if self.lost:
            raise Conflict(f"another request is sending part {self.key[1]}")

    def release(self) -> None:
        """Give the claim up."""
        self._claims.give_up(self)


class Claims:
    """All claims of the service."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], Claim] = {}
        self._guard = threading.Lock()

    def take(self, upload_id: str, number: int) -> Claim:
        """Claim a part, ending an earlier claim to it."""
        claim = Claim(self, upload_id, number)
        with self._guard:
            earlier = self._held.get(claim.key)
            self._held[claim.key] = claim
        if earlier is not None:
            with earlier.lock:  # after this its holder writes nothing more
                earlier.lost = True
        return claim

    def give_up(self, claim: Claim) -> None:
        """Remove a claim, unless another request took it over."""
        with self._guard:
            if self._held.get(claim.key) is claim:
                del self._held[claim.key]

    def drop(self, upload_id: str) -> None:
        """End every claim to the parts of an upload that is gone."""
        with self._guard:
            gone = [claim for key, claim in self._held.items() if key[0] == upload_id]
            for claim in gone:
                del self._held[claim.key]
        for claim in gone:
            with claim.lock:
                claim.lost = True


@dataclass(frozen=True, slots=True)
class PartPlan:
    """Where a part goes and what its slices must be."""

    number: int
    offset: int
    length: int
    slice_size: int
    shards: bytes

    @classmethod
    def of(cls, upload: UploadRow, number: int, *, length: int, shards: bytes) -> PartPlan:
        """Check what a request announces against the upload.

        Raises:
            FormatError: if number, length or the digests do not fit.
        """
        count = -(-upload.size // upload.part_size)
        if not 0 <= number < count:
            raise FormatError("no such part", expected=f"0 to {count - 1}" if count else "no parts", found=number)
        offset = number * upload.part_size
        expected = min(upload.part_size, upload.size - offset)
        if length != expected:
            raise FormatError(
                f"part {number} has another length", expected=f"{expected} bytes", found=f"{length} bytes"
            )
        slices = -(-length // upload.slice_size)
        if len(shards) != slices * SHARD_DIGEST_BYTES:
            raise FormatError(
                f"part {number} has another number of slices",
                expected=f"{slices} BLAKE3 digests",
                found=f"{len(shards)} bytes",
            )
        return cls(number, offset, length, upload.slice_size, shards)


class PartFile(Protocol):
    """Where the slices of a part go."""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write a slice. Raises StorageError."""
        ...

    def sync(self) -> None:
        """Make what was written durable. Raises StorageError."""
        ...

    def close(self) -> None:
        """Give it up."""
        ...


class PartWriter:
    """Takes the slices of one part in order. Used from one thread at a time; always closed."""

    def __init__(self, plan: PartPlan, claim: Claim, file: PartFile, record: Callable[[], None]) -> None:
        self.plan = plan
        self._claim = claim
        self._file = file
        self._record = record
        self._slice = 0

    def write(self, data: bytes | memoryview) -> None:
        """Check the next slice and write it.

        Raises:
            ShardMismatch: if it is not what was declared; nothing of it is written.
            Conflict: if another request took the part over.
            StorageError: if the file system fails.
        """
        start = self._slice * self.plan.slice_size
        expected = self.plan.shards[self._slice * SHARD_DIGEST_BYTES : (self._slice + 1) * SHARD_DIGEST_BYTES]
        if len(data) != min(self.plan.slice_size, self.plan.length - start):
            raise FormatError(
                f"part {self.plan.number} is shorter than announced", expected=f"{self.plan.length} bytes"
            )
        check_shard(expected, data, path=f"part {self.plan.number}", index=self._slice)
        with self._claim.lock:
            self._claim.require()
            self._file.write(self.plan.offset + start, data)
        self._slice += 1

    def finish(self) -> None:
        """Make the part durable, then known.

        Raises:
            FormatError: if slices are missing.
            Conflict: if another request took the part over.
            StorageError: if disk or catalogue fail; the part is then not there.
        """
        if self._slice * self.plan.slice_size < self.plan.length:
            raise FormatError(
                f"part {self.plan.number} is shorter than announced", expected=f"{self.plan.length} bytes"
            )
        with self._claim.lock:
            self._claim.require()
            self._file.sync()
            self._record()

    def close(self) -> None:
        """Give up file and claim."""
        # Under the lock: a request can be cancelled while its thread still writes, and a closed descriptor's number
        # soon belongs to another file.
        with self._claim.lock:
            self._file.close()
        self._claim.release()


class UndeclaredPart:
    """Takes the slices of one part, in order, that nobody declared: their digests are computed as they come.

    A part that is there already is not written again. Its bytes must be the same: which of the two are the file's is
    not known, and who sends parts this way cannot give an upload up, so ``contradicted`` does. Used from one thread at
    a time; always closed.
    """

    def __init__(
        self, upload: UploadRow, number: int, claim: Claim, file: PartFile, *, present: bytes | None,
        record: Callable[[PartPlan], None], contradicted: Callable[[], None],
    ) -> None:  # fmt: skip
        self.number = number
        self.offset = number * upload.part_size
        self.length = min(upload.part_size, upload.size - self.offset)
        self.slice_size = upload.slice_size
        self._upload = upload
        self._claim = claim
        self._file = file
        self._present = present
        self._record = record
        self._contradicted = contradicted
        self._shards = bytearray()
        self._taken = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next slice.

        Raises:
            FormatError: if it is not of a slice's length.
            Conflict: if another request took the part over, or the part is there with other bytes.
            StorageError: if the store fails.
        """
        if not data or len(data) != min(self.slice_size, self.length - self._taken):
            raise FormatError(f"part {self.number} has another length", expected=f"{self.length} bytes")
        shard = shard_digests(data, self.slice_size)
        start = len(self._shards)
        self._shards += shard
        if self._present is None:
            with self._claim.lock:
                self._claim.require()
                self._file.write(self.offset + self._taken, data)
        elif self._present[start : start + SHARD_DIGEST_BYTES] != shard:
            self._contradicted()
            raise Conflict(
                f"part {self.number} is already there with other bytes, so all that was sent of this file was dropped",
                hint="ask again where the file is to be sent, and send it once more",
            )
        self._taken += len(data)

    def finish(self) -> None:
        """Make the part durable, then known.

        Raises:
            FormatError: if slices are missing.
            Conflict: if another request took the part over.
            StorageError: if the store or the catalogue fails; the part is then not there.
        """
        if self._taken != self.length:
            raise FormatError(
                f"part {self.number} is shorter than announced", expected=f"{self.length} bytes",
                found=f"{self._taken} bytes",
            )  # fmt: skip
        if self._present is not None:
            return
        plan = PartPlan.of(self._upload, self.number, length=self.length, shards=bytes(self._shards))
        with self._claim.lock:
            self._claim.require()
            self._file.sync()
            self._record(plan)

    def close(self) -> None:
        """Give up file and claim."""
        with self._claim.lock:  # as in PartWriter.close
            self._file.close()
        self._claim.release()
