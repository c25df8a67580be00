# SPDX-License-Identifier: Apache-2.0
"""Which run of shards a connection fetches next.

A connection stays with its file: the file's SHA-256 chain then finds every shard in memory, and as many chains run at
once as there are connections. When its file has nothing left it begins the next one, and when none is left it helps
with the file that has most to do, so that one large file, or the last one, keeps all connections busy.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from pq_registry.client.staging import StagedFile

Gap = tuple[StagedFile, int, int]


class Schedule:
    """The runs still to be fetched, handed to any number of threads, each to one of them."""

    def __init__(self, files: Iterable[StagedFile], begin: Callable[[StagedFile], None]) -> None:
        """Hand out the gaps of ``files``, which are begun in this order; ``begin`` is called when one is begun."""
        self._waiting = deque(files)
        self._begin = begin
        self._gaps: dict[StagedFile, deque[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def next(self, mine: StagedFile | None) -> Gap | None:
        """A run for the thread that fetched from ``mine`` last, or None when there is nothing left."""
        with self._lock:
            file = mine if mine in self._gaps else None
            if file is None and self._waiting:
                file = self._waiting.popleft()
                self._begin(file)
                self._gaps[file] = deque(file.gaps())
            elif file is None:
                file = max(self._gaps, key=lambda one: len(self._gaps[one]), default=None)
            if file is None:
                return None
            gaps = self._gaps[file]
            first, end = gaps.popleft()
            if not gaps:
                del self._gaps[file]
        return file, first, end
