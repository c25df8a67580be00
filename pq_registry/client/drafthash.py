# SPDX-License-Identifier: Apache-2.0
"""Reading a draft from a registry to sign it: every byte passes here, and nothing is kept but digests.

From the same memory come a file's SHA-256, its shards' BLAKE3, its tensor table and what its format is. The SHA-256
must be the one the draft lists. Windows are fetched ahead over several connections while the one before is hashed;
memory is ``workers`` rings of ``_RING`` windows.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.crew import Crew, Shared
from pq_registry.client.hashing import Header
from pq_registry.client.progress import Progress
from pq_registry.client.source import RemoteSource
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import FileDigestMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.draft import DraftFile
from pq_registry.format.executables import refusal
from pq_registry.format.manifest import SAFETENSORS_SUFFIX, FileEntry

_RING = 4
_WINDOW = 2 * limits.SHARD_BYTES


@dataclass(frozen=True, slots=True)
class HashedDraft:
    """What a manifest says of each file, by code point of the path, and why some can execute code."""

    files: tuple[FileEntry, ...]
    unsafe: dict[str, str]


def hash_draft(
    source: RemoteSource, files: Sequence[DraftFile], *, connections: int, progress: Progress
) -> HashedDraft:
    """Read ``files`` over ``connections`` connections and hash them.

    Raises:
        FileDigestMismatch: if the registry delivers other bytes than the draft lists.
        FormatError: if a ``*.safetensors`` file is not one.
        PqregError: if they cannot be had.
    """
    crew = Crew(abort=source.abort)
    # The largest first: a large file begun last would keep one core busy and the others idle.
    shared = Shared(sorted(files, key=lambda file: -file.size))
    with ThreadPoolExecutor(connections, thread_name_prefix="pqreg-fetch") as pool:
        reading = _Reading(source, pool, crew, progress)

        def work() -> None:
            ring = [bytearray(_WINDOW) for _ in range(_RING)]
            for file in shared:
                reading.one(file, ring)

        crew.run(work, max(1, min(connections, len(files))))
    return HashedDraft(tuple(sorted(reading.entries, key=lambda entry: entry.path)), reading.unsafe)


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a file that is fetched into ``buffer``; its shards' digests come when it is there."""

    buffer: bytearray
    view: memoryview
    shards: Future[bytes]


class _Reading:
    def __init__(self, source: RemoteSource, pool: ThreadPoolExecutor, crew: Crew, progress: Progress) -> None:
        self.entries: list[FileEntry] = []
        self.unsafe: dict[str, str] = {}
        self._source = source
        self._pool = pool
        self._crew = crew
        self._progress = progress
        self._lock = threading.Lock()

    def one(self, file: DraftFile, ring: list[bytearray]) -> None:
        """Read a file, hash it and compare it with what is listed."""
        sha256, shards, header, head = hashlib.sha256(), bytearray(), Header(file.path, file.size), b""
        ahead: deque[_Window] = deque()
        offsets = iter(range(0, file.size, _WINDOW))
        try:
            for buffer in ring:
                ahead.extend(self._fetch(file, next(offsets, None), buffer))
            while ahead and not self._crew.stopped():
                view = ahead[0].view
                shards += ahead[0].shards.result()
                head = head or bytes(view[: limits.HEAD_BYTES])
                header.take(view)
                sha256.update(view)
                self._progress.advance(len(view))
                free = ahead.popleft().buffer
                ahead.extend(self._fetch(file, next(offsets, None), free))
        finally:
            wait([window.shards for window in ahead])  # the ring is the next file's
        if self._crew.stopped():
            return
        found = Digest(sha256.hexdigest())
        if found != file.sha256:
            raise FileDigestMismatch(
                f"the registry delivered other bytes than its draft lists: {file.path}",
                expected=file.sha256, found=found,
                hint="sign nothing of it; tell the registry's operator (pqreg fsck), and push the file again",
            )  # fmt: skip
        entry = FileEntry(file.path, file.size, found, bytes(shards), header.table())
        reason = None if file.path.suffix == SAFETENSORS_SUFFIX else refusal(file.path, head)
        with self._lock:
            self.entries.append(entry)
            if reason is not None:
                self.unsafe[file.path.text] = reason

    def _fetch(self, file: DraftFile, offset: int | None, buffer: bytearray) -> tuple[_Window, ...]:
        """Begin to fetch the window at ``offset``, if there is one."""
        if offset is None:
            return ()
        view = memoryview(buffer)[: min(_WINDOW, file.size - offset)]

        def fetch() -> bytes:
            self._source.read_blob_into(file.sha256, offset, view, size=file.size)
            return shard_digests(view)

        return (_Window(buffer, view, self._pool.submit(fetch)),)
