# SPDX-License-Identifier: Apache-2.0
"""A release directory read past the page cache (O_DIRECT), and when that is worth it.

The disk writes into the caller's memory where offset, length and address allow it; otherwise an aligned range that
holds what was asked for is read into memory of the thread's own, and copied from there. A file system that refuses is
read through the page cache instead; that is logged once, and nothing fails because of it.

Reading past the page cache takes a fraction of the processor time (no copy, no pages to find), but whoever reads the
same files next, another rank or the next start of a service, waits for the disk again. So ``auto`` does it only for
files that are not in the page cache, and would not fit there beside the memory they are loaded into.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pq_registry import limits
from pq_registry.client import machine
from pq_registry.client.directory import ReleaseDirectory, short_file
from pq_registry.client.progress import ignored
from pq_registry.client.source import DirectorySource
from pq_registry.durable import reported
from pq_registry.format.manifest import FileEntry

_LOG = logging.getLogger(__name__)
_REFUSED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

ReadMode = Literal["auto", "buffered", "direct"]


class DirectSource(DirectorySource):
    """Reads with O_DIRECT. Each thread keeps the file it read last open, and some aligned memory."""

    def __init__(self, directory: ReleaseDirectory | Path) -> None:
        """As ``DirectorySource``."""
        super().__init__(directory)
        self._refused = False

    def read_into(
        self, file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        """Fill ``view`` from the file. Raises FileSetMismatch if it is not there or too short, or StorageError."""
        descriptor = self._descriptor(file)
        done = 0
        with reported("read", file.path.under(self._directory.path)):
            while done < len(view):
                try:
                    count = self._read(descriptor, offset + done, view[done:])
                except OSError as error:
                    if error.errno not in _REFUSED or not _is_direct(descriptor):
                        raise
                    self._fall_back(descriptor, file)
                    continue
                if count <= 0:
                    raise short_file(file, offset + done)
                done += count
                arrived(count)

    def _open_file(self, file: FileEntry) -> int:
        descriptor = super()._open_file(file)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
        except OSError:
            self._tell(file)
        return descriptor

    def _read(self, descriptor: int, offset: int, view: memoryview) -> int:
        """Some of ``view``; how much, and nothing or less if the file ends before it."""
        step = limits.DIRECT_ALIGNMENT
        if not _is_direct(descriptor):
            return os.preadv(descriptor, [view], offset)
        whole = len(view) - len(view) % step
        if whole and offset % step == 0 and _address(view) % step == 0:
            return os.preadv(descriptor, [view[:whole]], offset)
        bounce = self._bounce()
        before = offset % step
        length = min(len(view), len(bounce) - before)
        # Up to the next boundary: at the end of a file that is more than there is, and less comes.
        there = os.preadv(descriptor, [bounce[: before + length + -(before + length) % step]], offset - before)
        got = min(there - before, length)
        if got > 0:
            np.copyto(np.frombuffer(view[:got], np.uint8), np.frombuffer(bounce[before : before + got], np.uint8))
        return got

    def _bounce(self) -> memoryview:
        memory: memoryview | None = getattr(self._mine, "bounce", None)
        if memory is None:
            self._mine.bounce = memory = memoryview(mmap.mmap(-1, limits.DIRECT_PIECE_BYTES))
        return memory

    def _fall_back(self, descriptor: int, file: FileEntry) -> None:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~os.O_DIRECT)
        self._tell(file)

    def _tell(self, file: FileEntry) -> None:
        if not self._refused:
            self._refused = True
            where = file.path.under(self._directory.path)
            _LOG.warning("%s is read through the page cache: its file system does not read past it", where)


def is_direct(directory: ReleaseDirectory | Path, files: Iterable[FileEntry], mode: ReadMode) -> bool:
    """Whether ``files`` of ``directory`` are to be read past the page cache.

    Raises:
        FileSetMismatch, UsageError, StorageError: if it must be looked at and cannot be opened.
    """
    if mode != "auto" or not hasattr(os, "O_DIRECT"):
        return mode == "direct" and hasattr(os, "O_DIRECT")
    entries = list(files)
    free = machine.free_memory()
    if free is None or 2 * sum(entry.size for entry in entries) <= free:
        return False
    if isinstance(directory, ReleaseDirectory):
        return not _is_resident(directory, entries)
    with ReleaseDirectory(directory) as opened:
        return not _is_resident(opened, entries)


def _is_resident(directory: ReleaseDirectory, files: Iterable[FileEntry]) -> bool:
    """Whether half of the places that are looked at are in the page cache. Nothing is read from the disk for it."""
    looked = found = 0
    for file in files:
        descriptor = directory.open(file)
        try:
            for number in range(limits.RESIDENT_PROBES):
                found += _is_cached(descriptor, file.size * number // limits.RESIDENT_PROBES)
                looked += 1
        finally:
            os.close(descriptor)
    return 2 * found >= looked


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:  # EAGAIN: not there; or a file system that cannot say
        return False


def _is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


def _address(view: memoryview) -> int:
    array: np.ndarray[Any, np.dtype[np.uint8]] = np.frombuffer(view, np.uint8)
    return array.ctypes.data
