# SPDX-License-Identifier: Apache-2.0
"""A term: the time for which an instance writes the log, and stores that refuse to write once it is over.

Each term has a sequencer of its own. Its clock is the monotonic one of this machine, begun before the lease was asked
for and ended a little before the lease is, so that it is over here before it is over in the database. A sequencer that
slept through the end of its term can therefore not commit; and if even that fails it, the lock's compare-and-swap does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import LogSuperseded
from pq_registry.log.stores import Batch, Locked, LogLock, TileStore


class Term:
    """One instance's time as the writer of the log."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until = float("-inf")
        self._ended = False

    def extend(self, asked: float) -> None:
        """The lease was renewed by a request sent at ``asked``."""
        self._until = max(self._until, asked + limits.LEASE_SECONDS - limits.LEASE_MARGIN_SECONDS)

    def end(self) -> None:
        """It is over, for good."""
        self._ended = True

    @property
    def holds(self) -> bool:
        """Whether it is not over."""
        return not self._ended and self._monotonic() < self._until

    def require(self) -> None:
        """Refuse to write when it is over.

        Raises:
            LogSuperseded: if it is.
        """
        if not self.holds:
            raise LogSuperseded("this instance's time to write the log is over", hint="try again; another one does")


class TermLock:
    """A ``LogLock`` that takes commits in one term only."""

    def __init__(self, lock: LogLock, term: Term) -> None:
        self._lock = lock
        self._term = term

    def load(self) -> Locked | None:
        """See ``LogLock``."""
        return self._lock.load()

    def commit(self, expected: bytes | None, new: bytes, batch: Batch) -> None:
        """See ``LogLock``.

        Raises:
            LogSuperseded: if the term is over.
        """
        self._term.require()
        self._lock.commit(expected, new, batch)

    def staged(self) -> list[tuple[int, bytes]]:
        """See ``LogLock``."""
        return self._lock.staged()

    def keep_published(self, size: int, note: bytes, quorum: bool, at: datetime) -> None:
        """See ``LogLock``. What was published is recorded in any case."""
        self._lock.keep_published(size, note, quorum, at)

    def published_covering(self, index: int, *, quorum_first: bool = True) -> bytes | None:
        """See ``LogLock``."""
        return self._lock.published_covering(index, quorum_first=quorum_first)


class TermTiles:
    """A ``TileStore`` whose checkpoint is replaced in one term only.

    Tiles are written in any case: they are those of a committed batch, and whoever writes them writes the same.
    """

    def __init__(self, tiles: TileStore, term: Term) -> None:
        self._tiles = tiles
        self._term = term

    def read(self, path: str) -> bytes:
        """See ``TileStore``."""
        return self._tiles.read(path)

    def write(self, tiles: Sequence[tuple[str, bytes]]) -> None:
        """See ``TileStore``."""
        self._tiles.write(tiles)

    def write_checkpoint(self, note: bytes) -> None:
        """See ``TileStore``.

        Raises:
            LogSuperseded: if the term is over.
        """
        self._term.require()
        self._tiles.write_checkpoint(note)

    def write_vkey(self, text: bytes) -> None:
        """See ``TileStore``."""
        self._tiles.write_vkey(text)

    def has_tiles(self) -> bool:
        """See ``TileStore``."""
        return self._tiles.has_tiles()
