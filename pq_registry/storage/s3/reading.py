# SPDX-License-Identifier: Apache-2.0
"""Reading an object: bounded ranges, each checked for being the one that was asked for.

An answer must have the length asked for, the object's whole length in Content-Range and the entity tag of the first
look. A stream that breaks is taken up where it broke. What is read is believed no further: callers hash it.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.storage.s3.answers import reported
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
        self._name = name
        self.position = first
        self.end = end
        answer = session.call("get_object", "read", name, Range=f"bytes={first}-{end - 1}")
        self._body = answer["Body"]
        try:
            _check(answer, name, first=first, end=end, size=size, etag=etag)
        except StorageError:
            self._body.close()
            raise

    def read(self, length: int) -> bytes:
        """At most ``length`` bytes; fewer, but at least one, only before the range's end or a break.

        Raises:
            StorageError: if the connection breaks or ends early.
        """
        with reported("read", self._name):
            data: bytes = self._body.read(min(length, self.end - self.position))
        if not data:
            raise StorageError(
                f"the object store cut {self._name} short", found=f"{self.end - self.position} bytes less"
            )
        self.position += len(data)
        return data

    def close(self) -> None:
        """End the request; a connection that has more to come is dropped."""
        self._body.close()


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
    tries = limits.S3_ATTEMPTS
    while True:
        answer = session.call("get_object", "read", name)
        body, length = answer["Body"], answer.get("ContentLength")
        try:
            if type(length) is not int or not 0 <= length <= limit or answer.get("ContentEncoding"):
                raise StorageError(
                    f"{name} is larger than any object of this kind", expected=f"at most {limit} bytes", found=length
                )
            with reported("read", name):
                data: bytes = body.read(length + 1)
            if len(data) == length:
                return data, str(answer.get("ETag", ""))
            raise StorageError(f"the object store cut {name} short", expected=f"{length} bytes", found=len(data))
        except StorageError as error:
            tries -= 1
            if not tries or error.expected == f"at most {limit} bytes":
                raise
        finally:
            body.close()


def _check(answer: dict[str, Any], name: str, *, first: int, end: int, size: int, etag: str) -> None:
    match = _RANGE.fullmatch(str(answer.get("ContentRange", "")))
    length = answer.get("ContentLength")
    if match is None or (int(match[1]), int(match[2])) != (first, end - 1) or length != end - first:
        raise StorageError(
            f"the object store answered another range of {name}", expected=f"bytes {first}-{end - 1}",
            found=str(answer.get("ContentRange"))[:80],
        )  # fmt: skip
    if int(match[3]) != size or answer.get("ETag", "") != etag:
        raise StorageError(f"{name} was replaced while it was read", expected=f"{size} bytes", hint=_REPLACED_HINT)
