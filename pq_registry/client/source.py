# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of a release come from: a registry, or a directory.

A source delivers bytes and promises nothing about them: whoever reads checks each shard in its own buffer before it
uses a byte of it, so a file that is replaced after it was verified changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from pq_registry.client.directory import ReleaseDirectory, short_file
from pq_registry.client.progress import ignored
from pq_registry.durable import reported
from pq_registry.errors import ConnectionFailed
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry

if TYPE_CHECKING:
    # Reading a directory needs no network, and is to start fast.
    from pq_registry.client.ranges import RangeReader
    from pq_registry.client.transport import RegistryClient


class ShardSource(Protocol):
    """Delivers ranges of a release's files, to any number of threads."""

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` from ``offset`` of ``file``; unverified.

        Args:
            file: the file, as its manifest lists it.
            offset: of the first byte.
            view: where the bytes go; ``offset + len(view)`` is at most the file's size.
            arrived: told how many more bytes are in ``view``, in this thread, while they come.

        Raises:
            PqregError: if the bytes cannot be had.
        """

    def abort(self) -> None:
        """End every read under way in other threads; the source is unusable afterwards."""

    def close(self) -> None:
        """Release connections and descriptors, once no thread reads any more."""


class RemoteSource:
    """The blobs of a registry. Each thread that reads gets a connection of its own."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._readers: list[RangeReader] = []
        self._mine = threading.local()
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` by one ranged request. Raises PqregError."""
        self.read_blob_into(file.sha256, offset, view, size=file.size, arrived=arrived)

    def read_blob_into(
        self,
        digest: Digest,
        offset: int,
        view: memoryview,
        *,
        size: int,
        arrived: Callable[[int], None] = ignored,
    ) -> None:
        """The same of a blob of ``size`` bytes of which no more is known. Raises PqregError."""
        from pq_registry.client.transport import blob_path

        self._reader().read_into(blob_path(digest), offset, view, size=size, arrived=arrived)

    def abort(self) -> None:
        """End every read under way."""
        with self._lock:
            self._aborted = True
            readers = list(self._readers)
        for reader in readers:
            reader.abort()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            readers, self._readers = self._readers, []
            self._mine = threading.local()
        for reader in readers:
            reader.close()

    def _reader(self) -> RangeReader:
        reader: RangeReader | None = getattr(self._mine, "reader", None)
        if reader is None:
            from pq_registry.client.ranges import RangeReader

            with self._lock:
                if self._aborted:
                    raise ConnectionFailed("the transfer was interrupted")
                reader = RangeReader(self._client.exchanger)
                self._readers.append(reader)
            self._mine.reader = reader
        return reader


class DirectorySource:
    """A release directory. Each thread keeps the file it read last open."""

    def __init__(self, directory: ReleaseDirectory | Path) -> None:
        """Read from ``directory``; one that is given open is left open.

        Raises:
            UsageError: if there is no directory.
            StorageError: if it cannot be opened.
        """
        self._owned = not isinstance(directory, ReleaseDirectory)
        self._directory = directory if isinstance(directory, ReleaseDirectory) else ReleaseDirectory(directory)
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._mine = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` from the file. Raises FileSetMismatch if it is not there or too short, or StorageError."""
        descriptor = self._descriptor(file)
        done = 0
        with reported("read", file.path.under(self._directory.path)):
            while done < len(view):
                count = os.preadv(descriptor, [view[done:]], offset + done)
                if not count:
                    raise short_file(file, offset + done)
                done += count
                arrived(count)

    def abort(self) -> None:
        """Reads of a file end by themselves."""

    def close(self) -> None:
        """Close the files, and the directory if it was opened here."""
        with self._lock:
            descriptors, self._open = self._open, set()
            self._mine = threading.local()
        for descriptor in descriptors:
            os.close(descriptor)
        if self._owned:
            self._directory.close()

    def _descriptor(self, file: FileEntry) -> int:
        last: tuple[str, int] | None = getattr(self._mine, "last", None)
        if last is not None and last[0] == file.path.text:
            return last[1]
        if last is not None:
            del self._mine.last
            with self._lock:
                self._open.discard(last[1])
            os.close(last[1])
        descriptor = self._open_file(file)
        with self._lock:
            self._open.add(descriptor)
        self._mine.last = (file.path.text, descriptor)
        return descriptor

    def _open_file(self, file: FileEntry) -> int:
        return self._directory.open(file)
