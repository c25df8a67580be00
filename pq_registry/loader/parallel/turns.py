# SPDX-License-Identifier: Apache-2.0
"""Taking turns: several worker threads, and one order in which windows are exchanged that is the same everywhere.

Windows are numbered in the order in which a stream takes them, which the signed manifest decides. A worker that has
verified its share of a window waits for the window's turn; then this process says that it is ready, and if all are,
the window is exchanged. A worker that fails takes its turn all the same, and says why. So does the end of a load that
its caller left early. After that nothing is said any more: whoever waits for a turn ends with the same error.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pq_registry import limits
from pq_registry.errors import ConnectionFailed, PqregError
from pq_registry.loader.parallel.exchange import Exchange
from pq_registry.loader.parallel.words import agree, refuse
from pq_registry.loader.selection import Run


class Turns:
    """The turns of one load, of ``total`` windows."""

    def __init__(self, exchange: Exchange, total: int) -> None:
        """Windows go over ``exchange``, which is closed at the end."""
        self._exchange = exchange
        self._total = total
        self._drawn: dict[tuple[str, int], int] = {}
        self._turn = 0
        self._over = False
        self._cause: BaseException | None = None
        self._changed = threading.Condition()
        self._speaking = threading.Lock()

    def draw(self, run: Run) -> None:
        """Give the window ``run`` the next number. Called in the order of windows, by one thread at a time."""
        self._drawn[run.file.path.text, run.first] = len(self._drawn)

    def number(self, run: Run) -> int:
        """The number of the window ``run``."""
        return self._drawn[run.file.path.text, run.first]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """If what is done in here fails, that is why this process fails: the others are told."""
        try:
            yield
        except BaseException as error:
            with self._changed:
                self._cause = self._cause or error
            raise

    @contextmanager
    def ended_on_error(self) -> Iterator[None]:
        """As ``blamed``, where no stream would end the load."""
        try:
            with self.blamed():
                yield
        except BaseException:
            self.close()
            raise

    def take(self, run: Run, exchange: Callable[[], None], settle: Callable[[], None]) -> None:
        """Wait for the turn of the window ``run``, exchange it if all processes are ready, and make room for the next.

        Args:
            run: the window.
            exchange: what all of them do together.
            settle: what this one does with it then; if it fails, the others are told at the next turn.

        Raises:
            PqregError: what this process or another failed with.
        """
        if not self._wait(self.number(run)):
            raise self._ended()
        with self._speaking:
            if self._over:
                raise self._ended()
            try:
                agree(self._exchange)
                exchange()
            except BaseException as error:
                self._end(error)
                raise
            try:
                with self.blamed():
                    settle()
            except BaseException:
                self._advance()
                self._refuse()
                raise
            self._advance()

    def _advance(self) -> None:
        with self._changed:
            self._turn += 1
            self._changed.notify_all()

    def give_up(self, run: Run) -> None:
        """Wait for the turn of the window ``run``, and say that this process goes no further."""
        if self._wait(self.number(run)):
            with self._speaking:
                self._refuse()

    def close(self) -> None:
        """End the load: tell the others if they are still waiting for this process, and close the exchange.

        They may be busy with what they have got, and hear it later; nobody waits for that here.
        """
        thread = threading.Thread(target=self._leave, daemon=True, name="pqreg-load-leave")
        thread.start()
        thread.join(limits.INTERRUPT_SECONDS)

    def _leave(self) -> None:
        with self._speaking:
            self._refuse()
            with contextlib.suppress(ConnectionFailed):
                self._exchange.close()

    def _refuse(self) -> None:
        """Say that this process goes no further, if anybody is still to be told."""
        if not self._over and self._turn < self._total:
            with contextlib.suppress(ConnectionFailed):  # then they know
                refuse(self._exchange, self._cause)
        self._end(self._cause)

    def _wait(self, number: int) -> bool:
        """Whether it is the turn of ``number``; False once there are no more turns."""
        with self._changed:
            while self._turn != number and not self._over:
                self._changed.wait()
            return not self._over

    def _end(self, cause: BaseException | None) -> None:
        with self._changed:
            self._over = True
            self._cause = self._cause or cause
            self._changed.notify_all()

    def _ended(self) -> BaseException:
        if isinstance(self._cause, PqregError):
            return self._cause
        return ConnectionFailed("the load has ended")
