# SPDX-License-Identifier: Apache-2.0
"""A bandwidth cap shared by all connections of a transfer.

``take(n)`` is called after ``n`` bytes came in, or before they go out, and waits until the average since the first
call is back at the cap. Unused time is worth at most ``limits.RATE_BURST_SECONDS`` of bytes, so a pause is not
followed by a flood.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pq_registry import limits


def never() -> bool:
    """The default of ``stopped``: keep waiting."""
    return False


class TokenBucket:
    """At most ``bytes_per_second``, on average, over any number of threads; 0 is no cap."""

    def __init__(
        self,
        bytes_per_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._paid_until = clock()

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self._rate > 0

    @property
    def slice_bytes(self) -> int:
        """How much to move between two calls of ``take``, so that the cap is felt evenly."""
        if not self.capped:
            return limits.RANGE_SHARDS * limits.SHARD_BYTES
        return max(1, min(limits.RATE_SLICE_BYTES, self._rate))

    def take(self, count: int, stopped: Callable[[], bool] = never) -> None:
        """Wait until ``count`` more bytes fit under the cap, or until ``stopped`` says true."""
        if not self.capped:
            return
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - limits.RATE_BURST_SECONDS) + count / self._rate
            until = self._paid_until
        while (left := until - self._clock()) > 0 and not stopped():
            self._sleep(min(left, limits.RATE_NAP_SECONDS))
