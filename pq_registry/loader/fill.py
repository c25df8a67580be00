# SPDX-License-Identifier: Apache-2.0
"""Fillers: they bring a run of shards into memory, and with one exception check it there.

``Checked`` reads the stored bytes of a plain release and compares BLAKE3 shard by shard, while a shard is still in the
core's cache. ``Unsealed`` leaves reading, checking and decrypting to the source (``client.unsealing``). Whoever checks
a shard tells the progress of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.client.source import ShardSource
from pq_registry.crypto.shards import require_digest, shard_digest
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.selection import Run


class Filler(Protocol):
    """Fills memory with runs; used by several threads at once."""

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        """Fill ``view``, which the placement made for ``run``; may give up anywhere once ``stopped()``.

        Raises:
            ShardMismatch: if a shard is not what was signed.
            PqregError: if it cannot be had.
        """

    def abort(self) -> None:
        """End every read under way."""

    def close(self) -> None:
        """Release connections and descriptors, once no thread reads any more."""


class Checked:
    """Plain shards, ``request`` of them per read, each checked where it was read to."""

    def __init__(
        self, source: ShardSource, *, request: int, progress: Progress, meter: Meter, attempts: int = 1
    ) -> None:
        """Read from ``source``, a shard that is not what was signed ``attempts`` times in all."""
        self._source = source
        self._attempts = attempts
        self._request = request
        self._progress = progress
        self._meter = meter

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        """Fill ``view``, one byte per byte of ``run``. Raises ShardMismatch or PqregError."""
        for number in range(run.count):
            if stopped():
                return  # whatever is unchecked now never lands
            begin = number * limits.SHARD_BYTES
            if number % self._request == 0:
                part = view[begin : begin + self._request * limits.SHARD_BYTES]
                with self._meter.timed("read", len(part)):
                    self._source.read_into(run.file, run.offset + begin, part)
            index = run.first + number
            shard = view[begin : begin + limits.SHARD_BYTES]
            with self._meter.timed("hash", len(shard)):
                found = shard_digest(shard)
            if found != run.file.shard_digest(index):
                self._again(run.file, index, shard, found)
            self._progress.advance(len(shard))

    def _again(self, file: FileEntry, index: int, shard: memoryview, found: bytes) -> None:
        """Fetch one damaged shard by itself until it is right. Raises ShardMismatch, or PqregError of the source."""
        for _ in range(self._attempts - 1):
            with self._meter.timed("read", len(shard)):
                self._source.read_into(file, index * limits.SHARD_BYTES, shard)
            with self._meter.timed("hash", len(shard)):
                found = shard_digest(shard)
            if found == file.shard_digest(index):
                return
        require_digest(file.shard_digest(index), found, path=file.path, index=index)

    def abort(self) -> None:
        """End every read under way."""
        self._source.abort()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class Unsealed:
    """Shards of a source that delivers nothing it did not check and decrypt itself, ``request`` of them per read."""

    def __init__(self, source: ShardSource, *, request: int, progress: Progress) -> None:
        self._source = source
        self._request = request
        self._progress = progress

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        """Fill ``view`` with plaintext, a byte per byte of ``run``. Raises ShardMismatch, UnsealFailed, PqregError."""
        step = self._request * limits.SHARD_BYTES
        for begin in range(0, run.size, step):
            if stopped():
                return
            part = view[begin : begin + step]
            self._source.read_into(run.file, run.offset + begin, part)
            self._progress.advance(len(part))

    def abort(self) -> None:
        """End every read under way."""
        self._source.abort()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
