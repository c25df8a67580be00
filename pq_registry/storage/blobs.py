# SPDX-License-Identifier: Apache-2.0
"""What a blob store promises. The service is written against these protocols and against no particular store.

A blob is named by the SHA-256 digest of its bytes and never changes. A directory has one place for each digest; in an
object store, where a name can be overwritten and nothing be renamed, every upload has an object of its own, and the
catalogue says which of them was verified (``StoredBlob.copy``; docs/adr/0013).

How bytes come in differs: through the service into a directory (``storage.incoming``, ``LocalBlobStore.adopt``), or
from the client straight into an object store (``DirectUploads``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from pq_registry.format.digest import Digest


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob and where it is: ``copy`` is the id of the upload that brought it, empty in a directory."""

    digest: Digest
    copy: str = ""

    def __str__(self) -> str:
        return str(self.digest)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that whoever holds it may make until ``expires``. The URL is a secret: it is in no repr and no log.

    ``headers`` must be sent exactly so; they are part of the signature.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str]
    expires: datetime


def ignore(_stray: str) -> None:
    """For those who look for blobs and for nothing else."""


class BlobReader(Protocol):
    """One blob, open for reading; may be used from several threads at once until it is closed."""

    @property
    def size(self) -> int:
        """Its length in bytes."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            StorageError: if the store fails or holds fewer bytes than that.
        """
        ...

    def close(self) -> None:
        """Give up what the store holds for this reader."""
        ...


class BlobStore(Protocol):
    """Immutable blobs by digest."""

    def open(self, blob: StoredBlob, *, size: int | None = None) -> BlobReader:
        """Open a blob for reading.

        Args:
            blob: which one.
            size: the length it must have, as far as the caller knows it.

        Raises:
            NotFound: if there is no such blob.
            StorageError: if the store fails, or the blob has another length.
        """
        ...

    def size(self, blob: StoredBlob) -> int | None:
        """A blob's length, or None if there is no such blob.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def locate(self, blob: StoredBlob, now: datetime) -> SignedRequest | None:
        """A request with which a client reads the blob, or any range of it, from the store itself.

        None where only the service can read.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def remove(self, blob: StoredBlob) -> None:
        """Remove a blob nothing refers to any more; one that is not there is no failure.

        Raises:
            StorageError: if the store fails, or holds the blob for longer (Object Lock).
        """
        ...

    def stored_at(self, blob: StoredBlob) -> datetime | None:
        """When a blob was stored, or None if there is no such blob.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def write(self, blob: StoredBlob, chunks: Iterable[bytes], *, size: int) -> None:
        """Store bytes that the service fetched itself, to replace lost or damaged ones.

        Nothing appears under the blob's name, and nothing there is replaced, before the bytes were found to be its own.

        Raises:
            FileDigestMismatch: if they are not, or not ``size`` of them.
            StorageError: if the store fails.
        """
        ...

    def iterate(self, *, stray: Callable[[str], None] = ignore) -> Iterator[StoredBlob]:
        """Every blob, in no particular order.

        Args:
            stray: told the name of whatever stands among the blobs and is none, at most some hundred characters of it.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def check(self) -> None:
        """Make sure that the store can be read.

        Raises:
            StorageError: if it cannot.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of an unfinished upload that the store holds: its length, and the tags by which it is completed.

    ``sha256`` is the store's own checksum of the part, in base64, where it keeps one.
    """

    size: int
    etag: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class UnfinishedUpload:
    """An upload the store knows of; ``storage_id`` is the store's own name for it."""

    blob: StoredBlob
    storage_id: str
    started: datetime


@runtime_checkable
class DirectUploads(Protocol):
    """A blob store into which clients write the parts of an upload themselves, with requests the service signed.

    Nothing appears under a blob's name before ``finish``, which only the service calls. Parts count from 0 here.
    """

    def begin(self, blob: StoredBlob) -> str:
        """Start an upload; answers the store's name for it.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def sign_part(
        self, blob: StoredBlob, storage_id: str, number: int, *, sha256: Digest, length: int, now: datetime
    ) -> SignedRequest:
        """A PUT of one part, bound to its digest as far as the provider can.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def parts(self, blob: StoredBlob, storage_id: str) -> dict[int, StoredPart]:
        """The parts the store holds.

        Raises:
            NotFound: if the store knows no such upload: it was finished or abandoned.
            StorageError: if the store fails.
        """
        ...

    def finish(self, blob: StoredBlob, storage_id: str, parts: Mapping[int, StoredPart]) -> None:
        """Make the object of its parts. One that is there already, after an answer was lost, is no failure.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def put(self, blob: StoredBlob, data: bytes) -> None:
        """Store a small blob whose bytes came through the service.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def send_part(self, blob: StoredBlob, storage_id: str, number: int, data: bytes) -> None:
        """Write a part whose bytes came through the service; one that is there is replaced.

        Raises:
            NotFound: if the store knows no such upload: it was finished or abandoned.
            StorageError: if the store fails.
        """
        ...

    def abandon(self, blob: StoredBlob, storage_id: str) -> None:
        """Give an upload up, finished or not; one that is not there is no failure.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def drop_parts(self, blob: StoredBlob, storage_id: str) -> None:
        """Give up the parts of an unfinished upload; an object that stands under the blob's name stays.

        For uploads nobody knows: a store may have begun one twice, for a request whose answer was lost, and the other
        one may be a blob by now.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def unfinished(self) -> Iterator[UnfinishedUpload]:
        """Every upload that is neither finished nor abandoned.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def retain(self, blob: StoredBlob, now: datetime) -> None:
        """Hold a blob of a release for as long as the settings say (Object Lock); nothing without such settings.

        Raises:
            StorageError: if the store fails or knows no Object Lock.
        """
        ...
