# SPDX-License-Identifier: Apache-2.0
"""Tasks run by a few threads, where a task may bring further tasks that come before everything still waiting.

A push opens an upload, which brings its parts, the last of which brings its completion. Taking what was brought first
keeps few uploads open at a time, however many files there are, and both one large file and many small ones keep every
thread busy.

The first error stops the rest: tasks that run finish, no further one starts, and the error is raised to the caller.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

Task = Callable[[], Iterable["Task"]]


def run_tasks(tasks: Iterable[Task], *, workers: int) -> None:
    """Run ``tasks``, taken lazily and in order, and whatever they bring, in ``workers`` threads.

    Returns when all are done. An interrupt of the calling thread does not wait for the tasks that run.

    Raises:
        BaseException: whatever the first task that failed raised.
    """
    pool = _Pool(iter(tasks))
    threads = [threading.Thread(target=pool.work, daemon=True, name=f"pqreg-{number}") for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        pool.wait()
    except BaseException:
        pool.stop()
        raise
    for thread in threads:
        thread.join()
    if pool.error is not None:
        raise pool.error


class _Pool:
    def __init__(self, waiting: Iterator[Task]) -> None:
        self._waiting = waiting
        self._brought: deque[Task] = deque()
        self._running = 0
        self._stopped = False
        self.error: BaseException | None = None
        self._changed = threading.Condition()

    def work(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._finish(list(task()))
        except BaseException as error:  # noqa: BLE001  handed to the caller of run_tasks, whatever it is
            with self._changed:
                self.error = self.error or error
                self.stop()

    def wait(self) -> None:
        with self._changed:
            while not self._stopped:
                self._changed.wait()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _next(self) -> Task | None:
        with self._changed:
            while not self._stopped:
                task = self._brought.popleft() if self._brought else next(self._waiting, None)
                if task is not None:
                    self._running += 1
                    return task
                if not self._running:
                    self.stop()
                else:
                    self._changed.wait()
            return None

    def _finish(self, brought: list[Task]) -> None:
        with self._changed:
            self._running -= 1
            self._brought.extend(brought)
            self._changed.notify_all()
