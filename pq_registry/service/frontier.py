# SPDX-License-Identifier: Apache-2.0
"""The running SHA-256 of an upload: hashed along the longest run of verified parts while later ones still arrive.

So that completing an upload is quick: by the time the last part is there, most of the file has been hashed from the
page cache, in the background. A frontier lives in memory only; after a restart it begins again at the
first byte, when the upload is completed.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from pq_registry import limits
from pq_registry.errors import PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.incoming import Incoming, IncomingFile

_WORKERS = 2
Opener = Callable[[], IncomingFile]
Watch = Callable[[int], None]


def _unwatched(_count: int) -> None:
    pass


class Frontier:
    """The state of one upload. Parts may be reported in any order and from any thread."""

    def __init__(self, opener: Opener, *, size: int, part_size: int) -> None:
        self._open = opener
        self._size = size
        self._part_size = part_size
        self._verified: set[int] = set()
        self._next = 0
        self._sha256 = hashlib.sha256()
        self._lock = threading.Lock()
        self._dead = False
        self._watch: Watch = _unwatched

    def add(self, number: int) -> None:
        """Report that part ``number`` is durable and will not change any more."""
        self._verified.add(number)

    def advance(self) -> None:
        """Hash what can be hashed, unless another thread is doing so. Failures surface in ``finish``."""
        if self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(PqregError):
                    self._hash()
            finally:
                self._lock.release()

    def abandon(self) -> None:
        """Stop hashing soon: the upload is given up."""
        self._dead = True

    def finish(self, watch: Watch = _unwatched) -> Digest:
        """The digest of the whole file, once every part has been reported.

        Args:
            watch: told how many bytes have been hashed, while they are; may raise to end that.

        Raises:
            StorageError: if the bytes cannot be read, now or earlier.
        """
        with self._lock:
            self._watch = watch
            self._hash()
            if self._dead or self._next * self._part_size < self._size:
                raise StorageError("the upload's bytes could not be read back")
            return Digest(self._sha256.hexdigest())

    def _hash(self) -> None:
        if self._next not in self._verified or self._dead:
            return
        try:
            with self._open() as file:
                buffer = memoryview(bytearray(min(limits.HASH_CHUNK_BYTES, self._part_size)))
                while self._next in self._verified and not self._dead:
                    self._hash_part(file, buffer)
                    self._next += 1
        except BaseException:
            self._dead = True  # a part may be half hashed: only a new frontier can go on
            raise

    def _hash_part(self, file: IncomingFile, buffer: memoryview) -> None:
        offset = self._next * self._part_size
        end = min(offset + self._part_size, self._size)
        while offset < end:
            count = file.read_into(offset, buffer[: end - offset])
            if count == 0:
                raise StorageError("an upload is shorter than its verified parts")
            self._sha256.update(buffer[:count])
            offset += count
            self._watch(offset)


class Frontiers:
    """The frontiers of all uploads, and the threads that advance them."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._known: dict[str, Frontier] = {}
        self._guard = threading.Lock()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="frontier")

    def report(self, upload_id: str, number: int, *, size: int, part_size: int) -> None:
        """A part has become durable: hash on in the background."""
        frontier = self._obtain(upload_id, size=size, part_size=part_size)
        frontier.add(number)
        self._workers.submit(frontier.advance)

    def finish(
        self, upload_id: str, numbers: Iterable[int], *, size: int, part_size: int, watch: Watch = _unwatched
    ) -> Digest:
        """The digest of a whole upload, all of whose parts are ``numbers``.

        Raises:
            StorageError: if the bytes cannot be read; the next attempt begins at the first byte.
        """
        frontier = self._obtain(upload_id, size=size, part_size=part_size)
        for number in numbers:
            frontier.add(number)
        try:
            return frontier.finish(watch)
        finally:
            self.forget(upload_id)

    def forget(self, upload_id: str) -> None:
        """The upload is complete or given up."""
        with self._guard:
            frontier = self._known.pop(upload_id, None)
        if frontier is not None:
            frontier.abandon()

    def close(self) -> None:
        """Stop hashing."""
        for upload_id in list(self._known):
            self.forget(upload_id)
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _obtain(self, upload_id: str, *, size: int, part_size: int) -> Frontier:
        with self._guard:
            if upload_id not in self._known:
                self._known[upload_id] = Frontier(
                    lambda: self._incoming.open(upload_id), size=size, part_size=part_size
                )
            return self._known[upload_id]
