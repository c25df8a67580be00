# SPDX-License-Identifier: Apache-2.0
"""What instances of one registry have to do with one another about the log, but for who leads (``leadership``).

An instance that does not write the log records statements all the same. Then it asks (``Wanted``, at the instance that
leads), and waits for the leaf and its receipt in the database, where every published checkpoint is news to it
(``News``). Both are hints: they are said again, and looked for, when they got lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from pq_registry import limits
from pq_registry.errors import CheckpointInvalid, FormatError, PqregError, QuorumNotMet
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.judge import judge
from pq_registry.log.publisher import Published
from pq_registry.log.sequencer import LogHealth
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import LogLock

_LOOK_SECONDS = 1.0


class News:
    """Counts what was published, and wakes those who wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    @property
    def count(self) -> int:
        """How much there has been."""
        with self._changed:
            return self._count

    def tell(self) -> None:
        """There is something new."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait(self, seen: int, timeout: float) -> None:
        """Return when there is more than ``seen``, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._count != seen, timeout)


class Wanted:
    """Logs, in a thread of its own, what other instances ask for, and what was left over when this one began to lead.

    Args:
        log: logs recorded statements; it may raise, those who asked will ask again.
        catch_up: logs what is recorded and in no log.
    """

    def __init__(self, log: Callable[[Iterable[Digest]], object], catch_up: Callable[[], object]) -> None:
        self._log = log
        self._catch_up = catch_up
        self._arrived = threading.Condition()
        self._statements: dict[Digest, None] = {}
        self._led = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-wanted", daemon=True)
        self._thread.start()

    def ask(self, payload: str) -> None:
        """Somebody waits for a statement; what is not a digest is not one of ours."""
        try:
            statement = Digest(payload)
        except PqregError:
            return
        with self._arrived:
            self._statements[statement] = None
            self._arrived.notify()

    def led(self) -> None:
        """This instance has begun to lead."""
        with self._arrived:
            self._led = True
            self._arrived.notify()

    def close(self) -> None:
        """End, after what is under way."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join(limits.DRAIN_SECONDS)

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._statements or self._led or self._closed)
                if self._closed:
                    return
                statements, self._statements = self._statements, {}
                led, self._led = self._led, False
            try:
                if led:
                    self._catch_up()
                if statements:
                    self._log(statements)
            except Exception:  # noqa: BLE001, S112 - shown by the log's health, and asked for again; nobody else would
                continue


class Elsewhere:
    """How a log is that another instance writes, as the database has it."""

    def __init__(self, lock: LogLock, signers: LogSigners, policy: Policy) -> None:
        self._lock = lock
        self._signers = signers
        self._policy = policy
        self._turn = threading.Lock()
        self._looked: tuple[float, LogHealth] | None = None

    def health(self, problem: PqregError | None) -> LogHealth:
        """How it is now, or was a moment ago; ``problem`` is why nobody writes it."""
        with self._turn:
            if self._looked is None or time.monotonic() - self._looked[0] > _LOOK_SECONDS:
                self._looked = (time.monotonic(), self._look())
            seen = self._looked[1]
        return LogHealth(seen.size, seen.time, 0, seen.published, problem or seen.problem, leading=False)

    def _look(self) -> LogHealth:
        try:
            locked = self._lock.load()
            if locked is None:
                return LogHealth(0, 0, 0, None, None)
            checkpoint, signed = self._signers.opened(locked.note)
            published = None if locked.published is None else self._published(locked.published)
        except PqregError as error:
            return LogHealth(0, 0, 0, None, error)
        return LogHealth(checkpoint.size, signed, 0, published, None)

    def _published(self, note: bytes) -> Published:
        checkpoint, _ = parse_checkpoint_note(note)
        try:
            judge(note, self._policy)
        except (QuorumNotMet, CheckpointInvalid, FormatError):
            return Published(checkpoint, note, quorum=False)
        return Published(checkpoint, note, quorum=True)
