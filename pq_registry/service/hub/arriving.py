# SPDX-License-Identifier: Apache-2.0
"""A xorb on its way in: unpacked as it comes, written as it is unpacked, known once it was found to be what it says."""

from __future__ import annotations

import hashlib

from pq_registry.format.digest import Digest
from pq_registry.service.hub.xorb import XorbDecoder
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.incoming import new_upload_id


class ArrivingXorb:
    """Takes the ``announced`` packed bytes of the xorb ``name``. Used from one thread at a time; always closed."""

    def __init__(self, blocks: Blocks, name: str, announced: int) -> None:
        """Make its file.

        Raises:
            StorageError: if the file system fails.
        """
        self.name = name
        self.announced = announced
        self.is_known = False
        """Set once the catalogue knows it: its bytes then stay."""
        self._blocks = blocks
        self._id = new_upload_id()
        self._decoder = XorbDecoder()
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._file = blocks.begin(self._id)

    def write(self, data: bytes | bytearray) -> None:
        """Take the next piece.

        Raises:
            FormatError: if it is no xorb, or exceeds a bound.
            StorageError: if the file system fails.
        """
        for chunk in self._decoder.feed(data):
            self._sha256.update(chunk)
            self._file.write(self._size, chunk)
            self._size += len(chunk)

    def finish(self) -> tuple[StoredBlob, int, list[int]]:
        """All has arrived: where it is stored, its length unpacked, and where its chunks end.

        Raises:
            FormatError: if it is another xorb than it was announced as, or not whole.
            StorageError: if the store fails.
        """
        self._decoder.finish(self.name)
        self._file.close()
        block = self._block()
        self._blocks.keep(block, self._size)
        return block, self._size, self._decoder.ends

    def close(self) -> None:
        """Give up the file, and the bytes unless they are known.

        Raises:
            StorageError: if the store fails.
        """
        self._file.close()
        if not self.is_known:
            self._blocks.remove(self._block())

    def _block(self) -> StoredBlob:
        return StoredBlob(Digest(self._sha256.hexdigest()), self._id)
