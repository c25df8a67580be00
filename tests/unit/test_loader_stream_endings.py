# SPDX-License-Identifier: Apache-2.0
"""Streams that end where nobody expects it: in a thread of their own, or with a thread that cannot be woken."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.errors import ConnectionFailed
from pq_registry.loader.existing import Existing, Given
from pq_registry.loader.fill import Checked
from pq_registry.loader.selection import runs, select
from pq_registry.loader.stream import Pace, TensorStream
from tests.samples import manifest
from tests.tensors import safetensors_bytes
from tests.unit.test_loader_stream import MemorySource, sample, stream

SHARD = limits.SHARD_BYTES


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["reading", "under the lock"])
def test_a_generator_that_is_collected_in_one_of_its_workers_ends(where: str, monkeypatch: pytest.MonkeyPatch):
    """As garbage is wherever the last allocation was: a cycle with a kept traceback is enough."""
    files, _ = sample()
    dropped, ended = threading.Event(), threading.Event()
    collected: list[str] = []

    def collect() -> None:
        if dropped.is_set() and not collected:
            collected.append(threading.current_thread().name)
            gc.collect()

    def before(path: str, offset: int) -> None:
        if len(source.reads) == 2:
            dropped.wait(30)
        if where == "reading":
            collect()

    class Source(MemorySource):
        def close(self) -> None:
            ended.set()

    class Cycle:
        pass

    source = Source(files, before)
    made = stream(select(manifest(files)), source, "own", workers=1)
    if where == "under the lock":
        part = made._part
        monkeypatch.setattr(made, "_part", lambda *args: (collect(), part(*args))[1])
    cycle: Any = Cycle()
    cycle.itself, cycle.generator = cycle, made.tensors()
    next(cycle.generator)
    gc.disable()  # so that it is not found here
    try:
        del cycle
        dropped.set()
        assert ended.wait(30)
    finally:
        gc.enable()
    assert collected == ["pqreg-load-0"]
    for thread in threading.enumerate():
        if thread.name.startswith("pqreg-load"):
            thread.join(30)


def test_the_last_thread_that_was_left_behind_closes_the_source(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "INTERRUPT_SECONDS", 0)
    files, _ = sample()
    stuck = threading.Event()

    def before(path: str, offset: int) -> None:
        if len(source.reads) >= 2:
            stuck.wait(30)

    source = MemorySource(files, before)
    tensors = stream(select(manifest(files)), source, "own", workers=2).tensors()
    next(tensors)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pqreg-load")]
    tensors.close()
    assert source.closed == 0, "a thread still reads"
    stuck.set()
    for thread in threads:
        thread.join(30)
    assert source.closed == 1


def test_a_run_that_was_given_up_half_checked_reaches_no_tensor_of_the_caller():
    """Another worker's error stops it after its first shard; its second one, already read, is not what was signed."""
    content, _ = safetensors_bytes({"a": ("U8", (6 * SHARD,))}, 1)
    units = select(manifest({"m.safetensors": content}))
    bad = bytearray(content)
    bad[SHARD : 2 * SHARD] = b"\xaa" * SHARD
    reading, failed = threading.Event(), threading.Event()

    def before(path: str, offset: int) -> None:
        if offset == 0:
            reading.set()
            assert failed.wait(30)
        elif reading.wait(30):
            raise ConnectionFailed("the other worker's")

    mine = np.zeros(6 * SHARD, np.uint8)
    meter, given = Meter(), Given({"a": mine})
    made = TensorStream(
        units,
        runs(units, longest=2, by_owner=True),
        Checked(MemorySource({"m.safetensors": bytes(bad)}, before), request=2, progress=NullProgress(), meter=meter),
        Existing(units, given, verified=False, meter=meter),
        given,
        pace=Pace(2, None),
        meter=meter,
    )
    stop = made._stop

    def stopped(error: BaseException | None) -> None:
        stop(error)
        failed.set()

    made._stop = stopped  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed):
        list(made.tensors())
    assert not mine.any()


def test_an_interrupt_while_the_lock_is_taken_does_not_leave_it_taken(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C between a condition's taking of its lock and the with statement: nothing would ever release it."""
    take, here = threading.Condition.__enter__, threading.get_ident()

    def interrupted(self: threading.Condition) -> bool:
        taken = take(self)
        if threading.get_ident() == here and self in (made._landed, made._room):
            raise KeyboardInterrupt
        return taken

    files, truth = sample()
    made = stream(select(manifest(files)), MemorySource(files), "own")
    tensors = made.tensors()
    monkeypatch.setattr(threading.Condition, "__enter__", interrupted)
    assert {name: array.tobytes() for name, array in tensors} == {n: a.tobytes() for n, a in truth.items()}
