# SPDX-License-Identifier: Apache-2.0
"""Where the time and the bytes of a transfer went: seconds and bytes by stage, added up over all threads.

Stages of a load: ``read`` (from disk or network into memory), ``hash`` (BLAKE3), ``unseal`` (AES-256-GCM), ``copy``
(from where the bytes were checked to where the tensor is), ``gather`` (bytes that other processes of a group verified,
and the wait for the slowest of them), ``wait`` (the caller waited for a tensor), ``held`` (a worker waited for the
caller to take one). Seconds of ``read`` to ``copy`` and of ``held`` are thread seconds: with
n threads they add up to n times the wall clock at most. The cost is two looks at the clock per shard.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, get_args

Stage = Literal["read", "hash", "unseal", "copy", "gather", "wait", "held"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one stage took: ``seconds`` of all threads together, and ``count`` bytes."""

    seconds: float = 0.0
    count: int = 0


class Meter:
    """Adds up what several threads report.

    >>> meter = Meter()
    >>> meter.add("hash", 0.5, 100)
    >>> meter["hash"].count
    100
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = dict.fromkeys(STAGES, Spent())

    def add(self, stage: Stage, seconds: float, count: int = 0) -> None:
        """``seconds`` more went into ``stage``, for ``count`` bytes."""
        with self._lock:
            before = self._spent[stage]
            self._spent[stage] = Spent(before.seconds + seconds, before.count + count)

    @contextmanager
    def timed(self, stage: Stage, count: int = 0) -> Iterator[None]:
        """Add the time of the body, and ``count`` bytes if it succeeds."""
        begun = time.perf_counter()
        try:
            yield
        except BaseException:
            self.add(stage, time.perf_counter() - begun)
            raise
        self.add(stage, time.perf_counter() - begun, count)

    def __getitem__(self, stage: Stage) -> Spent:
        with self._lock:
            return self._spent[stage]
