# SPDX-License-Identifier: Apache-2.0
"""Publishing: a thread that takes the newest committed checkpoint, has it cosigned, and shows it to readers.

Sequencing goes on meanwhile; what was committed while witnesses were asked is covered by the next round. The order is:
cosignatures, checkpoint in the tile store, record in the lock, answer to those who wait. A crash in between leaves what
readers saw at most ahead of what the lock remembers of it, never ahead of what was committed.

Where witnesses do not answer, or not enough of them, a larger tree is published without a quorum, and the witnesses are
asked again after ``limits.LOG_WITNESS_RETRY_SECONDS``; a checkpoint that has its quorum is not replaced by one of the
same tree that has none. Where tile store or lock fail, the same checkpoint is tried again after
``limits.LOG_RETRY_SECONDS``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import CheckpointInvalid, FormatError, LogHalted, LogUnavailable, PqregError, QuorumNotMet
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import Note
from pq_registry.format.tlogpolicy import LOG_PQ, Policy
from pq_registry.log.judge import judge
from pq_registry.log.stores import LogLock, TileStore, WitnessPool
from pq_registry.log.tree import Tree


@dataclass(frozen=True, slots=True)
class Published:
    """What readers were shown last."""

    checkpoint: Checkpoint
    note: bytes
    quorum: bool


class Publisher:
    """Publishes what it is offered, from its own thread, until it is closed."""

    def __init__(
        self,
        lock: LogLock,
        tiles: TileStore,
        policy: Policy,
        *,
        clock: Callable[[], datetime],
        witnesses: WitnessPool | None,
        last: bytes | None,
    ) -> None:
        self._lock = lock
        self._tiles = tiles
        self._policy = policy
        self._clock = clock
        self._witnesses = witnesses
        lock_of_both = threading.RLock()
        self._changed = threading.Condition(lock_of_both)
        # Apart from the one above, so that an offer wakes the thread and not everybody who waits for a receipt.
        self._work = threading.Condition(lock_of_both)
        self._offered: tuple[bytes, Checkpoint] | None = None
        self._newest: bytes | None = None
        self._published = None if last is None else self._remembered(last)
        self._problem: PqregError | None = None
        self._lacking = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-publisher", daemon=True)
        self._thread.start()

    @property
    def published(self) -> Published | None:
        """What readers were shown last, as far as this log remembers."""
        with self._changed:
            return self._published

    @property
    def problem(self) -> PqregError | None:
        """Why the newest checkpoint could not be published, if so."""
        with self._changed:
            return self._problem

    def offer(self, note: bytes, checkpoint: Checkpoint) -> None:
        """Publish this committed checkpoint, unless a newer one is offered first. Offered again it is still one."""
        with self._changed:
            if note == self._newest:
                return
            self._newest = note
            self._offered = (note, checkpoint)
            self._work.notify()

    def wait(self, index: int, timeout: float) -> bytes:
        """The newest published checkpoint, once one covers leaf ``index``.

        Raises:
            LogUnavailable: if none does within ``timeout`` seconds, or publishing ends.
            LogHalted: if it never will.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._covers(index) or self._closed or self._is_fatal(), timeout)
            if self._covers(index):
                assert self._published is not None
                return self._published.note
            problem = self._problem
        if isinstance(problem, LogHalted):
            raise LogHalted(problem.message, expected=problem.expected, found=problem.found, hint=problem.hint)
        raise LogUnavailable(
            f"no checkpoint with leaf {index} has been published yet",
            found=problem,
            hint="ask again for the receipt: the statement is recorded and will not be logged twice",
        )

    def close(self, timeout: float) -> None:
        """Publish what was offered, then end; give up after ``timeout`` seconds."""
        with self._changed:
            self._closed = True
            self._work.notify()
            self._changed.notify_all()
        self._thread.join(timeout)

    def _covers(self, index: int) -> bool:
        return self._published is not None and self._published.checkpoint.size > index

    def _is_fatal(self) -> bool:
        return isinstance(self._problem, LogHalted)

    def _run(self) -> None:
        note: bytes | None = None
        while True:
            with self._work:
                self._work.wait_for(lambda: self._offered is not None or self._closed, self._pause())
                if self._offered is not None:
                    note, checkpoint = self._offered
                    self._offered = None
                elif self._closed:
                    return
            if note is None:
                continue
            self._attempt(note, checkpoint)
            if self._is_fatal():
                return

    def _pause(self) -> float | None:
        if self._problem is not None:
            return limits.LOG_RETRY_SECONDS
        return limits.LOG_WITNESS_RETRY_SECONDS if self._lacking and self._witnesses is not None else None

    def _attempt(self, note: bytes, checkpoint: Checkpoint) -> None:
        problem: PqregError | None = None
        published: Published | None = None
        try:
            published = self._publish(note, checkpoint)
        except PqregError as error:
            problem = error
        except Exception as error:  # noqa: BLE001 - a thread that dies unseen would leave every publisher waiting
            problem = LogHalted("publishing failed for a reason nobody foresaw", found=repr(error)[:200])
        with self._changed:
            self._problem = problem
            self._published = published or self._published
            self._changed.notify_all()

    def _publish(self, note: bytes, checkpoint: Checkpoint) -> Published:
        cosigned = self._cosigned(note, checkpoint)
        self._lacking = not cosigned.quorum
        shown = self._published
        if shown is not None and shown.quorum and not cosigned.quorum and shown.checkpoint == checkpoint:
            return shown
        self._tiles.write_checkpoint(cosigned.note)
        self._lock.keep_published(checkpoint.size, cosigned.note, cosigned.quorum, self._clock())
        return cosigned

    def _cosigned(self, note: bytes, checkpoint: Checkpoint) -> Published:
        if self._witnesses is None or checkpoint.size == 0:
            # Both lines were verified when they were made, and that the policy is about these keys at the start.
            return Published(checkpoint, note, self._policy.satisfied({LOG_PQ}))

        def consistency(old_size: int) -> tuple[bytes, ...]:
            return Tree(self._tiles, checkpoint.size, checkpoint.root).consistency_proof(old_size)

        lines = self._witnesses.cosign(note, checkpoint, consistency)
        parsed = Note.parse(note)
        try:
            return self._judged(Note(parsed.text, (*parsed.signatures, *lines)).encode())
        except (CheckpointInvalid, FormatError):
            # One wrong line would make every reader refuse the whole note.
            return self._judged(note)

    def _remembered(self, note: bytes) -> Published:
        # The policy may be another than when it was published, and cosignatures are the witnesses' to answer for.
        try:
            return self._judged(note)
        except (CheckpointInvalid, FormatError):
            return Published(parse_checkpoint_note(note)[0], note, quorum=False)

    def _judged(self, note: bytes) -> Published:
        try:
            judge(note, self._policy)
            quorum = True
        except QuorumNotMet:
            quorum = False
        return Published(parse_checkpoint_note(note)[0], note, quorum)
