# SPDX-License-Identifier: Apache-2.0
"""A few threads that do one job together, and end together.

The first error of any of them, or an interrupt of the caller, stops all: ``Crew.stopped`` turns true, ``abort`` is
called to wake those who wait for a peer, and the caller gets the error once every thread has ended.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from pq_registry import limits
from pq_registry.client import machine

T = TypeVar("T")


def cores() -> int:
    """How many processors this process may use: those it may run on, or fewer by the quota of its control group."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(mine, machine.processors() or mine)


class Shared(Generic[T]):
    """Items that several threads take, each item by one of them."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __iter__(self) -> Shared[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            return next(self._items)


class Crew:
    """Threads of one job. ``ended`` says afterwards whether all of them are gone."""

    def __init__(self, abort: Callable[[], None] = lambda: None) -> None:
        self._abort = abort
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._working = 0
        self._stopped = threading.Event()
        self.ended = True

    def stopped(self) -> bool:
        """Whether a thread should give up what it does."""
        return self._stopped.is_set()

    def run(self, work: Callable[[], None], size: int) -> None:
        """Call ``work`` in ``size`` threads and wait for all of them.

        Raises:
            BaseException: what the first thread that failed raised, or KeyboardInterrupt of the caller.
        """
        threads = [
            threading.Thread(target=self._one, args=(work,), daemon=True, name=f"pqreg-{number}")
            for number in range(size)
        ]
        self.ended = False
        try:
            for thread in threads:
                self._begin(thread)
            # Not by join: in Python 3.11 an interrupted join takes a running thread for an ended one (gh-90882).
            self._wait(None)
        except BaseException:
            self._stop()
            # A thread that is just connecting cannot be woken; it is left behind rather than waited for.
            self._wait(limits.INTERRUPT_SECONDS)
            raise
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _begin(self, thread: threading.Thread) -> None:
        with self._changed:
            self._working += 1
        try:
            thread.start()
        except BaseException:
            with self._changed:
                self._working -= 1
            raise

    def _wait(self, timeout: float | None) -> None:
        with self._changed:
            self.ended = self._changed.wait_for(lambda: not self._working, timeout)

    def _one(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # handed to the caller, whatever it is
            with self._changed:
                self._error = self._error or error
            self._stop()
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _stop(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self._abort()
