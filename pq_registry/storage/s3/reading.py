# SPDX-License-Identifier: Apache-2.0
"""Reading an object: bounded ranges, each checked for being the one that was asked for.

An answer must have the length asked for, the object's whole length in Content-Range and the entity tag of the first
look. A stream that breaks is taken up where it broke. What is read is believed no further: callers hash it.
"""

from __future__ import annotations

import re
import threading

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.storage.s3.fetch import Fetched, fetch
from pq_registry.storage.s3.session import S3Session

_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})", re.ASCII)
_REPLACED_HINT = "somebody else writes to the bucket; run pqreg fsck"


class S3Stream:
    """One ranged GET under way."""

    def __init__(self, session: S3Session, name: str, *, first: int, end: int, size: int, etag: str) -> None:
        """Ask for the bytes from ``first`` to before ``end`` of an object of ``size`` bytes.

        Raises:
            NotFound: if there is no such object.
            StorageError: if the store fails, or answers with something else.
        """
        self._first = first
        self.end = end
        self._fetched = fetch(session, name, first=first, end=end)
        try:
            _check(self._fetched, name, first=first, end=end, size=size, etag=etag)
        except StorageError:
            self._fetched.close()
            raise

    @property
    def position(self) -> int:
        """Where in the object the next byte is."""
        return self._first + self._fetched.position

    def read(self, length: int) -> bytes:
        """At least one and at most ``length`` bytes; only before the end.

        Raises:
            StorageError: if the connection breaks, ends early or stalls.
        """
        return self._fetched.read(length)

    def close(self) -> None:
        """End the request; a connection that has more to come is dropped."""
        self._fetched.close()


class S3Reader:
    """A ``BlobReader``. Reads that go on where another ended share one long request."""

    def __init__(self, session: S3Session, name: str, *, size: int, etag: str) -> None:
        self._session = session
        self._name = name
        self._size = size
        self._etag = etag
        self._lock = threading.Lock()
        self._stream: S3Stream | None = None
        self._reached = -1
        self._closed = False

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises:
            StorageError: if the store fails, or the object is shorter or another one by now.
        """
        end = offset + length
        if end > self._size:
            raise StorageError(
                f"{self._name} is shorter than expected", expected=f"{end} bytes", found=f"{self._size} bytes"
            )
        if not length:
            return b""
        stream, goes_on = self._take(offset)
        data = bytearray()
        tries = limits.S3_ATTEMPTS
        while len(data) < length:
            if stream is None:
                position = offset + len(data)
                far = min(self._size, position + limits.S3_RANGE_BYTES)
                stream = self._open(position, max(end, far) if goes_on else end)
            try:
                data += stream.read(length - len(data))
            except StorageError:
                stream.close()
                stream = None
                tries -= 1
                if not tries:
                    raise
                continue
            if stream.position == stream.end:
                stream.close()
                stream = None
        self._give(stream, end)
        return bytes(data)

    def close(self) -> None:
        """End the request under way."""
        with self._lock:
            self._closed = True
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _take(self, offset: int) -> tuple[S3Stream | None, bool]:
        with self._lock:
            stream = self._stream
            if stream is not None and stream.position == offset:
                self._stream = None
                return stream, True
            return None, offset == self._reached

    def _give(self, stream: S3Stream | None, end: int) -> None:
        with self._lock:
            self._reached = end
            unused = stream
            if stream is not None and not self._closed:
                unused, self._stream = self._stream, stream
        if unused is not None:
            unused.close()

    def _open(self, first: int, end: int) -> S3Stream:
        try:
            return S3Stream(self._session, self._name, first=first, end=end, size=self._size, etag=self._etag)
        except NotFound as error:
            raise StorageError(f"{self._name} was removed while it was read", found=error.found) from None


def read_whole(session: S3Session, name: str, *, limit: int) -> tuple[bytes, str]:
    """A small object and its entity tag.

    Raises:
        NotFound: if there is no such object.
        StorageError: if the store fails, or the object has more than ``limit`` bytes.
    """
    for attempt in range(limits.S3_ATTEMPTS):
        fetched = fetch(session, name)
        try:
            if fetched.length > limit:
                raise StorageError(
                    f"{name} is larger than any object of this kind", expected=f"at most {limit} bytes",
                    found=f"{fetched.length} bytes",
                )  # fmt: skip
            data = bytearray()
            while len(data) < fetched.length:
                data += fetched.read(fetched.length - len(data))
            return bytes(data), fetched.etag
        except StorageError:
            if fetched.length > limit or attempt + 1 == limits.S3_ATTEMPTS:
                raise
        finally:
            fetched.close()
    raise AssertionError  # the last try returns or raises


def _check(fetched: Fetched, name: str, *, first: int, end: int, size: int, etag: str) -> None:
    match = _RANGE.fullmatch(fetched.content_range)
    asked = match is not None and (int(match[1]), int(match[2])) == (first, end - 1)
    if match is None or not asked or fetched.status != 206 or fetched.length != end - first:
        raise StorageError(
            f"the object store answered another range of {name}", expected=f"bytes {first}-{end - 1}",
            found=f"HTTP {fetched.status}, {fetched.length} bytes",
        )  # fmt: skip
    if int(match[3]) != size or fetched.etag != etag:
        raise StorageError(f"{name} was replaced while it was read", expected=f"{size} bytes", hint=_REPLACED_HINT)
