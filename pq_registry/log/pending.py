# SPDX-License-Identifier: Apache-2.0
"""A leaf on its way into the log."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pq_registry.errors import LogUnavailable
from pq_registry.format.digest import Digest


@dataclass(frozen=True, slots=True)
class Sequenced:
    """The place of a leaf that is in the log for good, and the time that is in it."""

    index: int
    time: int


class PendingLeaf:
    """What ``Sequencer.append`` answers at once. It is settled once; later settlements change nothing."""

    __slots__ = ("_done", "_error", "_sequenced", "make", "statement")

    def __init__(self, make: Callable[[int], bytes], statement: Digest | None) -> None:
        self.make = make
        self.statement = statement
        self._done = threading.Event()
        self._sequenced: Sequenced | None = None
        self._error: Exception | None = None

    def succeed(self, sequenced: Sequenced) -> None:
        """The leaf is in the log and its tiles are durable."""
        if not self._done.is_set():
            self._sequenced = sequenced
            self._done.set()

    def fail(self, error: Exception) -> None:
        """The leaf is not in the log, or nobody can say yet."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    @property
    def settled(self) -> bool:
        """Whether it is known what became of the leaf."""
        return self._done.is_set()

    def result(self, timeout: float) -> Sequenced:
        """Where the leaf is, once it is there.

        Raises:
            LogUnavailable: if it took longer than ``timeout`` seconds, or could not be written; it may be in the log
                all the same.
            LogHalted: if the log does not go on.
            Exception: whatever ``make`` raised.
        """
        if not self._done.wait(timeout):
            raise LogUnavailable(
                "the log has not taken the statement yet", hint="try again: it is recorded and will not be lost"
            )
        if self._error is not None:
            raise self._error
        assert self._sequenced is not None
        return self._sequenced
