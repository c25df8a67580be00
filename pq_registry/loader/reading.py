# SPDX-License-Identifier: Apache-2.0
"""Any range of a release's files, verified: what ``open_verified`` and the file system of fsspec read through.

A range is read by the shards that hold it and no others. Whole shards are read and checked in the caller's memory,
several at once; the two at the ends are read and checked in memory of the reader's own, which keeps the last few of
them, and what is asked for is copied. The caller sees nothing before every shard of its range was checked: where one
is not what was signed, the caller's memory is overwritten with zeros.

Reading happens in the reader's threads, ``OpenRelease.workers`` of them, however many threads call: each keeps a
connection or a file open. A reader is of the process that made it.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.errors import StorageError, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.fill import Filler
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.selection import Run

Kept = Future[memoryview]


class VerifiedReader:
    """Reads ranges of the files of one release, for any number of threads, until it is closed."""

    def __init__(self, opened: OpenRelease, *, progress: Progress, meter: Meter) -> None:
        """Read ``opened.files``; nothing is opened before the first range."""
        self._longest = opened.longest
        self._meter = meter
        self._process = -1  # nothing to close yet
        self._fillers = _Fillers(lambda: opened.filler(progress, meter))
        self._pool = ThreadPoolExecutor(opened.workers, "pqreg-read")
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Kept] = OrderedDict()
        self._closed = False
        self._process = os.getpid()

    def read_into(self, file: FileEntry, begin: int, view: memoryview) -> None:
        """Fill ``view`` from ``begin`` of ``file``, one of the release's; the range lies within the file.

        Raises:
            ShardMismatch: if a shard is not what was signed.
            PqregError: if it cannot be had, or the reader is closed.
        """
        self._require_own_process()
        given_up = threading.Event()
        waiting: list[tuple[Kept, int, int]] = []
        try:
            for run in _runs(file, begin, begin + len(view), self._longest):
                low, high = max(begin, run.offset), min(begin + len(view), run.offset + run.size)
                if run.count == 1 and (found := self._find(run, whole=high - low == run.size)) is not None:
                    waiting.append((found, low, high))
                else:
                    part = view[low - begin : high - begin]
                    waiting.append((self._submit(run, part, given_up.is_set), low, low))
            futures = [found for found, _, _ in waiting]
            if not all(found.done() for found in futures):
                with self._meter.timed("wait"):
                    wait(futures, return_when=FIRST_EXCEPTION)
            for found in futures:
                if found.done():
                    found.result()
            for found, low, high in waiting:
                shard = found.result()
                if low < high:
                    offset = low // limits.SHARD_BYTES * limits.SHARD_BYTES
                    source = np.frombuffer(shard, np.uint8)[low - offset : high - offset]
                    np.frombuffer(view, np.uint8)[low - begin : high - begin] = source
        except BaseException:
            given_up.set()
            # Those that write into the caller's memory; and the others, lest the next read is told what they met.
            wait([found for found, _, _ in waiting])
            np.frombuffer(view, np.uint8)[:] = 0
            raise

    def read(self, file: FileEntry, begin: int, end: int) -> bytearray:
        """The bytes from ``begin`` to ``end`` of ``file``.

        Raises:
            PqregError: as ``read_into``.
        """
        try:
            data = bytearray(max(0, end - begin))
        except (MemoryError, OverflowError):
            raise StorageError(f"cannot get {end - begin} bytes of memory", hint="read it in smaller ranges") from None
        if data:
            self.read_into(file, begin, memoryview(data))
        return data

    def prefetch(self, file: FileEntry, offset: int) -> None:
        """Begin to read the shard at ``offset`` of ``file``, if there is one; for whoever reads from front to back."""
        self._require_own_process()
        if 0 <= offset < file.size:
            self._find(Run(file, offset // limits.SHARD_BYTES, 1, range(0), None), whole=False)

    def __del__(self) -> None:
        """Close what ``close`` was never called for, or had to leave to a thread: no task refers to this any more."""
        if os.getpid() == self._process:
            self._fillers.close()

    def close(self) -> None:
        """End what is being read, and with it every thread, connection and file."""
        if os.getpid() != self._process:
            return  # threads and connections are the other process's
        with self._lock:
            self._closed = True
            self._kept.clear()
        running = self._fillers.abort()
        # A thread that is just connecting cannot be woken; it is left behind rather than waited for.
        _, alive = wait(running, limits.INTERRUPT_SECONDS)
        # Not cancelled, which would leave who waits for them waiting: they end as soon as they begin.
        self._pool.shutdown(wait=not alive)
        if not alive:
            self._fillers.close()

    def _require_own_process(self) -> None:
        """Before anything is locked or waited for: of what a fork finds locked or under way, nothing ever ends here."""
        if os.getpid() != self._process:
            raise UsageError(
                "the release was opened by another process", hint="open it again in each process that is forked"
            )

    def _find(self, run: Run, *, whole: bool) -> Kept | None:
        """A shard that is kept, or on its way; if it is neither and not wanted ``whole``, it is sent for and kept."""
        key = (run.file.path.text, run.first)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and not (
                kept.done() and kept.exception()
            ):  # whoever waited may come back before _forget
                self._kept.move_to_end(key)
                return kept
        if whole:
            return None
        found = self._submit(run, memoryview(bytearray(run.size)), self._is_closed)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > limits.LOADER_KEPT_SHARDS:
                self._kept.popitem(last=False)
        found.add_done_callback(lambda done: self._forget(key, done))
        return found

    def _forget(self, key: tuple[str, int], done: Kept) -> None:
        """A shard that could not be had or was wrong is read again by whoever asks next."""
        if done.exception() is not None:
            with self._lock:
                if self._kept.get(key) is done:
                    del self._kept[key]

    def _submit(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> Kept:
        with self._lock:
            if self._closed:
                raise _closed()
            return self._fillers.submit(self._pool, self._fill, run, view, lambda: self._closed or stopped())

    def _fill(self, filler: Filler, run: Run, view: memoryview, stopped: Callable[[], bool]) -> memoryview:
        if stopped():
            raise _closed()
        try:
            filler.fill(run, view, stopped)
        except BaseException as error:
            self._fillers.failed(filler)
            # Whoever keeps the error must not keep, through its traceback, bytes that failed their check.
            traceback.clear_frames(error.__traceback__)
            del view
            raise
        if stopped():
            raise _closed()
        return view

    def _is_closed(self) -> bool:
        return self._closed


class _Fillers:
    """The filler that reads, and those it replaced while reads that began before still use them."""

    def __init__(self, make: Callable[[], Filler]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._present = make()
        self._failed = False
        self._replaced: list[Filler] = []
        self._running: dict[Future[memoryview], Filler] = {}

    def submit(self, pool: ThreadPoolExecutor, work: Callable[..., memoryview], *arguments: object) -> Kept:
        """Have ``work`` done with the filler and ``arguments``.

        If the filler failed, it is done with a new one: files may have been replaced by right ones since.
        """
        with self._lock:
            if self._failed:
                self._replaced.append(self._present)
                self._present, self._failed = self._make(), False
                self._drop_unused()
            filler = self._present
            found = pool.submit(work, filler, *arguments)
            self._running[found] = filler
        found.add_done_callback(self._ended)
        return found

    def failed(self, filler: Filler) -> None:
        """Something went wrong with ``filler``."""
        with self._lock:
            self._failed = self._failed or filler is self._present

    def abort(self) -> set[Kept]:
        """End every read under way; answers what is being read."""
        with self._lock:
            running = set(self._running)
            if running:
                for filler in (*self._replaced, self._present):
                    filler.abort()
        return running

    def close(self) -> None:
        """Close all of them, once nothing is read any more."""
        for filler in (*self._replaced, self._present):
            filler.close()

    def _ended(self, done: Kept) -> None:
        with self._lock:
            del self._running[done]
            self._drop_unused()

    def _drop_unused(self) -> None:
        in_use = {id(filler) for filler in self._running.values()}
        for filler in [each for each in self._replaced if id(each) not in in_use]:
            self._replaced.remove(filler)
            filler.close()


def _runs(file: FileEntry, begin: int, end: int, longest: int) -> list[Run]:
    """The shards of a range: those at its ends that it cuts stand alone, the others up to ``longest`` together."""
    found: list[Run] = []
    last = -(-end // limits.SHARD_BYTES)
    index = begin // limits.SHARD_BYTES
    while index < last:
        count = 1
        if index * limits.SHARD_BYTES >= begin:
            full = end // limits.SHARD_BYTES if end < file.size else last
            count = max(1, min(longest, full - index))
        found.append(Run(file, index, count, range(0), None))
        index += count
    return found


def _closed() -> UsageError:
    return UsageError("the release was closed", hint="read tensors and files before close(), or the end of with")
