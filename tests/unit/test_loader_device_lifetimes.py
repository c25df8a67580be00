# SPDX-License-Identifier: Apache-2.0
"""Lifetimes on a device that copies late and out of order: no buffer is used again or dropped under pending work."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import ConnectionFailed, DeviceFailed, StorageError
from pq_registry.loader.device.staging import Ring
from pq_registry.loader.options import CheckedOn
from tests.accelerator import HostMemory, Simulated, Work
from tests.deviceload import Loading, left_as_found, same, sample
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
CHECKS: tuple[CheckedOn, ...] = ("cpu", "device")
SEALED = (False, True)


@pytest.fixture(params=range(2))
def device(request: pytest.FixtureRequest) -> Iterator[Simulated]:
    with left_as_found(Simulated(seed=request.param, lag=(6, 40)[request.param])) as made:
        yield made


@pytest.fixture
def one_device() -> Iterator[Simulated]:
    made = Simulated(seed=7, lag=10)
    yield made
    made.close()


@pytest.mark.parametrize("sealed", SEALED)
@pytest.mark.parametrize("check", CHECKS)
def test_buffers_are_used_many_times_before_anybody_waits_for_a_tensor(check: CheckedOn, sealed: bool):
    device = Simulated(seed=3, lag=40)
    content, truth = safetensors_bytes({"t": ("U8", (40 * SHARD,))}, 5)
    assert same(dict(Loading({"m.safetensors": content}, device, sealed=sealed).tensors(check, whole=False)), truth)
    assert device.violations == []
    device.close()


def test_tensors_that_are_kept_are_never_written_again(device: Simulated):
    content, truth = safetensors_bytes({f"t{number:02}": ("U8", (2 * SHARD,)) for number in range(24)}, 5)
    for check in CHECKS:
        rng = random.Random(3)
        kept = {}
        for name, array in Loading({"m.safetensors": content}, device).tensors(check, whole=False):
            if rng.random() < 0.3:
                kept[name] = array[1:].view()
            del array
        assert len(kept) > 3
        assert all(array.tobytes() == truth[name][1:].tobytes() for name, array in kept.items())
    assert device.violations == []


@pytest.mark.parametrize("check", CHECKS)
def test_a_slot_that_is_used_again_too_early_is_noticed(
    one_device: Simulated, check: CheckedOn, monkeypatch: pytest.MonkeyPatch
):
    """Fault injection: if tickets lie, this device must say so; else the tests above would prove nothing."""
    content, _ = safetensors_bytes({"t": ("U8", (40 * SHARD,))}, 5)
    monkeypatch.setattr(Work, "done", lambda self: True)
    wait = Work.wait
    monkeypatch.setattr(
        Work, "wait", lambda self: None if threading.current_thread().name.startswith("pqreg-load") else wait(self)
    )
    if check == "cpu":
        list(Loading({"m.safetensors": content}, one_device).tensors(check, whole=True))
        assert "host memory was written while a copy from it was pending" in one_device.violations
    else:  # the digests come from the device: too early, there are none, and that is an error, not a pass
        with pytest.raises(DeviceFailed, match="too few digests"):
            list(Loading({"m.safetensors": content}, one_device).tensors(check, whole=True))


def test_a_tensor_that_is_handed_out_too_early_is_noticed(one_device: Simulated, monkeypatch: pytest.MonkeyPatch):
    content, truth = safetensors_bytes({f"t{number}": ("U8", (SHARD,)) for number in range(8)}, 5)
    monkeypatch.setattr(Simulated, "make_visible", lambda self, tickets: None)
    seen = {
        name: array.tobytes()
        for name, array in Loading({"m.safetensors": content}, one_device).tensors("cpu", whole=False)
    }
    assert any(seen[name] != truth[name].tobytes() for name in truth)


def test_memory_that_is_dropped_too_early_is_noticed(one_device: Simulated, monkeypatch: pytest.MonkeyPatch):
    content, _ = safetensors_bytes({f"t{number}": ("U8", (3 * SHARD,)) for number in range(8)}, 5)
    monkeypatch.setattr(Simulated, "settle", lambda self: None)
    route, _ = Loading({"m.safetensors": content}, one_device).route("cpu", whole=False)
    for _ in range(3):
        run = next(route.runs)
        route.placement.reserve(run)
        landing = route.placement.land(run)
        route.filler.fill(run, landing.view, lambda: False)
        landing.commit()
    route.placement.clear()
    assert "device memory was dropped while work on it was pending" in one_device.violations


@pytest.mark.parametrize("sealed", SEALED)
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("whole", [True, False])
def test_closing_early_drops_nothing_under_a_copy(device: Simulated, check: CheckedOn, whole: bool, sealed: bool):
    files, _ = sample()
    tensors = Loading(files, device, sealed=sealed).tensors(check, whole=whole)
    for _ in range(4):
        next(tensors)
    tensors.close()
    assert device.violations == []
    gc.collect()
    assert device.pinned == []
    assert sum(device.live.values()) == 0


@pytest.mark.parametrize("check", CHECKS)
def test_errors_of_the_source_end_everything(one_device: Simulated, check: CheckedOn):
    files, _ = sample()
    loading = Loading(files, one_device)

    def fail(path: str, offset: int) -> None:
        if path == "b.safetensors" and offset >= SHARD:
            raise ConnectionFailed("the cable is cut")

    loading.source.before = fail
    with pytest.raises(ConnectionFailed, match="cable"):
        list(loading.tensors(check, whole=False))
    assert loading.source.aborted == 1
    assert one_device.violations == []
    assert one_device.pinned == []


@pytest.mark.parametrize("check", CHECKS)
def test_a_device_that_fails_is_an_error_and_leaves_nothing(one_device: Simulated, check: CheckedOn):
    files, _ = sample()
    loading = Loading(files, one_device)
    loading.source.before = lambda path, offset: (
        one_device.fail("unspecified launch failure") if offset > SHARD else None
    )
    with pytest.raises(DeviceFailed, match="sim:0 failed"):
        list(loading.tensors(check, whole=True))
    assert one_device.pinned == []


def test_a_device_that_fails_after_the_last_tensor_is_an_error_all_the_same(one_device: Simulated):
    content, _ = safetensors_bytes({"t": ("U8", (SHARD,))}, 5)
    tensors = Loading({"m.safetensors": content}, one_device).tensors("cpu", whole=True)
    next(tensors)
    one_device.bring([])
    one_device.fail("xid 79")
    with pytest.raises(DeviceFailed, match="sim:0 failed"):
        next(tensors)
    assert one_device.pinned == []


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("whole", [True, False])
def test_too_little_memory_on_the_device_is_said_so(whole: bool, check: CheckedOn):
    device = Simulated(memory=6 * SHARD)
    files, _ = sample()
    loading = Loading(files, device)
    opened = 0
    stored = loading.opened.stored

    def count() -> Any:
        nonlocal opened
        opened += 1
        return stored()

    loading.opened = replace(loading.opened, stored=count)
    with pytest.raises(DeviceFailed, match="too little free memory"):
        list(loading.tensors(check, whole=whole))
    assert loading.source.closed == opened
    device.close()
    gc.collect()
    assert device.live == {} and device.pinned == []


@pytest.mark.parametrize("check", CHECKS)
def test_with_less_page_locked_memory_it_goes_on_with_what_there_is(one_device: Simulated, check: CheckedOn):
    files, truth = sample()
    one_device.pin_limit = 1
    assert same(dict(Loading(files, one_device).tensors(check, whole=True)), truth)
    one_device.pin_limit = 0
    with pytest.raises(StorageError, match="cannot get more memory"):
        list(Loading(files, one_device).tensors(check, whole=True))


def test_there_are_never_more_page_locked_buffers_than_threads_and_spare_ones(one_device: Simulated):
    content, _ = safetensors_bytes({"t": ("U8", (60 * SHARD,))}, 5)
    list(Loading({"m.safetensors": content}, one_device).tensors("cpu", whole=True))
    assert 3 <= one_device.most_pinned <= 3 + limits.LOADER_SPARE_SLOTS


def test_no_more_than_the_ring_is_on_the_device_ahead_of_the_caller(
    one_device: Simulated, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "LOADER_RING_BYTES", 4 * SHARD)
    content, truth = safetensors_bytes({f"t{number:02}": ("U8", (SHARD,)) for number in range(60)}, 5)
    most = 0
    for name, array in Loading({"m.safetensors": content}, one_device).tensors("cpu", whole=False):
        most = max(most, sum(one_device.live.values()))
        assert array.tobytes() == truth[name].tobytes()
        del array
    assert most <= (4 + 3 * 2 + 4) * SHARD, "ring, runs on their way, and what was just handed out"


@pytest.mark.parametrize("workers", [1, 3, 16, 64, 300])
def test_buffers_for_a_device_that_checks_are_bounded_whatever_the_number_of_threads(workers: int):
    device = Simulated()
    loading = Loading({"m.safetensors": safetensors_bytes({"t": ("U8", (SHARD,))}, 1)[0]}, device, sealed=True)
    loading.opened = replace(loading.opened, workers=workers)
    route, _ = loading.route("device", whole=True)
    stages = [route.placement._stages.take() for _ in range(2)]  # type: ignore[attr-defined]
    size = len(stages[0].host.view)
    assert (workers + 1) * size <= max(limits.LOADER_STAGE_BYTES, (workers + 1) * SHARD) * 1.001
    for stage in stages:
        stage.close()
    device.close()


def test_a_slot_that_comes_back_late_from_a_device_that_failed_is_given_back(one_device: Simulated):
    ring: Ring[HostMemory] = Ring(lambda: one_device.pin(10), most=1)
    slot = ring.take()
    ticket = one_device.bring([])
    ring.close()
    one_device.fail("fell off the bus")
    with pytest.raises(DeviceFailed):
        ring.put(slot, ticket)
    assert one_device.pinned == []
