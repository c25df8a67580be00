# SPDX-License-Identifier: Apache-2.0
"""Writing the volumes of a bundle: what goes in was verified, each shard of it in the moment it is written.

Threads fetch runs of shards ahead, each into a buffer of its own, and check them; one thread writes them in order. A
volume that is a file gets its name when it is complete and durable.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pq_registry import limits
from pq_registry.client.progress import Progress
from pq_registry.client.source import ShardSource
from pq_registry.crypto.shards import check_shard
from pq_registry.durable import make_directory, publish, reported, temporary_path
from pq_registry.errors import ShardMismatch
from pq_registry.format.bundleindex import INDEX_NAME, VOLUME_NAME, Bundle, Volume, document_name
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.format.tarstream import END, header, padding

Write = Callable[[bytes | memoryview], object]
_Piece = tuple[FileEntry, int, int]


class VolumeWriter:
    """Writes the volumes of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        documents: Mapping[str, bytes],
        files: Mapping[Digest, FileEntry],
        source: ShardSource,
        *,
        connections: int,
        progress: Progress,
    ) -> None:
        """Nothing is written yet.

        Args:
            bundle: the layout.
            documents: by role.
            files: of the manifest, by content.
            source: delivers their bytes; aborted if writing fails, and left for the caller to close.
            connections: threads that fetch.
            progress: told of every byte of content.
        """
        self._bundle = bundle
        self._documents = [documents[document.role] for document in bundle.documents]
        self._files = files
        self._source = source
        self._connections = connections
        self._progress = progress
        self._index = bundle.encode()
        self.id = Digest.of(self._index)

    def write(self, number: int, write: Write) -> int:
        """Write volume ``number``, from 1, by ``write``, which takes everything it is given; answers its size.

        Raises:
            ContentError: if the source has other bytes than were signed.
            PqregError: what the source raises.
            OSError: what ``write`` raises.
        """
        written = 0

        def put(data: bytes | memoryview) -> None:
            nonlocal written
            write(data)
            written += len(data)

        def member(name: str, data: bytes) -> None:
            put(header(name, len(data)))
            put(data)
            put(bytes(padding(len(data))))

        member(INDEX_NAME, self._index)
        member(VOLUME_NAME, Volume(self.id, number).encode())
        for position, data in enumerate(self._documents):
            member(document_name(position), data)
        segments = self._bundle.volumes[number - 1]
        pieces = [
            (self._files[segment.blob], first, min(first + limits.RANGE_SHARDS, segment.first + segment.shards))
            for segment in segments
            for first in range(segment.first, segment.first + segment.shards, limits.RANGE_SHARDS)
        ]
        with contextlib.closing(read_ahead(self._source, pieces, self._connections)) as views:
            for segment in segments:
                put(header(segment.name, segment.size))
                left = segment.size
                while left:
                    view = next(views)
                    put(view)
                    self._progress.advance(len(view))
                    left -= len(view)
                put(bytes(padding(segment.size)))
        put(END)
        return written


def read_ahead(source: ShardSource, pieces: Iterable[_Piece], connections: int) -> Generator[memoryview, None, None]:
    """Runs of shards in order, verified; each view is good until the next is asked for.

    Raises:
        ContentError: if a shard stays wrong.
        PqregError: what the source raises.
    """
    free = [memoryview(bytearray(limits.RANGE_SHARDS * SLICE_BYTES)) for _ in range(connections + 1)]
    pending: deque[tuple[Future[memoryview], memoryview]] = deque()

    def taken() -> Iterator[memoryview]:
        future, buffer = pending.popleft()
        yield future.result()
        free.append(buffer)

    with ThreadPoolExecutor(connections, thread_name_prefix="pqreg-bundle") as pool:
        try:
            for piece in pieces:
                if not free:
                    yield from taken()
                buffer = free.pop()
                pending.append((pool.submit(_fetch, source, piece, buffer), buffer))
            while pending:
                yield from taken()
        except BaseException:
            # Also when nobody wants more. Those who fetch for nothing are woken, or the pool would wait for them.
            if pending:
                source.abort()
            for future, _ in pending:
                future.cancel()
            raise


def _fetch(source: ShardSource, piece: _Piece, buffer: memoryview) -> memoryview:
    entry, first, end = piece
    base = first * entry.slice_size
    view = buffer[: min(end * entry.slice_size, entry.size) - base]
    source.read_into(entry, base, view)
    for index in range(first, end):
        offset, length = entry.shard_range(index)
        shard = view[offset - base : offset - base + length]
        for attempt in range(1, limits.ATTEMPTS + 1):
            try:
                check_shard(entry.shard_digest(index), shard, path=entry.path, index=index)
                break
            except ShardMismatch:
                if attempt == limits.ATTEMPTS:
                    raise
                source.read_into(entry, offset, shard)
    return view


@contextlib.contextmanager
def volume_file(path: Path) -> Iterator[Write]:
    """A file that gets its name when the body ends well, and durably; what stands there is not replaced.

    Raises:
        AlreadyExists: if there is a file of this name.
        StorageError: if the disk fails or is full; nothing is left then.
    """
    make_directory(path.parent)
    temporary = temporary_path(path)
    with reported("write", path):
        try:
            with temporary.open("xb", buffering=0) as file:
                yield _writing_all(file.fileno())
                os.fsync(file.fileno())
            publish(temporary, path, replace=False)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _writing_all(descriptor: int) -> Write:
    def write(data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    return write


def stream_writer(descriptor: int) -> Write:
    """Writes to a pipe or file that is open already, such as standard output; OSErrors pass."""
    return _writing_all(descriptor)
