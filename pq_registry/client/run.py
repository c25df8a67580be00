# SPDX-License-Identifier: Apache-2.0
"""A run of neighbouring shards of one file, fetched by one request and checked as it comes in.

Each shard is checked as soon as its last byte arrived, while it is in the processor's cache and the next ones are on
their way. One that is wrong does not spoil the others: it is fetched again by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from pq_registry import limits
from pq_registry.client.source import ShardSource
from pq_registry.client.staging import StagedFile
from pq_registry.crypto.shards import check_shard
from pq_registry.errors import ShardMismatch


class Run:
    """Neighbouring shards of one file, fetched by one request."""

    def __init__(
        self,
        file: StagedFile,
        first: int,
        end: int,
        *,
        memory: memoryview,
        verified: Callable[[StagedFile, int, memoryview], None],
    ) -> None:
        """The shards ``first`` to before ``end`` of ``file``; ``verified`` is called with each that is right."""
        self._file = file
        self._entry = file.entry
        self._base = first * file.entry.slice_size
        self._next = first
        self._end = end
        self._view = memory[: min(end * file.entry.slice_size, file.entry.size) - self._base]
        self._verified = verified
        self._got = 0
        self._wrong: list[int] = []

    def fetch(self, source: ShardSource) -> None:
        """Fetch, check and write the shards. Raises ShardMismatch for one that stays wrong."""
        source.read_into(self._entry, self._base, self._view, arrived=self._count)
        for index in self._wrong:
            self._again(source, index)

    def _count(self, more: int) -> None:
        self._got += more
        while self._next < self._end:
            offset, length = self._entry.shard_range(self._next)
            if offset + length - self._base > self._got:
                return
            view = self._view[offset - self._base : offset - self._base + length]
            index, self._next = self._next, self._next + 1
            try:
                # 8. Before a byte of it is written anywhere.
                check_shard(self._entry.shard_digest(index), view, path=self._entry.path, index=index)
            except ShardMismatch:
                self._wrong.append(index)
                continue
            self._verified(self._file, index, view)

    def _again(self, source: ShardSource, index: int) -> None:
        offset, length = self._entry.shard_range(index)
        view = self._view[:length]
        for attempt in range(2, limits.ATTEMPTS + 1):
            source.read_into(self._entry, offset, view)
            try:
                check_shard(self._entry.shard_digest(index), view, path=self._entry.path, index=index)
            except ShardMismatch:
                if attempt == limits.ATTEMPTS:
                    raise
                continue
            self._verified(self._file, index, view)
            return
