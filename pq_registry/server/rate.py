# SPDX-License-Identifier: Apache-2.0
"""How often somebody may ask: a rate for each token and for each address, with bursts, in bounded memory.

What is kept of a key is one number, the time at which its burst would be whole again (the generic cell rate
algorithm). A request moves it by ``1 / rate``; if it then lies more than ``limits.REQUEST_BURST_SECONDS`` ahead, the
request is refused, costs nothing, and is told when to come back: later, the more others of the same key were refused
since one was let in, so that a crowd behind one token does not return all at once. At most
``limits.REQUEST_RATE_KEYS`` keys are remembered, the least recent is forgotten first.

Each instance counts for itself: behind a proxy that spreads requests over ``n`` of them a caller gets ``n`` times the
rate. Used from the event loop only.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.errors import TooManyRequests

_ROUNDING = 1e-6
"""Seconds by which sums of binary fractions may be off."""


@dataclass(slots=True)
class _Key:
    whole: float
    refused: int = 0


class RateLimit:
    """Lets each key make ``rate`` requests per second; 0 is no limit."""

    def __init__(self, rate: int, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._what = what
        self._clock = clock
        self._keys: OrderedDict[str, _Key] = OrderedDict()

    def __bool__(self) -> bool:
        return self._rate > 0

    def admit(self, key: str) -> None:
        """Count one request.

        Raises:
            TooManyRequests: if it is one too many; ``retry_after`` says when to come back.
        """
        if not self:
            return
        now = self._clock()
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = _Key(now)
            if len(self._keys) > limits.REQUEST_RATE_KEYS:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(key)
        whole = max(known.whole, now) + 1 / self._rate
        if whole <= now + limits.REQUEST_BURST_SECONDS + _ROUNDING:
            known.whole = whole
            known.refused = max(0, known.refused - 1)
            return
        seconds = whole - now - limits.REQUEST_BURST_SECONDS + known.refused / self._rate
        known.refused = min(known.refused + 1, self._rate * limits.REQUEST_PAUSE_SECONDS)
        error = TooManyRequests(
            f"too many requests {self._what}", expected=f"at most {self._rate} per second",
            hint="ask again after the time in Retry-After",
        )  # fmt: skip
        error.retry_after = min(max(1, math.ceil(seconds)), limits.REQUEST_PAUSE_SECONDS)
        raise error
