# SPDX-License-Identifier: Apache-2.0
"""Memory that weights are read into: anonymous mappings of this process, in large pages where the system has them.

Nothing else can reach it: it is neither a mapping of a file (whose owner could change it after the check) nor shared
with another process. Views keep the mapping alive; it is returned to the system when the last one is gone.

``Arena`` additionally hands out again what has come back, because the first touch of fresh memory is dear: the kernel
must find, clear and map every page (on virtual machines that return free memory to their host, the host as well).
Memory comes back when the array it was handed out as, and with it every view and tensor made of that, is gone.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque

import numpy as np

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.loader.dtypes import Raw

ALIGNMENT = 64
"""Bytes: a cache line, and what the widest vector instructions want."""


def anonymous(size: int) -> mmap.mmap:
    """A zeroed mapping of at least ``size`` bytes; pages cost nothing until they are touched.

    Raises:
        StorageError: if the system refuses so much memory.
    """
    try:
        # Without a reservation: with names= only a part of a large file's buffer is ever touched.
        mapping = mmap.mmap(
            -1,
            max(size, 1),
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0),
        )
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise StorageError(
            f"cannot get {size} bytes of memory",
            found=str(error),
            hint="iter_tensors needs less at a time, and names= leaves out what is not needed",
        ) from None
    if size >= limits.SHARD_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without large pages: slower, not wrong
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def as_array(mapping: mmap.mmap) -> Raw:
    """The bytes of a mapping, which lives as long as the array or any view of it."""
    return np.frombuffer(mapping, np.uint8)


class Arena:
    """Memory for one array after another.

    What came back is kept up to ``keep`` bytes until ``close``; after that nothing is kept, and memory still in use is
    returned to the system when its array is gone.
    """

    def __init__(self, *, keep: int) -> None:
        self._keep = keep
        self._returned: deque[mmap.mmap] = deque()
        self._idle: list[mmap.mmap] = []
        self._closed = False

    def take(self, size: int) -> Raw:
        """An array of ``size`` bytes with arbitrary content, aligned to ``ALIGNMENT``. Calls must not overlap.

        Raises:
            StorageError: if the system refuses so much memory.
        """
        if size < limits.SHARD_BYTES:
            block = np.empty(size + ALIGNMENT, np.uint8)
            start = -block.ctypes.data % ALIGNMENT
            return block[start : start + size]
        mapping = self._recycled(size) or anonymous(-(-size // limits.SHARD_BYTES) * limits.SHARD_BYTES)
        base = as_array(mapping)
        weakref.finalize(base, self._come_back, mapping).atexit = False
        return base[:size]

    def close(self) -> None:
        """Keep nothing from now on."""
        self._closed = True
        self._idle.clear()
        self._returned.clear()

    def _come_back(self, mapping: mmap.mmap) -> None:
        # Runs wherever the last reference dies, even inside take() when the garbage collector strikes there: so no
        # lock, only an append, which is atomic.
        if not self._closed:
            self._returned.append(mapping)
            if self._closed:  # closed just now by another thread
                self._returned.clear()

    def _recycled(self, size: int) -> mmap.mmap | None:
        while self._returned:
            self._idle.append(self._returned.popleft())
        self._idle.sort(key=len)
        fitting = next((mapping for mapping in self._idle if len(mapping) >= size), None)
        if fitting is not None:
            self._idle.remove(fitting)
        while sum(map(len, self._idle)) > self._keep:
            self._idle.pop(0)
        return fitting
