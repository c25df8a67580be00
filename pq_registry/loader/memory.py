# SPDX-License-Identifier: Apache-2.0
"""Memory that weights are read into: anonymous mappings of this process, in large pages where the system has them.

Nothing else can reach it: it is neither a mapping of a file (whose owner could change it after the check) nor shared
with another process. Views keep the mapping alive; it is returned to the system when the last one is gone.

``Arena`` additionally hands out again what has come back, because the first touch of fresh memory is dear: the kernel
must find, clear and map every page (on virtual machines that return free memory to their host, the host as well).
Memory comes back when the array it was handed out as, and with it every view and tensor made of that, is gone.

``RetainedMemory`` is an arena that the caller keeps from one load to the next (``memory=``)::

    memory = RetainedMemory(20 << 30)
    for reference in references:
        tensors = pq_registry.load(reference, memory=memory)
        ...
        del tensors  # the next load writes where these were
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import threading
import weakref
from collections import deque
from typing import Self

import numpy as np

from pq_registry import limits
from pq_registry.errors import StorageError, UsageError
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
    """One mapping from which memory for one array after another is taken, and to which it returns.

    What finds no place in it, because it is too large or the rest is in use, gets a mapping of its own. ``close`` gives
    the pages that are not in use back to the system; those still in use follow when their array is gone.
    """

    def __init__(self, capacity: int) -> None:
        """Nothing is taken from the system before the first array.

        Raises:
            StorageError: if the system refuses so large a mapping.
        """
        self._mapping = anonymous(capacity)
        self._free = [(0, len(self._mapping))]
        self._returned: deque[tuple[int, int]] = deque()
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
        room = -(-size // limits.SHARD_BYTES) * limits.SHARD_BYTES
        begin = self._place(room)
        if begin is None:
            return as_array(anonymous(room))[:size]
        # An array of its own: it is what every view and tensor made of it refers to, so its end is theirs too.
        base = np.frombuffer(self._mapping, np.uint8, size, begin)
        weakref.finalize(base, self._come_back, begin, begin + room).atexit = False
        return base[:]

    def finish(self) -> None:
        """The load for which it was made has ended."""
        self.close()

    def close(self) -> None:
        """Keep nothing from now on: whatever is taken later gets a mapping of its own."""
        self._closed = True
        self._collect()
        for begin, end in self._free:
            self._discard(begin, end)

    def _come_back(self, begin: int, end: int) -> None:
        # Runs wherever the last reference dies, even inside take() when the garbage collector strikes there: so no
        # lock, only an append, which is atomic. The pages can be somebody's right after it, so it comes last.
        if self._closed:
            self._discard(begin, end)
        self._returned.append((begin, end))

    def _place(self, room: int) -> int | None:
        """Take the lowest free place: what was touched before is used again before anything that was not."""
        if self._closed:
            return None
        self._collect()
        for index, (begin, end) in enumerate(self._free):
            if end - begin >= room:
                self._free[index : index + 1] = [(begin + room, end)] if end - begin > room else []
                return begin
        return None

    def _collect(self) -> None:
        """Join what came back to what is free."""
        while self._returned:
            bisect.insort(self._free, self._returned.popleft())
        joined: list[tuple[int, int]] = []
        for begin, end in self._free:
            if joined and joined[-1][1] == begin:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((begin, end))
        self._free = joined

    def _discard(self, begin: int, end: int) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError, ValueError):
                self._mapping.madvise(mmap.MADV_DONTNEED, begin, end - begin)


class RetainedMemory(Arena):
    """An arena for any number of loads, also at the same time. A context manager.

    What it holds of a load that ended, also of a sealed release, stays there in the clear until a later load writes
    over it, or ``close``.
    """

    def __init__(self, capacity: int) -> None:
        """Nothing is taken from the system before it is needed; what does not fit gets memory that is not retained.

        Args:
            capacity: bytes, a little more than the tensors of the largest load.

        Raises:
            UsageError: if that is no number of bytes.
            StorageError: if the system refuses so large a mapping.
        """
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < limits.SHARD_BYTES:
            raise UsageError(
                "this is no capacity", expected=f"{limits.SHARD_BYTES} bytes or more", found=repr(capacity)[:40]
            )
        super().__init__(capacity)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, size: int) -> Raw:
        """As ``Arena.take``, from any thread."""
        with self._lock:
            return super().take(size)

    def finish(self) -> None:
        """Another load may follow."""

    def close(self) -> None:
        """Give back what is not in use, and what is in use as soon as it is not."""
        with self._lock:
            super().close()

    def __repr__(self) -> str:
        return f"<RetainedMemory of {len(self._mapping)} bytes>"
