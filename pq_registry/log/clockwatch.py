# SPDX-License-Identifier: Apache-2.0
"""The log's clock: time never goes back and never stands still, or nothing is signed (case B6).

The time in a checkpoint is what a receipt proves. A clock behind what was signed before would let the log contradict
itself; one that stands still, or was set back to where that does not show, would let it attest statements as older than
they are. So each reading is compared with the last time signed and with the monotonic clock since the start. A clock
that jumps ahead cannot be told from one that was wrong before: it is taken, and witnesses and clients with clocks of
their own will notice.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import LogHalted

_HINT = "set the clock right (NTP), then start the service again"


class ClockWatch:
    """Reads the clock for one sequencer; used by one thread."""

    def __init__(self, clock: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._anchor: tuple[int, float] | None = None

    def now(self, last: int) -> int:
        """The present time in seconds since 1970, at least ``last``.

        Raises:
            LogHalted: if the clock is behind ``last``, or has fallen behind the monotonic one.
        """
        elapsed = self._monotonic()
        now = int(self._clock().timestamp())
        if now < max(1, last):
            raise LogHalted(
                "the clock is behind what the log has signed", expected=f"at least {last}", found=now, hint=_HINT
            )
        if self._anchor is not None:
            expected = self._anchor[0] + elapsed - self._anchor[1]
            if now + limits.LOG_CLOCK_LAG_SECONDS < expected:
                raise LogHalted(
                    "the clock stands still or was set back", expected=f"about {int(expected)}", found=now, hint=_HINT
                )
        if self._anchor is None or now > expected:
            self._anchor = (now, elapsed)
        return now
