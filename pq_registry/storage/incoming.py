# SPDX-License-Identifier: Apache-2.0
"""Bytes that are still arriving: one sparse file per upload, ``ROOT/<upload id>``.

Nothing here is believed: which parts of a file hold verified bytes is written in the catalogue, and only after the
part was synced. Order for one part: write every slice, fdatasync, then the row. A failed sync is final: the caller
gets an error, no row is written, and nobody reads the bytes back to try again.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pq_registry import durable
from pq_registry.errors import StorageError

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_BLOCK_BYTES = 512
"""What stat(2) counts in."""


def new_upload_id() -> str:
    """A fresh upload id: 32 hex digits, 128 random bits."""
    return secrets.token_hex(16)


class IncomingFile:
    """The open file of one upload."""

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        with durable.reported("open", path):
            self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` at ``offset``.

        Raises:
            StorageError: if the file system fails or takes nothing.
        """
        with durable.reported("write", self.path):
            view = memoryview(data)
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                if written == 0:
                    raise StorageError(f"cannot write {self.path}", found="nothing was written")
                view = view[written:]
                offset += written

    def resize(self, size: int) -> None:
        """Make the file ``size`` bytes long, sparse where nothing was written.

        Raises:
            StorageError: if the file system fails.
        """
        with durable.reported("write", self.path):
            os.ftruncate(self._descriptor, size)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset``; answers how many bytes there were.

        Raises:
            StorageError: if the file system fails.
        """
        with durable.reported("read", self.path):
            return os.preadv(self._descriptor, [view], offset)

    def sync(self) -> None:
        """Make what was written durable.

        Raises:
            StorageError: if the file system fails; what was written must then be taken as lost.
        """
        with durable.reported("write", self.path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Incoming:
    """The directory of unfinished uploads."""

    def __init__(self, root: Path) -> None:
        """Make the directory if it is not there.

        Raises:
            StorageError: if it cannot be made.
        """
        self.root = root
        durable.make_directory(root, 0o700)

    def path(self, upload_id: str) -> Path:
        """Where an upload's file stands.

        Raises:
            StorageError: if ``upload_id`` is not an id this service made.
        """
        if not _ID.fullmatch(upload_id):
            raise StorageError("not an upload id", expected="32 hex digits")
        return self.root / upload_id

    def create(self, upload_id: str, size: int) -> None:
        """Make a sparse file of ``size`` bytes, its name durable.

        Raises:
            StorageError: if the file system fails.
        """
        path = self.path(upload_id)
        with IncomingFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file, durable.reported("create", path):
            file.resize(size)
            file.sync()
            durable.sync_directory(self.root)

    def open(self, upload_id: str) -> IncomingFile:
        """Open an upload's file for reading and writing.

        Raises:
            StorageError: if it is not there or the file system fails.
        """
        return IncomingFile(self.path(upload_id), os.O_RDWR)

    def exists(self, upload_id: str) -> bool:
        """Whether an upload's file is there."""
        return self.path(upload_id).exists()

    def discard(self, upload_id: str) -> None:
        """Remove an upload's file, if it is there.

        Raises:
            StorageError: if the file system fails.
        """
        path = self.path(upload_id)
        with durable.reported("remove", path):
            path.unlink(missing_ok=True)

    def files(self) -> Iterator[tuple[str, datetime, int]]:
        """Every upload's file: the upload's id, when it was last written, and the room it takes.

        Raises:
            StorageError: if the file system fails.
        """
        with durable.reported("list", self.root):
            for path in sorted(self.root.iterdir()):
                try:
                    found = path.lstat()
                except FileNotFoundError:
                    continue
                if _ID.fullmatch(path.name):
                    yield path.name, datetime.fromtimestamp(found.st_mtime, UTC), found.st_blocks * _BLOCK_BYTES

    def sweep(self, known: AbstractSet[str]) -> int:
        """Remove every file that belongs to none of the ``known`` uploads; answers how many.

        Raises:
            StorageError: if the file system fails.
        """
        removed = 0
        with durable.reported("sweep", self.root):
            for path in self.root.iterdir():
                if path.name not in known:
                    path.unlink()
                    removed += 1
        return removed
