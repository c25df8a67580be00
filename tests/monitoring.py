# SPDX-License-Identifier: Apache-2.0
"""A monitor's state in memory, and logs that grow."""

from __future__ import annotations

from pq_registry.errors import LogMisbehaved
from pq_registry.format.forkproof import ForkProof
from pq_registry.log.monitor import Followed
from tests.logsamples import MemoryLog


class State:
    """What is kept between runs, in memory."""

    def __init__(self) -> None:
        self.followed: Followed | None = None
        self.misbehaviour: list[tuple[type[LogMisbehaved], bytes, bytes]] = []
        self.forks: list[ForkProof | None] = []

    def load(self) -> Followed | None:
        return self.followed

    def keep(self, followed: Followed) -> None:
        self.followed = followed

    def keep_misbehaviour(self, error: LogMisbehaved, old: bytes, new: bytes, fork: ForkProof | None) -> None:
        self.misbehaviour.append((type(error), old, new))
        self.forks.append(fork)


def grown(log: MemoryLog, size: int) -> bytes:
    """The log with leaves up to ``size``, published."""
    log.append_raw(*(f"leaf {number}".encode() for number in range(log.size, size)))
    return log.publish()
