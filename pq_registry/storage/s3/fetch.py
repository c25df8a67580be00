# SPDX-License-Identifier: Apache-2.0
"""One GET of an object, made with a presigned request of the service's own.

Not through botocore: what comes is taken as it arrives, so that a store that drips is noticed, and nothing is copied or
checked twice. The bytes are not believed here; whoever reads hashes them.
"""

from __future__ import annotations

import re
import time

import urllib3

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.storage.s3.answers import failure_of, reported
from pq_registry.storage.s3.session import S3Session

_RETRIED = frozenset({429, 500, 502, 503, 504})
_CODE = re.compile(rb"<Code>([A-Za-z0-9.-]{1,64})</Code>")
_PROBLEM_BYTES = 4096


class Fetched:
    """An answer whose body is being read; ``position`` counts the bytes taken."""

    def __init__(self, answer: urllib3.BaseHTTPResponse, name: str, length: int) -> None:
        self.status = answer.status
        self.etag = answer.headers.get("ETag", "")
        self.content_range = answer.headers.get("Content-Range", "")
        self.length = length
        self.position = 0
        self._answer = answer
        self._name = name
        self._waited = 0.0

    def read(self, most: int) -> bytes:
        """At most ``most`` bytes of the body, as soon as any are there; nothing is left to read after ``length``.

        Raises:
            StorageError: if the body ends before, or comes too slowly to wait for.
        """
        begin = time.monotonic()
        with reported("read", self._name):
            data = self._answer.read1(min(most, self.length - self.position), decode_content=False)
        self._waited += time.monotonic() - begin
        self.position += len(data)
        if not data:
            raise StorageError(
                f"the object store cut {self._name} short", expected=f"{self.length} bytes",
                found=f"{self.position} bytes",
            )  # fmt: skip
        if self._waited > limits.S3_SILENCE_SECONDS and self.position < self._waited * limits.MINIMUM_RATE_BYTES:
            raise StorageError(
                f"the object store sends {self._name} too slowly",
                expected=f"{limits.MINIMUM_RATE_BYTES} bytes per second",
                found=f"{self.position} bytes in {self._waited:.0f} s",
            )
        return data

    def close(self) -> None:
        """Give the connection back, or drop it if there is more to come."""
        if self.position < self.length:
            self._answer.close()
        self._answer.release_conn()


def fetch(session: S3Session, name: str, *, first: int | None = None, end: int | None = None) -> Fetched:
    """Ask for an object, or for its bytes from ``first`` to before ``end``; asked again where the store is busy.

    Raises:
        NotFound: if there is no such object.
        StorageError: if the store fails, or answers without a length.
    """
    headers = {} if first is None or end is None else {"Range": f"bytes={first}-{end - 1}"}
    failure: StorageError | NotFound
    for attempt in range(limits.S3_ATTEMPTS):
        if attempt:
            time.sleep(limits.BACKOFF_SECONDS * 2.0**attempt)
        try:
            with reported("read", name):
                answer = session.http.request(
                    "GET", session.own_url("GET", name), headers=headers, redirect=False, retries=False,
                    preload_content=False, decode_content=False,
                )  # fmt: skip
                if answer.status in (200, 206):
                    return _accepted(answer, name)
                code = _CODE.search(answer.read1(_PROBLEM_BYTES, decode_content=False))
                answer.close()
        except StorageError as error:
            failure = error
            continue
        text = code[1].decode() if code else str(answer.status)
        failure = failure_of("read", name, code="NoSuchKey" if answer.status == 404 else text, status=answer.status)
        if answer.status not in _RETRIED:
            break
    raise failure


def _accepted(answer: urllib3.BaseHTTPResponse, name: str) -> Fetched:
    length = answer.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and "Content-Encoding" not in answer.headers:
        return Fetched(answer, name, int(length))
    answer.close()
    raise StorageError(f"the object store answered {name} without its length", found=f"HTTP {answer.status}")
