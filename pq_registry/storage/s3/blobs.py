# SPDX-License-Identifier: Apache-2.0
"""Blobs in an object store: ``PREFIX/sha256/aa/<64 hex digits>/<upload id>``.

Every upload has an object of its own and none is ever written twice, so nothing depends on conditional writes or on
what a provider does with two writers of one name; the catalogue says which object was verified (docs/adr/0013).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import SignedRequest, StoredBlob, StoredPart, UnfinishedUpload, ignore
from pq_registry.storage.s3 import parts
from pq_registry.storage.s3.holding import remove_object, retain_object
from pq_registry.storage.s3.reading import S3Reader
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.writing import write_object

PREFIX = "sha256/"
_NAME = re.compile(r"sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{32})", re.ASCII)
_SHOWN_CHARS = 200


def name_of(blob: StoredBlob) -> str:
    """Where a blob is, below the prefix.

    Raises:
        StorageError: if it was not brought by an upload into an object store.
    """
    name = f"{PREFIX}{blob.digest.hex[:2]}/{blob.digest.hex}/{blob.copy}"
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{blob} is not in an object store", expected="the id of the upload that brought it", found=repr(blob.copy),
            hint="give the --storage the registry was made with",
        )  # fmt: skip
    return name


def blob_of(name: str) -> StoredBlob:
    """The blob an object below ``PREFIX`` holds.

    Raises:
        StorageError: if that is not the name of a blob.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise StorageError(
            f"{name[:_SHOWN_CHARS]} in the object store is no blob", hint="move it away; pqreg did not put it there"
        )
    return StoredBlob(Digest(match[2]), match[3])


class S3BlobStore:
    """A ``BlobStore`` with ``DirectUploads``."""

    def __init__(self, session: S3Session) -> None:
        self.session = session

    def open(self, blob: StoredBlob, *, size: int | None = None) -> S3Reader:
        """Open a blob for reading.

        Args:
            blob: which one.
            size: the length it must have, as far as the caller knows it.

        Raises:
            NotFound: if there is no such blob.
            StorageError: if the store fails, or the blob has another length.
        """
        name = name_of(blob)
        found = self.session.call("head_object", "look at", name)
        length = found.get("ContentLength")
        if type(length) is not int or (size is not None and length != size):
            raise StorageError(
                f"blob {blob} is damaged", expected=f"{size} bytes", found=f"{length} bytes",
                hint="run pqreg fsck; it can fetch the blob from another registry",
            )  # fmt: skip
        return S3Reader(self.session, name, size=length, etag=str(found.get("ETag", "")))

    def size(self, blob: StoredBlob) -> int | None:
        """A blob's length, or None if there is no such blob.

        Raises:
            StorageError: if the store fails.
        """
        try:
            return int(self.session.call("head_object", "look at", name_of(blob))["ContentLength"])
        except NotFound:
            return None

    def stored_at(self, blob: StoredBlob) -> datetime | None:
        """When a blob was stored, by the store's clock; None if there is no such blob.

        Raises:
            StorageError: if the store fails.
        """
        try:
            found: datetime = self.session.call("head_object", "look at", name_of(blob))["LastModified"]
        except NotFound:
            return None
        return found

    def locate(self, blob: StoredBlob, now: datetime) -> SignedRequest:
        """A GET of the blob, or of any range of it, from the store itself.

        Raises:
            StorageError: if the blob is in no object store.
        """
        return self.session.presign("GET", name_of(blob), now=now)

    def remove(self, blob: StoredBlob) -> None:
        """Remove a blob nothing refers to any more, with every version of it; one that is not there is no failure.

        Raises:
            StorageError: if the store fails, or holds the blob for longer (Object Lock).
        """
        remove_object(self.session, name_of(blob))

    def iterate(self, *, stray: Callable[[str], None] = ignore) -> Iterator[StoredBlob]:
        """Every blob, in no particular order.

        Args:
            stray: told the name of whatever stands among the blobs and is none, at most some hundred characters of it.

        Raises:
            StorageError: if the store fails.
        """
        for item in self.session.names(PREFIX):
            if _NAME.fullmatch(item["Key"]):
                yield blob_of(item["Key"])
            else:
                stray(item["Key"][:_SHOWN_CHARS])

    def check(self) -> None:
        """Make sure that the store can be read.

        Raises:
            StorageError: if it cannot.
        """
        self.session.call("list_objects_v2", "list", "", Prefix=self.session.config.prefix, MaxKeys=1)

    def begin(self, blob: StoredBlob) -> str:
        """Start an upload; answers the store's name for it.

        Raises:
            StorageError: if the store fails.
        """
        return parts.begin(self.session, name_of(blob))

    def sign_part(
        self, blob: StoredBlob, storage_id: str, number: int, *, sha256: Digest, length: int, now: datetime
    ) -> SignedRequest:
        """A PUT of one part, bound to its digest and length as far as the provider can.

        Raises:
            StorageError: if the store fails.
        """
        return parts.sign(self.session, name_of(blob), storage_id, number, sha256=sha256, length=length, now=now)

    def parts(self, blob: StoredBlob, storage_id: str) -> dict[int, StoredPart]:
        """The parts the store holds.

        Raises:
            NotFound: if the store knows no such upload: it was finished or abandoned.
            StorageError: if the store fails.
        """
        return parts.held(self.session, name_of(blob), storage_id)

    def finish(self, blob: StoredBlob, storage_id: str, held: Mapping[int, StoredPart]) -> None:
        """Make the object of its parts. One that is there already, after an answer was lost, is no failure.

        Raises:
            StorageError: if the store fails.
        """
        parts.finish(self.session, name_of(blob), storage_id, held)

    def put(self, blob: StoredBlob, data: bytes) -> None:
        """Store a small blob whose bytes came through the service.

        Raises:
            StorageError: if the store fails, or the bytes are too many for one request.
        """
        if len(data) > limits.S3_PUT_BYTES:
            raise StorageError(
                f"blob {blob} is too large for one request", expected=f"at most {limits.S3_PUT_BYTES} bytes"
            )
        self.session.call("put_object", "store", name_of(blob), **self.session.body(data), **self.session.blob_options)

    def write(self, blob: StoredBlob, chunks: Iterable[bytes], *, size: int) -> None:
        """Store a blob of any size from bytes the service has, e.g. to replace a damaged copy.

        Raises:
            FileDigestMismatch: if the bytes are other ones than its digest names; nothing is stored then.
            StorageError: if the store fails.
        """
        write_object(self.session, name_of(blob), blob.digest, chunks, size=size)

    def send_part(self, blob: StoredBlob, storage_id: str, number: int, data: bytes) -> None:
        """Write a part whose bytes came through the service; one that is there is replaced.

        Raises:
            NotFound: if the store knows no such upload: it was finished or abandoned.
            StorageError: if the store fails.
        """
        parts.upload(self.session, name_of(blob), storage_id, number, data)

    def abandon(self, blob: StoredBlob, storage_id: str) -> None:
        """Give an upload up, finished or not; one that is not there is no failure.

        Raises:
            StorageError: if the store fails.
        """
        name = name_of(blob)
        if storage_id:
            parts.abort(self.session, name, storage_id)
        remove_object(self.session, name)

    def drop_parts(self, blob: StoredBlob, storage_id: str) -> None:
        """Give up the parts of an unfinished upload; an object that stands under the blob's name stays.

        Raises:
            StorageError: if the store fails.
        """
        parts.abort(self.session, name_of(blob), storage_id)

    def unfinished(self) -> Iterator[UnfinishedUpload]:
        """Every upload of ours that is neither finished nor abandoned.

        Raises:
            StorageError: if the store fails.
        """
        for name, storage_id, started in parts.under_way(self.session, PREFIX):
            if _NAME.fullmatch(name):
                yield UnfinishedUpload(blob_of(name), storage_id, started)

    def retain(self, blob: StoredBlob, now: datetime) -> None:
        """Hold a blob of a release for as long as the settings say (Object Lock); nothing without such settings.

        Raises:
            StorageError: if the store fails or knows no Object Lock.
        """
        retain_object(self.session, name_of(blob), now)
