# SPDX-License-Identifier: Apache-2.0
"""Pass 1 of a sealed push: every file read once, and from the same memory everything that is said of it.

Of the plaintext its SHA-256, its shards' BLAKE3 and its tensor table; then each shard is sealed in memory, and of what
is stored later the SHA-256 and the shards' BLAKE3 again. Nothing is kept but digests, and nothing is sent.

The key is fresh: no byte was sealed under it before (``client.sealedpush``). A file has two SHA-256 chains, each in
order; the one of the plaintext runs where the file is read, the other, with the sealing, on any core that is free.
Memory is ``workers`` rings of ``_RING`` shards and their sealed forms, reused.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from pq_registry import limits
from pq_registry.client.hashing import Header
from pq_registry.client.plaintext import PlainFile, ReadInto
from pq_registry.client.progress import Progress
from pq_registry.client.work import Task, run_tasks
from pq_registry.crypto.sealing import FileSealer, SealingKey
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, shard_digest
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.sealing import SLICE_BYTES, sealed_size, stored_path

_RING = 4
_FREE: Future[None] = Future()
_FREE.set_result(None)

Pair = tuple[FileEntry, FileEntry]
"""A file in the clear, and as it is stored."""


def seal_files(
    files: Sequence[PlainFile], key: SealingKey, *, workers: int, progress: Progress
) -> tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]:
    """Hash and seal ``files``, which are sorted, in ``workers`` threads.

    Returns:
        What pqreg.inner says of each file, and what the manifest says of each stored file.

    Raises:
        SourceChanged: if a file changes meanwhile.
        FormatError: if a ``*.safetensors`` file is not one.
        PqregError: if a file cannot be read.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="pqreg-seal") as pool:
        sealing = _Sealing(key, pool, workers, progress)
        # The largest first: a large file begun last would keep one core busy and the others idle.
        order = sorted(range(len(files)), key=lambda index: -files[index].size)
        run_tasks((partial(sealing.one, index, files[index]) for index in order), workers=workers)
    pairs = [sealing.pairs[index] for index in range(len(files))]
    return tuple(plain for plain, _ in pairs), tuple(stored for _, stored in pairs)


class _Sealing:
    """Files being sealed; ``cores`` counts those that neither a file nor a shard is using."""

    def __init__(self, key: SealingKey, pool: ThreadPoolExecutor, workers: int, progress: Progress) -> None:
        self.pairs: dict[int, Pair] = {}
        self._key = key
        self._pool = pool
        self._cores = threading.Semaphore(workers)
        self._progress = progress
        self._thread = threading.local()

    def one(self, index: int, file: PlainFile) -> tuple[Task, ...]:
        """The task of sealing ``file``, whose stored name has the number ``index``."""
        with file.reading(True) as read, self._cores:
            self.pairs[index] = self._file(file, self._key.file(stored_path(index), file.size), read)
        return ()

    def _file(self, file: PlainFile, sealer: FileSealer, read: ReadInto) -> Pair:
        sha256 = hashlib.sha256()
        shards = bytearray(sealer.shard_count * SHARD_DIGEST_BYTES)
        header = Header(file.path, file.size)
        sealed = _Sealed(sealer)
        ring = self._ring()
        busy = [_FREE] * _RING
        last = _FREE
        try:
            for index in range(sealer.shard_count):
                slot = index % _RING
                busy[slot].result()
                clear = ring[slot][0][: sealer.plaintext_length(index)]
                read(clear, index * limits.SHARD_BYTES)
                header.take(clear)
                work = partial(_shard, index, clear, ring[slot][1], shards, sealed, last)
                last = busy[slot] = self._elsewhere(work)
                sha256.update(clear)
                self._progress.advance(len(clear))
        finally:
            wait(busy)  # the ring must not be written to once this returns
        for shard in busy:
            shard.result()
        plain = FileEntry(file.path, file.size, Digest(sha256.hexdigest()), bytes(shards), header.table())
        return plain, sealed.entry(file.size)

    def _elsewhere(self, work: Callable[[], None]) -> Future[None]:
        """Do it on a free core, or here if there is none."""

        def work_and_leave() -> None:
            try:
                work()
            finally:
                self._cores.release()

        if not self._cores.acquire(blocking=False):
            work()
            return _FREE
        return self._pool.submit(work_and_leave)

    def _ring(self) -> list[tuple[memoryview, memoryview]]:
        ring: list[tuple[memoryview, memoryview]] | None = getattr(self._thread, "ring", None)
        if ring is None:
            ring = [
                (memoryview(bytearray(limits.SHARD_BYTES)), memoryview(bytearray(SLICE_BYTES))) for _ in range(_RING)
            ]
            self._thread.ring = ring
        return ring


class _Sealed:
    """The stored form of one file."""

    def __init__(self, sealer: FileSealer) -> None:
        self.sealer = sealer
        self.sha256 = hashlib.sha256()
        self.shards = bytearray(sealer.shard_count * SHARD_DIGEST_BYTES)

    def entry(self, size: int) -> FileEntry:
        """What the manifest says of it."""
        digest = Digest(self.sha256.hexdigest())
        return FileEntry(self.sealer.path, sealed_size(size), digest, bytes(self.shards), sealed=True)


def _shard(
    index: int, clear: memoryview, memory: memoryview, shards: bytearray, sealed: _Sealed, before: Future[None]
) -> None:
    start, end = index * SHARD_DIGEST_BYTES, (index + 1) * SHARD_DIGEST_BYTES
    stored = memory[: len(clear) + limits.SEAL_TAG_BYTES]
    shards[start:end] = shard_digest(clear)
    sealed.sealer.seal_into(index, clear, stored)
    sealed.shards[start:end] = shard_digest(stored)
    before.result()  # one chain: the shard before this one comes first
    sealed.sha256.update(stored)
