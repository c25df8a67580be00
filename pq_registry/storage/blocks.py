# SPDX-License-Identifier: Apache-2.0
"""Where the bytes of xorbs are until files are made of them.

They arrive in a file of this instance's, ``DIR/xorbs/<id>``. With blobs in a directory that is where they stay: there
is one instance then. With an object store they go there, under their SHA-256 and id as any upload does
(``storage.blobs``), so that every instance can read them. Nothing here is made durable: what a crash of the machine
costs is sent again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pq_registry import durable, limits
from pq_registry.errors import NotFound
from pq_registry.storage.blobs import BlobReader, BlobStore, StoredBlob
from pq_registry.storage.incoming import Incoming, IncomingFile
from pq_registry.storage.local import LocalBlobReader, LocalBlobStore


class Blocks:
    """Xorbs in ``arriving``, and from there in ``blobs`` if that is an object store."""

    def __init__(self, arriving: Incoming, blobs: BlobStore) -> None:
        self._arriving = arriving
        self._store = None if isinstance(blobs, LocalBlobStore) else blobs

    def begin(self, block_id: str) -> IncomingFile:
        """A file for the bytes that arrive.

        Raises:
            StorageError: if the file system fails.
        """
        return IncomingFile(self._arriving.path(block_id), os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def keep(self, block: StoredBlob, size: int) -> None:
        """All bytes have arrived.

        Raises:
            StorageError: if the store fails.
        """
        if self._store is None:
            return
        self._store.write(block, self._chunks(block, size), size=size)
        self._arriving.discard(block.copy)

    def open(self, block: StoredBlob, size: int) -> BlobReader:
        """Open a xorb for reading.

        Raises:
            NotFound: if it is not there any more.
            StorageError: if the store fails.
        """
        if self._store is not None:
            return self._store.open(block, size=size)
        path = self._arriving.path(block.copy)
        with durable.reported("open", path):
            try:
                return LocalBlobReader(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), path)
            except FileNotFoundError:
                raise NotFound(f"no xorb {block.copy}") from None

    def remove(self, block: StoredBlob) -> None:
        """Remove a xorb; one that is not there is no failure.

        Raises:
            StorageError: if the store fails.
        """
        self._arriving.discard(block.copy)
        if self._store is not None:
            self._store.remove(block)

    def sweep(self, known: frozenset[str]) -> None:
        """At the start: remove files no row knows of. An instance of several has none that is worth keeping.

        Raises:
            StorageError: if the file system fails.
        """
        self._arriving.sweep(known if self._store is None else frozenset())

    def _chunks(self, block: StoredBlob, size: int) -> Iterator[bytes]:
        with self._arriving.open(block.copy) as file:
            buffer = memoryview(bytearray(min(limits.XORB_PIECE_BYTES, size)))
            offset = 0
            while offset < size:
                count = file.read_into(offset, buffer)
                if not count:
                    return  # shorter than it was: the store refuses what is not whole
                yield bytes(buffer[:count])
                offset += count
