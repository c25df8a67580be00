# SPDX-License-Identifier: Apache-2.0
"""The sequencer: gives every statement its place in the log, batch by batch, from one thread.

A batch begins as soon as the one before is done and takes whatever has come in since. Its steps, and what a failure at
each of them means:

1. The time is read. Backwards or standing still: halted, nothing signed (``log.clockwatch``).
2. Leaves are made with that time, tiles and root are computed from the right edge in memory, and the checkpoint is
   signed with both keys. Nothing has left the process.
3. The lock replaces its note and stages the leaves, in one transaction. Refused: nothing happened, the statements may
   come again. Replaced by another: halted. Unclear: halted; the next start finds out. Where several instances may write
   the log, both are LogSuperseded instead: this sequencer ends, and whoever leads starts one anew
   (``service.leadership``). **From here on the leaves are in the log.**
4. The tiles are written. Failed: tried again before anything else happens. A crash here is completed by the next start
   from the staged leaves, with the code that writes tiles here (``log.recovery``).
5. The leaves are answered, and the checkpoint goes to the publisher.

No batch begins before the tiles of the last one are durable; so the lock needs to stage one batch only. An unchanged
tree is signed again every ``limits.LOG_HEARTBEAT_SECONDS``, by the same steps with no leaves.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import LogHalted, LogSuperseded, LogUnavailable, PqregError, SettingError, StorageError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.tile import encode_entry
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.clockwatch import ClockWatch
from pq_registry.log.pending import PendingLeaf, Sequenced
from pq_registry.log.publisher import Published, Publisher
from pq_registry.log.recovery import recover
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import Batch, LogLock, TileStore, WitnessPool


@dataclass(frozen=True, slots=True)
class LogHealth:
    """How the log is, for metrics and readiness; ``leading`` is whether this instance writes it."""

    size: int
    time: int
    waiting: int
    published: Published | None
    problem: PqregError | None
    leading: bool = True


class Sequencer:
    """The one writer of a log; ``append`` may be called from any thread.

    Args:
        lock: where it is decided what the tree is.
        tiles: where readers find it.
        signers: the log's keys.
        clock: the real time.
        witnesses: who else signs; None for a log without witnesses.
        policy: what a published checkpoint should satisfy.
        linger: how long a batch waits for more leaves, in seconds, at most ``limits.LOG_LINGER_SECONDS``.
        monotonic: a clock that cannot be set.

    Raises:
        LogHalted: if lock, tile store, keys and clock do not agree; nothing was signed then.
        SettingError: if the policy is of other keys.
        StorageError: if lock or tile store fail.
    """

    def __init__(
        self,
        lock: LogLock,
        tiles: TileStore,
        signers: LogSigners,
        clock: Callable[[], datetime],
        witnesses: WitnessPool | None,
        policy: Policy,
        *,
        linger: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = lock
        self._tiles = tiles
        self._signers = signers
        self._watch = ClockWatch(clock, monotonic)
        self._linger = min(linger, limits.LOG_LINGER_SECONDS)
        if (policy.log, policy.log_pq) != (signers.ed25519.key, signers.mldsa.key):
            raise SettingError(
                "the log's policy names other keys than its own", expected=signers.vkeys, found=policy.origin
            )
        opened = recover(lock, tiles, signers, self._watch)
        self._started = self._watch.now(opened.time)
        tiles.write_vkey(signers.vkeys.encode("utf-8"))
        self._note, self._checkpoint = opened.note, opened.checkpoint
        self._time, self._edge = opened.time, opened.edge
        self._unwritten: tuple[tuple[str, bytes], ...] = ()
        self._waiting: deque[PendingLeaf] = deque()
        self._arrived = threading.Condition()
        self._problem: PqregError | None = None
        self._closed = False
        self._beat = False
        self._publisher = Publisher(lock, tiles, policy, clock=clock, witnesses=witnesses, last=opened.published)
        shown = self._publisher.published
        if shown is None or not shown.quorum or shown.checkpoint != self._checkpoint:
            self._publisher.offer(self._note, self._checkpoint)
        self._thread = threading.Thread(target=self._run, name="log-sequencer", daemon=True)
        self._thread.start()

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._signers.origin

    @property
    def note(self) -> bytes:
        """The checkpoint this sequencer committed last, or began from."""
        with self._arrived:
            return self._note

    def append(self, make: Callable[[int], bytes], *, statement: Digest | None = None) -> PendingLeaf:
        """Put a leaf into the next batch.

        Args:
            make: answers the leaf's bytes once the time of its batch is known; called once, from the sequencer's
                thread, and must be quick.
            statement: the statement the leaf is of; the catalogue must know it.

        Raises:
            LogHalted: if the log does not go on.
            LogSuperseded: if another instance writes the log now.
            LogUnavailable: if it is being closed, or too many leaves wait already.
        """
        pending = PendingLeaf(make, statement)
        with self._arrived:
            if isinstance(self._problem, LogHalted | LogSuperseded):
                raise _again(self._problem)
            if self._closed:
                raise LogUnavailable("the log is being closed", hint="try again once the service is back")
            if len(self._waiting) >= limits.LOG_QUEUE_ENTRIES:
                raise LogUnavailable("too many statements wait for the log", hint="try again later")
            self._waiting.append(pending)
            if len(self._waiting) == 1:
                self._arrived.notify()
        return pending

    def wait_published(self, index: int, timeout: float) -> bytes:
        """The newest published checkpoint, once one covers leaf ``index``.

        Raises:
            LogUnavailable: if none does within ``timeout`` seconds.
            LogHalted: if none will before a restart.
        """
        return self._publisher.wait(index, timeout)

    def renew(self) -> None:
        """Sign the tree again soon, whether or not it grows, as the heartbeat does."""
        with self._arrived:
            self._beat = True
            self._arrived.notify()

    def health(self) -> LogHealth:
        """How the log is now; ``problem`` is a LogHalted if it does not go on."""
        published, unpublished = self._publisher.published, self._publisher.problem
        with self._arrived:
            problem = self._problem or unpublished
            return LogHealth(self._checkpoint.size, self._time, len(self._waiting), published, problem)

    def check(self) -> None:
        """Make sure that the log takes statements.

        Raises:
            LogHalted: if it does not go on.
            StorageError: if it cannot write at the moment.
        """
        problem = self.health().problem
        if problem is not None:
            raise _again(problem) if isinstance(problem, LogHalted | LogSuperseded) else problem

    def close(self, timeout: float = limits.DRAIN_SECONDS) -> None:
        """Take no more leaves, sequence and publish those that wait, and end; give up after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join(timeout)
        self._publisher.close(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """End at once, because another may write the log now: nothing that waits is committed by this sequencer."""
        with self._arrived:
            self._closed = True
            self._drop(LogSuperseded("this instance writes the log no longer", hint="try again"), self._waiting)
            self._waiting.clear()
            self._arrived.notify()
        self._publisher.close(0.0)

    def _run(self) -> None:
        due = limits.LOG_HEARTBEAT_SECONDS - (self._started - self._time)
        while True:
            batch = self._next(due)
            if batch is None:
                return
            due = limits.LOG_HEARTBEAT_SECONDS
            try:
                self._sequence(batch)
            except (LogHalted, LogSuperseded) as error:
                self._halt(error, batch)
                return
            except StorageError as error:
                self._fail(batch, error)
                due = limits.LOG_RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, signing must stop and nobody may wait for ever
                self._halt(LogHalted("sequencing failed for a reason nobody foresaw", found=repr(error)[:200]), batch)
                return

    def _next(self, due: float) -> list[PendingLeaf] | None:
        """The leaves of the next batch, none of them if the heartbeat is due; None to end."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._closed or self._beat, due)
            if self._linger and self._waiting and not self._closed:
                self._arrived.wait_for(lambda: len(self._waiting) >= limits.LOG_BATCH_ENTRIES, self._linger)
            if self._closed and not self._waiting:
                return None
            self._beat = False
            count = min(len(self._waiting), limits.LOG_BATCH_ENTRIES)
            return [self._waiting.popleft() for _ in range(count)]

    def _sequence(self, batch: list[PendingLeaf]) -> None:
        self._write_tiles()
        # 1
        now = self._watch.now(self._time)
        # 2
        made = self._made(batch, now)
        if batch and not made:
            return
        entries = tuple(entry for _, entry in made)
        start, growth = self._edge.size, self._edge.grow(entries)
        checkpoint = Checkpoint(self.origin, growth.edge.size, growth.edge.root)
        note = self._signers.sign(checkpoint, now)
        # 3
        statements = tuple(pending.statement for pending, _ in made)
        self._lock.commit(self._note, note, Batch(start, now, entries, statements))
        with self._arrived:
            self._note, self._checkpoint, self._time = note, checkpoint, now
        self._edge, self._unwritten = growth.edge, growth.tiles
        # 4
        self._write_tiles()
        # 5
        for index, (pending, _) in enumerate(made, start):
            pending.succeed(Sequenced(index, now))
        self._publisher.offer(note, checkpoint)

    def _made(self, batch: list[PendingLeaf], now: int) -> list[tuple[PendingLeaf, bytes]]:
        made = []
        size = 0
        for number, pending in enumerate(batch):
            try:
                entry = pending.make(now)
                size += len(encode_entry(entry))
            except Exception as error:  # noqa: BLE001 - one caller's fault is not the others'
                pending.fail(error)
                continue
            made.append((pending, entry))
            if size >= limits.LOG_BATCH_BYTES:
                with self._arrived:
                    self._waiting.extendleft(reversed(batch[number + 1 :]))
                break
        return made

    def _write_tiles(self) -> None:
        if self._unwritten:
            self._tiles.write(self._unwritten)
            self._unwritten = ()
            self._publisher.offer(self._note, self._checkpoint)
        with self._arrived:
            self._problem = None

    def _fail(self, batch: list[PendingLeaf], error: StorageError) -> None:
        with self._arrived:
            self._problem = error
        for pending in batch:
            pending.fail(LogUnavailable(error.message, found=error.found, hint=error.hint))

    def _halt(self, error: LogHalted | LogSuperseded, batch: list[PendingLeaf]) -> None:
        with self._arrived:
            self._drop(error, [*batch, *self._waiting])
            self._waiting.clear()

    def _drop(self, error: LogHalted | LogSuperseded, waiting: Iterable[PendingLeaf]) -> None:
        self._problem = error
        for pending in waiting:
            pending.fail(_again(error))


def _again(error: LogHalted | LogSuperseded) -> LogHalted | LogSuperseded:
    # Each thread raises an exception of its own: one object would gather the tracebacks of all.
    return type(error)(error.message, expected=error.expected, found=error.found, hint=error.hint)
