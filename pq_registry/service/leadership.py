# SPDX-License-Identifier: Apache-2.0
"""Which instance writes the log: the one that holds the lease, or the only one there is.

``Sole`` is a service with a database of its own (SQLite): it always writes. ``Elected`` is one of several on a shared
database. One thread has a connection of its own there and does, over and over:

1. Leading, and the lease could not be renewed in time, or another has committed: **step down**, before anything else.
   The sequencer of that term is abandoned and can commit no more (``service.terms``).
2. Leading: renew the lease every ``limits.LEASE_RENEWAL_SECONDS``.
3. Not leading, and the lease is free: take it, and recover the log as every start does (``log.recovery``). When the
   one before must have noticed, the tree is signed and shown once more: that is then the newest checkpoint, also in a
   tile store that cannot compare when it replaces one.
4. Hear what other instances say: which statements they wait for, and that a checkpoint was published.

That nobody else acts is not what keeps the log from forking: the compare-and-swap of its lock does. A lease that two
believe to hold costs one of them a refused commit, after which it steps down and recovers (ADR 0015).

A log that halts here for a reason of this machine (its clock, say) is given to the others: the lease is given back and
this instance does not take it again before a restart. One that cannot be recovered is tried again after a pause.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from pq_registry import limits
from pq_registry.errors import LogHalted, LogSuperseded, PqregError, StorageError
from pq_registry.log.sequencer import Sequencer
from pq_registry.log.stores import LogLock
from pq_registry.service.terms import Term
from pq_registry.storage.leases import LeaseSession, LeaseState, Notice
from pq_registry.storage.loglock import PUBLISHED_CHANNEL

LEASE_CHANNEL = "pqreg_lease"
"""Where it is said that a lease was given back."""
WANTED_CHANNEL = "pqreg_wanted"
"""Where an instance asks for the leaf of a recorded statement, by its digest."""
_LEASE = "log"
_LOGGER = logging.getLogger("pq_registry.service.leadership")
_WAKE_SECONDS = 0.2
_START_LOOK_SECONDS = 0.02


class Leadership(Protocol):
    """Whether, and with what, this instance writes the log."""

    @property
    def sequencer(self) -> Sequencer | None:
        """The sequencer while this instance leads."""
        ...

    @property
    def problem(self) -> PqregError | None:
        """Why there is nobody who writes the log, as far as this instance knows."""
        ...

    def close(self) -> None:
        """Log what waits, then give the lease to another."""
        ...


class Sole:
    """The only instance."""

    problem: PqregError | None = None

    def __init__(self, sequencer: Sequencer) -> None:
        self.sequencer: Sequencer | None = sequencer

    def close(self) -> None:
        """Log what waits."""
        assert self.sequencer is not None
        self.sequencer.close()


class Elected:
    """One of several instances, which campaigns from ``await_start`` to ``close``.

    Args:
        url: the database's.
        lock: the log's lock.
        begin: recovers the log and starts a sequencer whose writes end with the given term.
        led: called, quickly, when this instance has begun to lead.
        heard: called, quickly, with what other instances say.
        monotonic: a clock that cannot be set.
    """

    def __init__(
        self,
        url: str,
        lock: LogLock,
        *,
        begin: Callable[[Term], Sequencer],
        led: Callable[[], None],
        heard: Callable[[Notice], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.holder = f"{platform.node()[:30]}:{os.getpid()}:{secrets.token_hex(6)}"
        self._url = url
        self._lock = lock
        self._begin = begin
        self._led = led
        self._heard = heard
        self._monotonic = monotonic
        self._term = Term(monotonic)
        self._sequencer: Sequencer | None = None
        self._opening: Future[Sequencer] | None = None
        self._renew_at = self._look_at = self._not_before = 0.0
        self._confirm_at = float("inf")
        self._seen: LeaseState | None = None
        self._led_at = monotonic()
        self._problem: PqregError | None = None
        self._halted: LogHalted | None = None
        self._refused: PqregError | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-leadership", daemon=True)

    @property
    def sequencer(self) -> Sequencer | None:
        """The sequencer while this instance leads."""
        return self._sequencer

    @property
    def following(self) -> bool:
        """Whether another instance was seen to hold the lease."""
        seen = self._seen
        return self._sequencer is None and seen is not None and seen.held and seen.holder != self.holder

    @property
    def problem(self) -> PqregError | None:
        """Why there is nobody who writes the log, as far as this instance knows."""
        if self._sequencer is not None:
            return None
        away = self._monotonic() - self._led_at
        if away <= limits.LEADERLESS_SECONDS:
            return None
        return self._halted or self._problem or StorageError(
            "no instance of this registry writes the log", found=f"none for {away:.0f} seconds"
        )  # fmt: skip

    def await_start(self, *, alone: bool, is_begun: Callable[[], bool]) -> None:
        """Begin, and return once this instance leads, or follows one that does.

        Args:
            alone: whether it must lead, because nobody else can use its stores.
            is_begun: answers whether there is a log, and refuses one that is not ours.

        Raises:
            PqregError: why the log cannot go on, or whatever ``is_begun`` raises.
            StorageError: if another service uses the database, or nobody leads.
        """
        self._thread.start()
        deadline = self._monotonic() + limits.LEASE_START_SECONDS
        while self._sequencer is None:
            if self._refused is not None:
                raise self._refused
            if self.following and not alone and is_begun():
                return
            if self._monotonic() > deadline:
                raise self._problem or _occupied(self._seen, alone=alone)
            self._closing.wait(_START_LOOK_SECONDS)

    def close(self) -> None:
        """Log what waits, then give the lease to another."""
        sequencer = self._sequencer
        if sequencer is not None:
            sequencer.close()  # meanwhile the lease is renewed
        self._closing.set()
        self._thread.join(limits.DRAIN_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                session = LeaseSession.open(
                    self._url, _LEASE, self.holder, LEASE_CHANNEL, PUBLISHED_CHANNEL, WANTED_CHANNEL
                )
            except PqregError as error:
                self._missed(error)
                continue
            try:
                self._attend(session)
            except PqregError as error:
                self._missed(error)
            except Exception as error:  # noqa: BLE001 - a thread that died unseen would keep its lease and do nothing
                self._missed(StorageError("leading failed for a reason nobody foresaw", found=repr(error)[:200]))
            finally:
                session.close()
        self._step_down()

    def _attend(self, session: LeaseSession) -> None:
        while not self._closing.is_set():
            self._act(session)
            for notice in session.hear(_WAKE_SECONDS):
                if notice.channel == LEASE_CHANNEL:
                    self._look_at = 0.0
                self._heard(notice)
        self._step_down()
        session.give_back(LEASE_CHANNEL)

    def _missed(self, error: PqregError) -> None:
        """The database did not answer: there is time until the term is over."""
        self._problem = error
        if not self._term.holds:
            self._step_down(f"the database did not answer: {error}")
        self._closing.wait(_WAKE_SECONDS)

    def _act(self, session: LeaseSession) -> None:
        # 1
        self._judge(session)
        now = self._monotonic()
        if self._sequencer is not None or self._opening is not None:
            # 2
            self._led_at = now
            if now >= self._renew_at:
                self._hold(session, now)
            if self._sequencer is not None and now >= self._confirm_at:
                self._confirm_at = float("inf")
                self._sequencer.renew()
        elif now >= self._look_at:
            # 3
            self._look_at = now + limits.LEASE_LOOK_SECONDS
            self._seen = seen = session.look()
            if seen is not None and seen.held and seen.holder != self.holder:
                self._led_at, self._problem = now, None
            elif self._halted is None and now >= self._not_before:
                self._term = Term(self._monotonic)
                if self._hold(session, now):
                    self._opening = self._open(self._term)

    def _hold(self, session: LeaseSession, asked: float) -> bool:
        if not session.take():
            self._step_down("another instance has the lease")
            return False
        self._term.extend(asked)
        self._renew_at = asked + limits.LEASE_RENEWAL_SECONDS
        return True

    def _open(self, term: Term) -> Future[Sequencer]:
        # In a thread of its own: recovery reads from the tile store, and the lease must be renewed meanwhile.
        opening: Future[Sequencer] = Future()

        def run() -> None:
            try:
                opening.set_result(self._begin(term))
            except Exception as error:  # noqa: BLE001 - it is raised again where the result is asked for
                opening.set_exception(error)

        threading.Thread(target=run, name="log-recovery", daemon=True).start()
        return opening

    def _judge(self, session: LeaseSession) -> None:
        if (self._sequencer is not None or self._opening is not None) and not self._term.holds:
            self._step_down("the lease could not be renewed in time")
        opening, sequencer = self._opening, self._sequencer
        if opening is not None and opening.done():
            self._opening = None
            try:
                self._sequencer = opening.result()
            except Exception as error:  # noqa: BLE001 - a thread that died unseen would leave the log without a writer
                self._pause(session, error)
                return
            self._problem = self._refused = None
            self._confirm_at = self._monotonic() + limits.LEASE_SECONDS
            self._led()
            _LOGGER.info("this instance writes the log", extra={"pqreg": {"holder": self.holder}})
        elif sequencer is not None:
            problem = sequencer.health().problem
            if isinstance(problem, LogSuperseded) or (isinstance(problem, LogHalted) and self._is_replaced(sequencer)):
                self._step_down("another instance has committed, or may have")
                self._look_at = self._monotonic() + _WAKE_SECONDS
            elif isinstance(problem, LogHalted):
                self._halted = problem
                self._step_down(f"the log halted here: {problem}")
                session.give_back(LEASE_CHANNEL)

    def _pause(self, session: LeaseSession, error: Exception) -> None:
        if not isinstance(error, PqregError):
            error = LogHalted("the log could not be recovered for a reason nobody foresaw", found=repr(error)[:200])
        self._problem = self._refused = error
        self._step_down(f"the log could not be recovered: {error}")
        self._not_before = self._monotonic() + limits.LEASE_PAUSE_SECONDS
        session.give_back(LEASE_CHANNEL)

    def _is_replaced(self, sequencer: Sequencer) -> bool:
        """Whether another has committed since: then what halted the sequencer is that, and nothing is wrong."""
        locked = self._lock.load()
        return locked is not None and locked.note != sequencer.note

    def _step_down(self, reason: str = "the service ends") -> None:
        self._term.end()
        sequencer, self._sequencer = self._sequencer, None
        opening, self._opening = self._opening, None
        if sequencer is not None or opening is not None:
            _LOGGER.warning(
                "this instance writes the log no longer", extra={"pqreg": {"holder": self.holder, "reason": reason}}
            )
        if sequencer is not None:
            sequencer.abandon()
        if opening is not None:
            opening.add_done_callback(_abandon)


def _occupied(seen: LeaseState | None, *, alone: bool) -> StorageError:
    if alone and seen is not None:
        return StorageError(
            "another service uses this database",
            found=f"{seen.holder} writes its log",
            hint="stop that one; several instances of one registry need an object store they share (--storage)",
        )
    return StorageError("the log was not begun by the instance that leads", hint="look at that one's log, then retry")


def _abandon(opening: Future[Sequencer]) -> None:
    if opening.exception() is None:
        opening.result().abandon()
