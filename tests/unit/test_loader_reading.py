# SPDX-License-Identifier: Apache-2.0
"""Ranges of a release whose reading ends early: nobody is given what was not checked, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.reading import VerifiedReader, _runs
from pq_registry.loader.selection import Run
from tests.samples import file_entry

SHARD = limits.SHARD_BYTES
UNCHECKED = 0x55


@dataclass
class Source:
    """A filler that fails with shard ``bad``, and otherwise leaves unchecked bytes when it is told to stop."""

    bad: int = -1
    inside: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    told: list[bool] = field(default_factory=list)

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        if run.first == self.bad:
            assert self.inside.wait(30)
            raise ShardMismatch(f"shard {run.first}")
        self.inside.set()
        deadline = time.monotonic() + 10
        while not stopped() and time.monotonic() < deadline:
            self.over.wait(0.005)
        self.told.append(stopped())
        self.over.wait(0.3)  # whoever does not wait for this thread is past the end by now
        view[:] = bytes([UNCHECKED]) * len(view)

    def abort(self) -> None:
        """Reads end when they are told to stop."""

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Release:
    """As much of ``OpenRelease`` as a reader needs."""

    source: Source
    workers: int = 2
    longest: int = 1

    def filler(self, *_: object) -> Source:
        return self.source


def reader_of(source: Source) -> VerifiedReader:
    return VerifiedReader(cast("Any", Release(source)), progress=NullProgress(), meter=Meter())


@pytest.fixture(scope="module")
def entry() -> FileEntry:
    return file_entry("big.txt", bytes(3 * SHARD))


def test_a_thread_that_still_reads_when_another_fails_is_told_and_writes_nothing_afterwards(entry: FileEntry) -> None:
    source = Source(bad=1)
    reader = reader_of(source)
    memory = bytearray(b"\xff") * (2 * SHARD)
    with pytest.raises(ShardMismatch, match="shard 1"):
        reader.read_into(entry, 0, memoryview(memory))
    source.over.set()
    reader.close()
    assert source.told == [True]
    assert not any(memory)


@pytest.mark.parametrize(("begin", "end"), [(0, SHARD), (5, 500)], ids=["a whole shard", "a part of one"])
def test_what_was_being_read_at_the_end_is_given_to_nobody(entry: FileEntry, begin: int, end: int) -> None:
    source = Source()
    reader = reader_of(source)
    memory = bytearray(b"\xff") * (end - begin)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(reader.read_into, entry, begin, memoryview(memory))
        assert source.inside.wait(30)
        reader.close()
        with pytest.raises(UsageError, match="closed"):
            reading.result(30)
    assert source.told == [True]
    assert not any(memory)


def test_long_ranges_are_shared_out_among_threads(entry: FileEntry) -> None:
    assert [(run.first, run.count) for run in _runs(entry, 0, 3 * SHARD, 2)] == [(0, 2), (2, 1)]
    assert [(run.first, run.count) for run in _runs(entry, 1, 3 * SHARD - 1, 4)] == [(0, 1), (1, 1), (2, 1)]
