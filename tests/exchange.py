# SPDX-License-Identifier: Apache-2.0
"""Processes of a group as threads of this one: an exchange that can be watched, and broken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pq_registry import limits
from pq_registry.errors import ConnectionFailed
from pq_registry.loader.parallel.place import Place


class Hub:
    """Where ``size`` exchanges meet. Each call waits until all are there, and until all have taken what they need."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.windows = 0
        self._barrier = threading.Barrier(size, timeout=60)
        self._held: list[Any] = [None] * size

    def meet(self, rank: int, mine: Any, take: Callable[[list[Any]], Any]) -> Any:
        try:
            self._held[rank] = mine
            self._barrier.wait()
            taken = take(list(self._held))
            self._barrier.wait()
        except threading.BrokenBarrierError:
            raise ConnectionFailed("the processes of the group lost one another") from None
        return taken

    def lose(self) -> None:
        """One of them is gone."""
        self._barrier.abort()


class InProcess:
    """The exchange of one of them."""

    def __init__(self, hub: Hub, rank: int) -> None:
        self.place = Place(rank, hub.size)
        self.hub = hub
        self.closed = 0
        self.said: list[bytes] = []
        self._busy = threading.Lock()

    def tell(self, word: bytes) -> Sequence[bytes]:
        assert len(word) <= limits.LOADER_WORD_BYTES and not self.closed
        assert self._busy.acquire(blocking=False), "two threads at once"
        try:
            self.said.append(word)
            heard: Sequence[bytes] = self.hub.meet(self.place.rank, word, list)
            return heard
        finally:
            self._busy.release()

    def gather(self, mine: Any, window: Any) -> None:
        assert isinstance(window, np.ndarray) and len(window) == len(mine) * self.hub.size and not self.closed
        assert self._busy.acquire(blocking=False), "two threads at once"

        def take(parts: list[Any]) -> None:
            for rank, part in enumerate(parts):
                window[rank * len(part) : (rank + 1) * len(part)] = part

        try:
            self.hub.meet(self.place.rank, mine, take)
            if self.place.rank == 0:
                self.hub.windows += 1
        finally:
            self._busy.release()

    def close(self) -> None:
        self.closed += 1
