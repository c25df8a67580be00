# SPDX-License-Identifier: Apache-2.0
"""What is told to whoever watches a push, first of sending and then of verifying.

While parts are sent, their bytes count. When every byte is sent and the registry still reads what went straight to its
storage, that is a piece of work of its own, with what is left of it.
"""

from __future__ import annotations

import threading

from pq_registry.client.progress import Progress
from pq_registry.client.uploadanswers import Verifying


class VerifyingProgress:
    """Counts for ``progress``, on which a piece of work of ``total`` bytes has been started."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._label = label
        self._unsent = total
        self._far: dict[str, int] = {}
        self._verifies = False
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """So many more bytes are sent, or were there already."""
        with self._lock:
            self._unsent -= count
        self._progress.advance(count)

    def verified(self, upload_id: str, state: Verifying) -> None:
        """The registry is so far with one upload."""
        with self._lock:
            before = self._far.get(upload_id, 0)
            self._far[upload_id] = max(before, state.verified)
            if self._unsent > 0:
                return
            if self._verifies:
                self._progress.advance(self._far[upload_id] - before)
                return
            self._verifies = True
            self._progress.start(self._label, state.size)
            self._progress.advance(self._far[upload_id])

    def completed(self, upload_id: str, size: int) -> None:
        """The registry has verified one upload."""
        with self._lock:
            before = self._far.pop(upload_id, None)
            if before is not None and self._verifies:
                self._progress.advance(size - before)
