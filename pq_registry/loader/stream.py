# SPDX-License-Identifier: Apache-2.0
"""Read, check, release: worker threads that turn shards into tensors, in file order.

Each worker takes the next run of shards, gets memory for it from the placement, has the filler read it there and check
it, and commits it to where it belongs. A tensor is released when every run that holds a byte of it has been checked and
committed, and not before (DESIGN §5, step 8).

At most ``ring`` bytes are read ahead of what the caller has taken; the tensor the caller is waiting for is always read
on, however large it is. The first error stops all workers, drops what was not yet handed out, and is raised at once,
even if tensors before the bad shard were ready. Whenever the iteration ends, for whatever reason, reads under way are
ended and its threads with them. A thread that cannot be woken is left behind; the last of these closes the filler.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import StorageError
from pq_registry.loader.dtypes import Framework
from pq_registry.loader.fill import Filler
from pq_registry.loader.placement import Placement
from pq_registry.loader.selection import Run, Unit


@dataclass(frozen=True, slots=True)
class Pace:
    """``workers`` threads, at most ``ring`` bytes ahead of the caller (None: no bound)."""

    workers: int
    ring: int | None


class TensorStream:
    """One pass over ``units``; to be iterated once. Closing the iterator ends it early."""

    def __init__(
        self,
        units: Sequence[Unit],
        runs: Iterator[Run],
        filler: Filler,
        placement: Placement,
        framework: Framework,
        *,
        pace: Pace,
        meter: Meter,
    ) -> None:
        """Nothing is read before the first tensor is asked for.

        Args:
            units: the tensors, in file order.
            runs: the runs that cover them, in order.
            filler: brings them; closed at the end.
            placement: where they go.
            framework: makes tensors of them.
            pace: threads, and how far ahead.
            meter: told where the time goes.
        """
        self._units = units
        self._runs = runs
        self._filler = filler
        self._placement = placement
        self._framework = framework
        self._pace = pace
        self._meter = meter
        self._missing = [unit.end - unit.start for unit in units]
        self._next = 0
        self._waiting_run: Run | None = None
        self._ahead = 0
        self._stopped = False
        self._over = False
        self._running = 0
        self._error: BaseException | None = None
        # Always taken as itself: where a condition takes it, an interrupt can come between that and the with statement,
        # and the lock is then held for ever.
        self._lock = threading.Lock()
        self._landed = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)

    def tensors(self) -> Generator[tuple[str, Any], None, None]:
        """Each tensor's name and the tensor, in order; nothing here keeps a tensor that was handed out.

        Raises:
            ShardMismatch: if a shard is not what was signed; every tensor handed out before was.
            StorageError: if the system gives no thread.
            PqregError: whatever else the source reports.
        """
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"pqreg-load-{number}")
            for number in range(self._pace.workers)
        ]
        try:
            self._start(threads)
            for position, unit in enumerate(self._units):
                yield unit.entry.name, self._framework.make(unit.entry, self._await(position))
        finally:
            if threading.current_thread() in threads:
                # The garbage collector found this generator while it ran in a worker, which can hold any lock just now.
                threading.Thread(target=self._end, args=(threads,), daemon=True, name="pqreg-load-end").start()
            else:
                self._end(threads)

    def _start(self, threads: Sequence[threading.Thread]) -> None:
        for thread in threads:
            with self._lock:
                self._running += 1
            try:
                thread.start()
            except RuntimeError as error:
                with self._lock:
                    self._running -= 1
                if thread is not threads[0]:
                    return  # fewer are slower, not wrong
                raise StorageError(
                    "the system gives this process no thread",
                    expected="one at least",
                    found=str(error)[:100],
                    hint="see the limits of processes and of memory (ulimit -u, pids.max)",
                ) from None

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        self._stop(None)
        try:
            if self._next < len(self._units):
                self._filler.abort()
            # A thread that is just connecting cannot be woken; it is left behind rather than waited for.
            deadline = time.monotonic() + limits.INTERRUPT_SECONDS
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
        finally:  # also when the caller is interrupted once more
            with self._lock:
                self._over = True
                left = self._running
            try:
                if not left:
                    self._filler.close()
            finally:
                self._placement.clear()

    def _await(self, position: int) -> Any:
        with self._lock:
            with self._meter.timed("wait"):
                while self._missing[position] and self._error is None:
                    self._landed.wait()
            if self._error is not None:
                raise self._error
            unit = self._units[position]
            self._ahead -= unit.end - unit.start
            self._next = position + 1
            self._room.notify_all()
            return self._placement.release(position)

    def _work(self) -> None:
        try:
            while (run := self._take()) is not None:
                self._move(run)
                self._land(run)
        except BaseException as error:  # noqa: BLE001 - handed to whoever iterates, whatever it is
            # Whoever keeps the error must not keep, through its traceback, buffers with bytes that failed their check.
            traceback.clear_frames(error.__traceback__)
            self._stop(error)
        finally:
            with self._lock:
                self._running -= 1
                last = self._over and not self._running
            if last:
                self._filler.close()

    def _move(self, run: Run) -> None:
        """Bring one run to where it belongs.

        A method of its own so that no view of a tensor's memory outlives it: once the run lands, the caller may own it.
        """
        landing = self._placement.land(run)
        try:
            self._filler.fill(run, landing.view, self._is_stopped)
            if not self._stopped:
                landing.commit()
                return
        except BaseException:
            landing.drop()
            raise
        landing.drop()

    def _is_stopped(self) -> bool:
        return self._stopped

    def _take(self) -> Run | None:
        """The next run, once there is room for it; None at the end."""
        with self._lock:
            while not self._stopped:
                if self._waiting_run is None:
                    self._waiting_run = next(self._runs, None)
                    if self._waiting_run is None:
                        return None
                run = self._waiting_run
                size = sum(self._part(run, position) for position in run.units)
                ring = self._pace.ring
                if ring is None or self._ahead + size <= ring or run.units.start <= self._next:
                    self._waiting_run = None
                    self._ahead += size
                    self._placement.reserve(run)
                    return run
                with self._meter.timed("held"):
                    self._room.wait()
            return None

    def _land(self, run: Run) -> None:
        with self._lock:
            if self._stopped:
                return
            for position in run.units:
                self._missing[position] -= self._part(run, position)
            if self._next < len(self._missing) and not self._missing[self._next]:
                self._landed.notify_all()

    def _part(self, run: Run, position: int) -> int:
        begin, end = run.overlap(self._units[position])
        return max(end - begin, 0)

    def _stop(self, error: BaseException | None) -> None:
        with self._lock:
            self._stopped = True
            self._error = self._error or error
            self._landed.notify_all()
            self._room.notify_all()
