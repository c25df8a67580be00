# SPDX-License-Identifier: Apache-2.0
"""Stored shards on the node's disk: what was fetched once and verified is read from here the next time.

::

    CACHE/lock                                 held by the gateway that uses it
    CACHE/<sha256>-<size>-<slice size>.shards  a stored file's shards where they stand in it, the others are holes
    CACHE/<sha256>-<size>-<slice size>.have    one byte per shard: 1 if it is there

The size is in the name because a manifest may claim the SHA-256 of another one's file, which nobody checks here.
Stored bytes, so what is sealed stays sealed. Nothing here is believed: every shard is verified again whenever it is
read, and one that is wrong is dropped and fetched anew. So nothing is synced either: after a crash a shard may be
missing or torn, which is the same as wrong. A disk that is full or fails costs the cache and never the download.

Writing is a thread's own work, so that no download waits for it; one thread, because writers of one file only wait for
one another. What is still to be written is read from memory. A disk that cannot keep up gets some of it: once
``limits.GATEWAY_WRITING_SHARDS`` are waiting, nothing is added until all of them are written.

Whole files are evicted, the least recently used first, when the cache would grow beyond its size.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import re
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from pq_registry import limits
from pq_registry.durable import make_directory, reported
from pq_registry.errors import Conflict, SettingError
from pq_registry.format.manifest import FileEntry
from pq_registry.server.logs import log

_NAME = re.compile(r"([0-9a-f]{64}-[0-9]{1,16}-[0-9]{1,9})\.(shards|have)", re.ASCII)
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Kept:
    """One file: which of its shards are there (None until it is used), and the bytes it takes."""

    size: int
    have: bytearray | None = None


class ShardCache:
    """The cache in one directory, for any number of threads."""

    def __init__(self, root: Path, *, size: int) -> None:
        """Open or make the cache, and bring it down to ``size`` bytes.

        Raises:
            Conflict: if another gateway uses it.
            SettingError: if others than its owner may write there.
            StorageError: if it cannot be made or read.
        """
        self.root = root
        self.size = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._pending: dict[tuple[str, int], memoryview] = {}
        self._waiting = 0
        """Orders for the writer, of which those for evicted files are no longer pending."""
        self._behind = False
        self._failed = False
        self._orders: queue.SimpleQueue[tuple[FileEntry, int, memoryview] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        make_directory(root, 0o700)
        with reported("open", root):
            self._folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
            try:
                self._require_own()
                self._held = os.open("lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=self._folder)
                try:
                    self._take()
                    self.used = self._scan()
                    self._shrink(0)
                except BaseException:
                    os.close(self._held)
                    raise
            except BaseException:
                os.close(self._folder)
                raise

    def close(self) -> None:
        """Write what is still to be written, and let another gateway have it."""
        with self._lock:
            self._failed, writer = True, self._writer
        if writer is not None:
            self._orders.put(None)
            writer.join()
        os.close(self._held)
        os.close(self._folder)

    def has(self, entry: FileEntry, index: int) -> bool:
        """Whether a shard is there, as far as is known."""
        with self._lock:
            have = self._have(entry)
            return (_name(entry), index) in self._pending or (have is not None and bool(have[index]))

    def read(self, entry: FileEntry, index: int, view: memoryview) -> bool:
        """Fill ``view`` with a shard that is there; nothing of it is verified. False if it could not be read."""
        offset, _ = entry.shard_range(index)
        with self._lock:
            shard = self._pending.get((_name(entry), index))
        if shard is not None:
            view[:] = shard
            return True
        try:
            descriptor = os.open(f"{_name(entry)}.shards", os.O_RDONLY | _FLAGS, dir_fd=self._folder)
            try:
                return os.preadv(descriptor, [view], offset) == len(view)
            finally:
                os.close(descriptor)
        except OSError:
            return False

    def write(self, entry: FileEntry, index: int, shard: memoryview) -> None:
        """Keep a verified shard, if there is room for it; it is written later."""
        if entry.size <= self.size and self._reserve(entry, index, shard):
            self._orders.put((entry, index, shard))

    def drop(self, entry: FileEntry, index: int) -> None:
        """Forget a shard that turned out to be wrong."""
        name = _name(entry)
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.have is None or not kept.have[index]:
                return
            kept.have[index] = 0
            _, length = entry.shard_range(index)
            kept.size -= length
            self.used -= length
        with contextlib.suppress(OSError):
            self._put(f"{name}.have", index, b"\0", length=entry.shard_count)

    # -- bookkeeping; under the lock unless it says otherwise ----------------------------------------------------------

    def _have(self, entry: FileEntry) -> bytearray | None:
        name = _name(entry)
        kept = self._kept.get(name)
        if kept is None:
            return None
        self._kept.move_to_end(name)
        if kept.have is None:
            kept.have = self._read_have(name, entry.shard_count)
            with contextlib.suppress(OSError):  # the order of use outlives this process
                os.utime(f"{name}.have", dir_fd=self._folder, follow_symlinks=False)
        return kept.have

    def _read_have(self, name: str, count: int) -> bytearray:
        try:
            descriptor = os.open(f"{name}.have", os.O_RDONLY | _FLAGS, dir_fd=self._folder)
            try:
                found = os.pread(descriptor, count + 1, 0)
            finally:
                os.close(descriptor)
        except OSError:
            found = b""
        return bytearray(found) if len(found) == count else bytearray(count)

    def _reserve(self, entry: FileEntry, index: int, shard: memoryview) -> bool:
        """Make room for a shard more, which is pending then; without the lock."""
        name, length = _name(entry), len(shard)
        with self._lock:
            if self._waiting >= limits.GATEWAY_WRITING_SHARDS:
                self._behind = True
            if self._failed or self._behind or (name, index) in self._pending:
                return False
            have = self._have(entry)
            if have is None:
                self._kept[name] = _Kept(0, bytearray(entry.shard_count))
            elif have[index]:  # two fetched it
                return False
            self._shrink(length, keep=name)
            if self.used + length > self.size:
                return False
            self.used += length
            self._kept[name].size += length
            self._pending[name, index] = shard
            self._waiting += 1
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_all, name="pqreg-cache", daemon=True)
                self._writer.start()
            return True

    def _write_all(self) -> None:
        """The writer's thread; without the lock."""
        while (order := self._orders.get()) is not None:
            self._write_one(*order)
            del order  # the memory is free while nothing comes

    def _write_one(self, entry: FileEntry, index: int, shard: memoryview) -> None:
        name, written = _name(entry), True
        try:
            self._put(f"{name}.shards", entry.shard_range(index)[0], shard)
            self._put(f"{name}.have", index, b"\1", length=entry.shard_count)
        except OSError as error:
            written = False
            self._lost(error)
        with self._lock:
            self._waiting -= 1
            self._behind = self._behind and self._waiting > 0
            kept = self._kept.get(name)
            if kept is None:  # evicted meanwhile
                self._remove(name)
            elif self._pending.get((name, index)) is shard:
                del self._pending[name, index]
                if written and kept.have is not None:
                    kept.have[index] = 1
                else:
                    kept.size -= len(shard)
                    self.used -= len(shard)

    def _shrink(self, needed: int, keep: str | None = None) -> None:
        for name in list(self._kept):
            if self.used + needed <= self.size:
                return
            if name != keep:
                self.used -= self._kept.pop(name).size
                for key in [key for key in self._pending if key[0] == name]:
                    del self._pending[key]
                self._remove(name)

    def _remove(self, name: str) -> None:
        for suffix in ("have", "shards"):
            with contextlib.suppress(OSError):
                os.unlink(f"{name}.{suffix}", dir_fd=self._folder)

    def _put(self, name: str, offset: int, data: bytes | memoryview, *, length: int | None = None) -> None:
        """Write into a file, which then has ``length`` bytes if that is given; without the lock. Raises OSError."""
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | _FLAGS, 0o600, dir_fd=self._folder)
        try:
            if length is not None and os.fstat(descriptor).st_size != length:
                os.ftruncate(descriptor, length)
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], offset + done)
        finally:
            os.close(descriptor)

    def _lost(self, error: OSError) -> None:
        """Say once that the disk does not take any more, and go on without it."""
        with self._lock:
            first, self._failed = not self._failed, True
        if first:
            log(_LOGGER, logging.ERROR, "the cache takes nothing any more", cache=str(self.root), found=error.strerror)

    # -- at the start --------------------------------------------------------------------------------------------------

    def _require_own(self) -> None:
        status = os.fstat(self._folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise SettingError(
                f"{self.root} is no place for a cache", expected="a directory of yours that nobody else may write to",
                found=f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}",
                hint=f"chmod 700 {self.root}, or choose another --cache",
            )  # fmt: skip

    def _take(self) -> None:
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"another gateway uses the cache {self.root}", hint="give each gateway a --cache of its own"
            ) from None

    def _scan(self) -> int:
        """Take over what an earlier gateway left, in the order it was used; answers its bytes."""
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        for item in os.scandir(self._folder):
            match = _NAME.fullmatch(item.name)
            if match is None or not item.is_file(follow_symlinks=False):
                continue
            status = item.stat(follow_symlinks=False)
            if match[2] == "shards":
                sizes[match[1]] = status.st_blocks * 512
            else:
                used[match[1]] = status.st_mtime
        for name in sizes.keys() ^ used.keys():
            self._remove(name)
        for name in sorted(sizes.keys() & used.keys(), key=lambda name: used[name]):
            self._kept[name] = _Kept(sizes[name])
        return sum(kept.size for kept in self._kept.values())


def _name(entry: FileEntry) -> str:
    return f"{entry.sha256.hex}-{entry.size}-{entry.slice_size}"
