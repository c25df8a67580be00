# SPDX-License-Identifier: Apache-2.0
"""Pass 1 of a push: every file read once, and from the same bytes its SHA-256, its shards' BLAKE3 and its tensor table.

A file's SHA-256 is one chain, so it needs one core from start to end; its shards are independent. Each file in work
therefore holds one of the ``workers`` cores, and a shard's BLAKE3 goes to another core whenever one is free: one large
file keeps two busy, many files keep all of them busy. Buffers are ``workers`` rings of ``_RING`` shards, reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from pq_registry import limits
from pq_registry.client.progress import Progress
from pq_registry.client.scan import SourceDirectory, SourceFile, check_untouched, read_exactly
from pq_registry.client.work import Task, run_tasks
from pq_registry.crypto.shards import SHARD_DIGEST_BYTES, shard_count, shard_digest
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import SAFETENSORS_SUFFIX, FileEntry, TensorTable
from pq_registry.format.path import ReleasePath
from pq_registry.format.safetensors import LENGTH_BYTES, header_size, parse_header

_RING = 4
_FREE: Future[None] = Future()
_FREE.set_result(None)


def hash_files(
    source: SourceDirectory, files: Iterable[SourceFile], *, workers: int, progress: Progress
) -> tuple[FileEntry, ...]:
    """Hash ``files`` in ``workers`` threads.

    Returns:
        What the manifest says of each file, by code point of the path.

    Raises:
        SourceChanged: if a file changes meanwhile.
        FormatError: if a ``*.safetensors`` file is not one.
        StorageError: if a file cannot be read.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="pqreg-blake3") as pool:
        hashing = _Hashing(source, pool, workers, progress)
        # The largest first: a large file begun last would keep one core busy and the others idle.
        tasks = (partial(hashing.one, file) for file in sorted(files, key=lambda file: -file.size))
        run_tasks(tasks, workers=workers)
    return tuple(sorted(hashing.entries, key=lambda entry: entry.path))


class _Hashing:
    """Files being hashed: ``cores`` counts those that neither a file nor a shard is using."""

    def __init__(self, source: SourceDirectory, pool: ThreadPoolExecutor, workers: int, progress: Progress) -> None:
        self.entries: list[FileEntry] = []
        self._source = source
        self._pool = pool
        self._cores = threading.Semaphore(workers)
        self._progress = progress
        self._thread = threading.local()

    def one(self, file: SourceFile) -> tuple[Task, ...]:
        """The task of hashing ``file``."""
        descriptor = self._source.open(file)
        try:
            with self._cores:
                entry = self._read(file, descriptor)
            check_untouched(file, descriptor)
        finally:
            os.close(descriptor)
        self.entries.append(entry)
        return ()

    def _read(self, file: SourceFile, descriptor: int) -> FileEntry:
        sha256 = hashlib.sha256()
        shards = bytearray(shard_count(file.size) * SHARD_DIGEST_BYTES)
        header = Header(file.path, file.size)
        ring = self._ring()
        busy = [_FREE] * _RING
        try:
            for index, offset in enumerate(range(0, file.size, limits.SHARD_BYTES)):
                slot = index % _RING
                busy[slot].result()
                view = ring[slot][: min(limits.SHARD_BYTES, file.size - offset)]
                read_exactly(file, descriptor, view, offset)
                header.take(view)
                busy[slot] = self._elsewhere(shards, index, view)
                sha256.update(view)
                self._progress.advance(len(view))
        finally:
            wait(busy)  # the ring and ``shards`` must not be written to once this returns
        for shard in busy:
            shard.result()
        return FileEntry(file.path, file.size, Digest(sha256.hexdigest()), bytes(shards), header.table())

    def _elsewhere(self, shards: bytearray, index: int, view: memoryview) -> Future[None]:
        """Hash a shard on a free core, or here if there is none."""
        start = index * SHARD_DIGEST_BYTES

        def store() -> None:
            shards[start : start + SHARD_DIGEST_BYTES] = shard_digest(view)

        def store_and_leave() -> None:
            try:
                store()
            finally:
                self._cores.release()

        if not self._cores.acquire(blocking=False):
            store()
            return _FREE
        return self._pool.submit(store_and_leave)

    def _ring(self) -> list[memoryview]:
        ring: list[memoryview] | None = getattr(self._thread, "ring", None)
        if ring is None:
            ring = [memoryview(bytearray(limits.SHARD_BYTES)) for _ in range(_RING)]
            self._thread.ring = ring
        return ring


class Header:
    """Collects the header of a safetensors file from the bytes that are being hashed, and from nowhere else."""

    def __init__(self, path: ReleasePath, size: int) -> None:
        self._path = path
        self._size = size
        self._bytes = bytearray()
        self._needed = LENGTH_BYTES if path.suffix == SAFETENSORS_SUFFIX else 0

    def take(self, view: memoryview) -> None:
        """The next bytes of the file."""
        while len(self._bytes) < self._needed and len(view):
            part = view[: self._needed - len(self._bytes)]
            self._bytes += part
            view = view[len(part) :]
            if len(self._bytes) == LENGTH_BYTES:
                with about(self._path):
                    self._needed = header_size(bytes(self._bytes), self._size)

    def table(self) -> TensorTable | None:
        """The tensor table, or None for a file of another kind."""
        if not self._needed:
            return None
        with about(self._path):
            return parse_header(bytes(self._bytes), self._size)


@contextlib.contextmanager
def about(path: ReleasePath) -> Iterator[None]:
    """Name the file in a complaint about its header."""
    try:
        yield
    except FormatError as error:
        raise FormatError(
            f"{path.text!r} is not a sound safetensors file: {error.message}",
            expected=error.expected,
            found=error.found,
            hint="save it again with the safetensors library, or move it out of the directory",
        ) from None
