# SPDX-License-Identifier: Apache-2.0
"""How many points of a sweep are tried: a sample in every run of the suite, all of them by ``make test-thorough``.

A sweep whose points cost seconds each would make the suite one that nobody runs. The sample is the same every time, so
a failure comes back; the whole sweep is for nights and for releases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count

THOROUGH = os.environ.get("THOROUGH", "") == "1"


def points(thorough: int, sample: int) -> int:
    """Of how many points a sweep of random ones is made."""
    return thorough if THOROUGH else sample


def stride(sample: int, thorough: int = 1) -> int:
    """Every how many points a sweep of all of them looks; primes meet every phase of a repeating pattern."""
    return thorough if THOROUGH else sample


def numbers(*, every: bool = True) -> Iterator[int]:
    """Which call of a sweep fails: each in turn, if ``every`` and thorough; else the Fibonacci numbers."""
    if THOROUGH and every:
        yield from count(1)
    one, two = 1, 2
    while True:
        yield one
        one, two = two, one + two
