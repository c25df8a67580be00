# SPDX-License-Identifier: Apache-2.0
"""Files on their way to disk: under a name that means nothing to anyone, until every byte of them is verified.

A staged file is ``.pqreg/incoming/<hex SHA-256>`` beside its destination, on the same file system, in a directory only
its owner can enter. It holds verified shards at their offsets and holes between them; there is no journal. After a
crash its shards are hashed again, and those that are right are not fetched again.

SHA-256 is one chain from the first byte to the last, but shards arrive in any order. Whichever thread completes the
shard the chain waits for takes the chain over: it hashes that shard from memory and those behind it, which came
earlier, from the page cache. So the chain costs no thread of its own and keeps no connection waiting for long.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from pq_registry import limits
from pq_registry.client.content import Head, check_whole
from pq_registry.client.tree import READ, Tree, read_fully, write_fully
from pq_registry.crypto.shards import shard_digest
from pq_registry.durable import reported, start_writeback, storage_error
from pq_registry.errors import StorageError
from pq_registry.format.manifest import FileEntry

HOUSE = ".pqreg"
INCOMING = (HOUSE, "incoming")


class Staging:
    """The directory of staged files below a destination."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.path = tree.path.joinpath(*INCOMING)

    def create(self) -> None:
        """Make the directory, for its owner only, and remove copies that an interrupted pull left.

        Raises:
            StorageError: if it cannot be made, or something else stands there.
        """
        with reported("create the directory", self.path), self.tree.directory(INCOMING, create=True) as descriptor:
            os.fchmod(descriptor, 0o700)
        with reported("remove", self.path):
            for item in list(self.tree.walk(below=INCOMING)):
                if "." in item.text.removeprefix("/".join(INCOMING)):  # a copy is cheaper to make again than to check
                    self.tree.unlink(tuple(item.text.split("/")))

    def copy_name(self, entry: FileEntry, number: int) -> str:
        """The name of a copy of the staged file of ``entry``; an interrupted pull's copies are not kept."""
        return f"{entry.sha256.hex}.{number}"

    def holds(self, entry: FileEntry) -> bool:
        """Whether there is something staged under the name of ``entry``."""
        return self.tree.status((*INCOMING, entry.sha256.hex)) is not None

    def open(self, entry: FileEntry, copy: str | None = None) -> int:
        """A descriptor of the staged file of ``entry``, or a copy, made if it is not there, in its final size."""
        name = (*INCOMING, copy or entry.sha256.hex)
        path = self.path / name[-1]
        with reported("write", path):
            status = self.tree.status(name)
            # Whatever we did not make ourselves is not written through: a link, or a second name of another file.
            if status is not None and not (
                stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
            ):
                self.tree.unlink(name)
            descriptor = self.tree.open(name, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                    raise StorageError(f"{path} was replaced while it was opened", hint="see who else writes there")
                if status.st_size != entry.size:
                    os.ftruncate(descriptor, entry.size)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def discard(self, entry: FileEntry) -> None:
        """Remove the staged file of ``entry``."""
        with reported("remove", self.path / entry.sha256.hex):
            self.tree.unlink((*INCOMING, entry.sha256.hex))

    def clear(self) -> None:
        """Remove everything staged, and the directories if nothing else is in them."""
        with reported("remove", self.path):
            for item in list(self.tree.walk(below=INCOMING)):
                self.tree.unlink(tuple(item.text.split("/")))
        self.tree.prune(INCOMING)


class StagedFile:
    """One staged file: which of its shards are there, and how far its SHA-256 has come. For any number of threads."""

    def __init__(self, staging: Staging, entry: FileEntry) -> None:
        self.entry = entry
        self.missing = entry.shard_count
        self._staging = staging
        self._path: Path = staging.path / entry.sha256.hex
        self._descriptor = -1
        self._present = bytearray(entry.shard_count)
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._head = Head(entry)
        self._frontier = 0
        self._hashing = False

    @property
    def missing_bytes(self) -> int:
        """How much is still to be fetched."""
        count = self.entry.shard_count
        if not self.missing or self._present[count - 1]:
            return self.missing * self.entry.slice_size
        return (self.missing - 1) * self.entry.slice_size + self.entry.shard_range(count - 1)[1]

    def open(self) -> None:
        """Open the file; StorageError if that fails."""
        self._descriptor = self._staging.open(self.entry)

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def restore(self, buffer: memoryview, advance: Callable[[int], None], stopped: Callable[[], bool]) -> None:
        """Find the shards an interrupted transfer left, by hashing what is there."""
        with reported("read", self._path):
            index = 0
            while (index := self._next_written(index)) < self.entry.shard_count and not stopped():
                view = self._reread(index, buffer)
                if shard_digest(view) == self.entry.shard_digest(index):
                    self._present[index] = 1
                    self.missing -= 1
                    advance(len(view))
                    if index == self._frontier:
                        self._hash(view)
                index += 1

    def lacks(self, index: int) -> bool:
        """Whether a shard is still to be had."""
        return not self._present[index]

    def gaps(self) -> list[tuple[int, int]]:
        """Runs of shards still to be fetched, each of at most ``limits.RANGE_SHARDS``: first, and one past the last."""
        runs: list[tuple[int, int]] = []
        for index in range(self.entry.shard_count):
            if self._present[index]:
                continue
            if runs and runs[-1][1] == index and index - runs[-1][0] < limits.RANGE_SHARDS:
                runs[-1] = (runs[-1][0], index + 1)
            else:
                runs.append((index, index + 1))
        return runs

    def put(self, index: int, view: memoryview, scratch: memoryview) -> bool:
        """Write a verified shard.

        Args:
            index: of the shard, which was missing.
            view: its bytes.
            scratch: another shard's worth of memory, overwritten.

        Returns:
            Whether the file is now complete and its SHA-256 computed; true for one call only.

        Raises:
            StorageError: if it cannot be written, or earlier shards cannot be read back.
        """
        offset, length = self.entry.shard_range(index)
        with reported("write", self._path):
            write_fully(self._descriptor, view[:length], offset)
        if (index + 1) % limits.RANGE_SHARDS == 0:
            # The disk works while the network does; shards of this run that are not there yet do no harm.
            run = limits.RANGE_SHARDS * limits.SHARD_BYTES
            start_writeback(self._descriptor, offset + length - run, run)
        with self._lock:
            self._present[index] = 1
            self.missing -= 1
            if self._hashing or not self._present[self._frontier]:
                return False
            self._hashing = True
        with reported("read", self._path):
            for caught_up in range(1, self.entry.shard_count + 1):
                position = self._frontier
                self._hash(view[:length] if position == index else self._reread(position, scratch))
                with self._lock:
                    complete = self._frontier == self.entry.shard_count
                    # While there is something to fetch, a thread does not hash others' shards for long.
                    tired = self.missing > 0 and caught_up >= limits.RANGE_SHARDS
                    if complete or tired or not self._present[self._frontier]:
                        self._hashing = False
                        break
        return complete

    def finish(self) -> None:
        """Check the complete file as a whole and make its content durable.

        Raises:
            FileDigestMismatch: step 8.
            TensorTableMismatch: step 8.
            StorageError: if it cannot be made durable; then the staged file is gone, because after a failed fsync
                the page cache may show bytes the disk does not have.
        """
        check_whole(self.entry, self._sha256.hexdigest(), self._head)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.close()
            self._staging.discard(self.entry)
            raise storage_error("write", self._path, error) from error

    def _hash(self, view: memoryview) -> None:
        self._sha256.update(view)
        self._head.take(view)
        self._frontier += 1

    def _reread(self, index: int, buffer: memoryview) -> memoryview:
        offset, length = self.entry.shard_range(index)
        if read_fully(self._descriptor, buffer[:length], offset) != length:
            raise StorageError(f"{self._path} became shorter", hint="see who else writes there")
        return buffer[:length]

    def _next_written(self, index: int) -> int:
        """The first shard at or after ``index`` that is not wholly a hole, where the file system can tell."""
        offset = index * self.entry.slice_size
        if offset >= self.entry.size:
            return self.entry.shard_count
        seek_data = getattr(os, "SEEK_DATA", None)  # not on every platform
        if seek_data is None:
            return index
        try:
            return os.lseek(self._descriptor, offset, seek_data) // self.entry.slice_size
        except OSError as error:
            # ENXIO: nothing but a hole up to the end. Any other error says nothing about holes, so all may be data.
            return self.entry.shard_count if error.errno == errno.ENXIO else index


def open_kept(tree: Tree, parts: tuple[str, ...], entry: FileEntry) -> int | None:
    """A descriptor of a file that may already be the one wanted: regular and of its size; None otherwise."""
    try:
        descriptor = tree.open(parts, READ)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size == entry.size:
        return descriptor
    os.close(descriptor)
    return None
