# SPDX-License-Identifier: Apache-2.0
"""Pass 2 of a push: what the registry misses is read again, compared with the plan, and sent.

* A part is sent only if every shard in it still has the digest the plan says. A file that was altered since pass 1
  ends the push; nothing of the release is visible then, because only the commit makes it so.
* Parts go to the registry, which verifies them on arrival, or, if it says so, straight to its storage (``sending``).
* Which parts are there is asked when an upload is opened or resumed, and again before a part is sent a second time: a
  part that arrived and whose acknowledgement was lost is not sent again.
* What went to storage is verified when it is complete. That may take a while, in which the registry is asked again and
  again how far it is.
* Blobs go up in parallel, and so do the parts of one blob; ``connections`` parts are in memory at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from pq_registry import limits
from pq_registry.client.answers import Upload
from pq_registry.client.progress import Progress
from pq_registry.client.scan import SourceDirectory, SourceFile, changed, read_exactly
from pq_registry.client.sending import Patience, StorageSender
from pq_registry.client.transport import RegistryClient
from pq_registry.client.verifyprogress import VerifyingProgress
from pq_registry.client.work import Task, run_tasks
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, shard_digests
from pq_registry.errors import (
    Conflict,
    NotFound,
    OriginNotAllowed,
    ResponseInvalid,
    ServerRefused,
    SourceChanged,
    TransportError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry
from pq_registry.format.name import RepositoryName


@dataclass(frozen=True, slots=True)
class Blob:
    """Something to send, as the plan describes it.

    ``read`` fills a view from an offset; ``changed`` makes the error for content that is not the plan's any more.
    """

    digest: Digest
    size: int
    shards: bytes
    read: Callable[[memoryview, int], None]
    changed: Callable[[str], SourceChanged]
    slice_size: int = limits.SHARD_BYTES


def file_blob(source: SourceDirectory, file: SourceFile, entry: FileEntry) -> Blob:
    """A file of the directory."""

    def read(view: memoryview, offset: int) -> None:
        descriptor = source.open(file)
        try:
            read_exactly(file, descriptor, view, offset)
        finally:
            os.close(descriptor)

    return Blob(entry.sha256, entry.size, entry.shards, read, partial(changed, file))


def manifest_blob(data: bytes) -> Blob:
    """The manifest, which exists in the plan only."""

    def read(view: memoryview, offset: int) -> None:
        view[:] = data[offset : offset + len(view)]

    return Blob(
        Digest.of(data), len(data), shard_digests(data), read, lambda how: SourceChanged(f"{MANIFEST_NAME}: {how}")
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """What an upload did: bytes sent now, bytes an earlier push had sent, bytes of blobs the registry already had."""

    sent: int
    resumed: int
    present: int


def upload_missing(
    client: RegistryClient,
    repository: RepositoryName,
    blobs: Iterable[Blob],
    *,
    connections: int,
    progress: Progress,
) -> Sent:
    """Send every blob the registry misses.

    Raises:
        SourceChanged: if a file is not what the plan says any more.
        PqregError: what ``RegistryClient`` raises, or StorageError if a file cannot be read.
    """
    by_digest = {blob.digest: blob for blob in blobs}  # files of equal content are one blob
    wanted: frozenset[Digest] = frozenset()
    for slice_size in {blob.slice_size for blob in by_digest.values()}:
        alike = [digest for digest, blob in by_digest.items() if blob.slice_size == slice_size]
        wanted |= client.missing(repository, alike, slice_size)
    missing = [blob for digest, blob in by_digest.items() if digest in wanted]
    total = sum(blob.size for blob in missing)
    uploader = _Uploader(client, repository, progress, total)
    progress.start(f"send {repository}", total)
    try:
        run_tasks((partial(uploader.open, blob) for blob in missing), workers=connections)
    except KeyboardInterrupt:
        client.abort()
        uploader.storage.abort()  # threads may still be sending
        raise
    except BaseException:
        uploader.storage.close()
        raise
    finally:
        progress.done()
    uploader.storage.close()
    present = sum(blob.size for digest, blob in by_digest.items() if digest not in wanted)
    return Sent(uploader.sent, total - uploader.sent, present)


@dataclass(slots=True)
class _Open:
    """An upload in work; ``left`` counts the parts that are not verified yet."""

    blob: Blob
    id: str
    part_size: int
    is_direct: bool
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)

    def part_done(self) -> bool:
        """Count a part as verified; whether it was the last one."""
        with self.lock:
            self.left -= 1
            return self.left == 0


class _Uploader:
    """The tasks of one pass 2."""

    def __init__(self, client: RegistryClient, repository: RepositoryName, progress: Progress, total: int) -> None:
        self.sent = 0
        self.storage = StorageSender(client.exchanger)
        self._client = client
        self._repository = repository
        self._progress = VerifyingProgress(progress, f"verify {repository}", total)
        self._lock = threading.Lock()
        self._thread = threading.local()

    def open(self, blob: Blob) -> list[Task]:
        """Open or resume an upload; brings its parts."""
        upload = self._client.open_upload(self._repository, blob.digest, blob.size, blob.slice_size)
        count = _part_count(blob, upload)
        numbers = [number for number in range(count) if number not in upload.parts]
        opened = _Open(blob, upload.id, upload.part_size, upload.is_direct, len(numbers))
        self._progress.advance(blob.size - sum(_part_length(opened, number) for number in numbers))
        if not numbers:
            return [partial(self._complete, opened)]
        return [partial(self._part, opened, number) for number in numbers]

    def _part(self, upload: _Open, number: int) -> list[Task]:
        """Read, compare and send one part; the last brings the completion."""
        offset = number * upload.part_size
        view = self._buffer(upload.part_size)[: _part_length(upload, number)]
        upload.blob.read(view, offset)
        shards = shard_digests(view, upload.blob.slice_size)
        start = offset // upload.blob.slice_size * SHARD_DIGEST_BYTES
        if shards != upload.blob.shards[start : start + len(shards)]:
            raise upload.blob.changed(f"bytes {offset} to {offset + len(view)} are not what was hashed before")
        if not self._send(upload, number, view, shards):
            return []
        self._progress.advance(len(view))
        return [partial(self._complete, upload)] if upload.part_done() else []

    def _send(self, upload: _Open, number: int, view: memoryview, shards: bytes) -> bool:
        """Send a part until the registry has it; False if another push finished the whole upload meanwhile."""
        patience = Patience()
        sha256 = Digest.of(view) if upload.is_direct else None
        while True:
            try:
                if patience.pause:
                    self._client.exchanger.sleep(patience.pause)
                    if patience.unsure and number in self._client.upload_status(self._repository, upload.id).parts:
                        return True
                if sha256 is None:
                    self._client.put_part(self._repository, upload.id, number, view, shards)
                else:
                    self.storage.put(self._client.sign_part(self._repository, upload.id, number, sha256), view)
            except NotFound:
                self._expect_finished(upload)
                return False
            except OriginNotAllowed:
                raise
            except (Conflict, TransportError) as error:
                patience.spend(error)
            else:
                with self._lock:
                    self.sent += len(view)
                return True

    def _complete(self, upload: _Open) -> list[Task]:
        """Have the registry check the whole blob and keep it."""
        furthest, since = -1, time.monotonic()
        while True:
            try:
                outcome = self._client.complete_upload(self._repository, upload.id)
            except NotFound:
                self._expect_finished(upload)
                return []
            if isinstance(outcome, Digest):
                break
            now = time.monotonic()
            if outcome.verified > furthest:
                furthest, since = outcome.verified, now
            elif now - since > limits.VERIFYING_PATIENCE_SECONDS:
                raise ServerRefused(
                    "the registry does not come any further with verifying an upload",
                    found=f"{furthest} of {outcome.size} bytes since {limits.VERIFYING_PATIENCE_SECONDS} seconds",
                    hint="run the same push again; it goes on from what the registry has",
                )
            self._progress.verified(upload.id, outcome)
            self._client.exchanger.sleep(limits.VERIFYING_POLL_SECONDS)
        if outcome != upload.blob.digest:
            raise ResponseInvalid(
                "the registry completed another blob than was sent", expected=upload.blob.digest, found=outcome
            )
        self._progress.completed(upload.id, upload.blob.size)
        return []

    def _expect_finished(self, upload: _Open) -> None:
        # The upload is gone: completed, by a request whose answer was lost or by another push, or swept as idle.
        if self._client.missing(self._repository, [upload.blob.digest], upload.blob.slice_size):
            raise NotFound(
                f"the registry dropped the upload of {upload.blob.digest}",
                hint="run the same push again; it goes on from what the registry has",
            )

    def _buffer(self, size: int) -> memoryview:
        buffer: bytearray = getattr(self._thread, "buffer", bytearray())
        if len(buffer) < size:
            self._thread.buffer = buffer = bytearray(size)
        return memoryview(buffer)


def _part_length(upload: _Open, number: int) -> int:
    return min(upload.part_size, upload.blob.size - number * upload.part_size)


def _part_count(blob: Blob, upload: Upload) -> int:
    """How many parts the registry wants; each is held in memory, so it may not ask for any size it likes."""
    largest = max(limits.PART_BYTES, 2 * -(-blob.size // limits.PARTS))
    if upload.part_size % blob.slice_size or not 0 < upload.part_size <= largest + limits.PART_BYTES:
        raise ResponseInvalid(
            "the registry wants parts of an impossible size",
            expected=f"a multiple of {blob.slice_size} up to {largest + limits.PART_BYTES}",
            found=upload.part_size,
        )
    return -(-blob.size // upload.part_size)
