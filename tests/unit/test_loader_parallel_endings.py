# SPDX-License-Identifier: Apache-2.0
"""Loads of a group that end before they begin: nobody waits, nothing is kept, and everybody hears why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import DeviceFailed, NotFound, StorageError
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.parallel.joint import fingerprint, matter
from pq_registry.loader.parallel.place import Place
from pq_registry.loader.parallel.plan import Part
from pq_registry.loader.parallel.shares import Narrowed
from pq_registry.loader.selection import select
from tests.accelerator import OnDevice, Simulated
from tests.exchange import Hub
from tests.samples import manifest
from tests.tensors import safetensors_bytes
from tests.unit.test_loader_parallel_windows import Rank


@pytest.mark.parametrize("on_device", [False, True])
def test_one_whose_source_is_gone_tells_the_others_why_and_keeps_no_buffer(
    on_device: bool, monkeypatch: pytest.MonkeyPatch
):
    content, _ = safetensors_bytes({"a": ("U8", (9 * limits.SHARD_BYTES,))}, 1)
    files = {"a.safetensors": content}
    devices = [Simulated(seed=number) for number in range(2)]
    filler = Rank.filler

    def gone(self: Rank, *arguments: Any) -> Any:
        if self.exchange.place.rank == 1:
            raise NotFound("the directory is gone")
        return filler(self, *arguments)

    monkeypatch.setattr(Rank, "filler", gone)
    hub = Hub(2)
    ranks = [
        Rank(hub, number, files, files, form=OnDevice(devices[number]) if on_device else Numpy()) for number in range(2)
    ]
    try:
        for one in ranks:
            one.thread.join(60)
            assert not one.thread.is_alive() and isinstance(one.error, NotFound) and not one.tensors
            assert one.exchange.closed == 1
        assert [device.pinned for device in devices] == [[], []]
        assert not any(device.violations for device in devices)
    finally:
        for device in devices:
            device.close()


def test_processes_agree_about_the_way_bytes_go_too(monkeypatch: pytest.MonkeyPatch):
    content, _ = safetensors_bytes({"a": ("U8", (9,))}, 1)
    units = select(manifest({"a.safetensors": content}))
    opened: Any = SimpleNamespace(verified=SimpleNamespace(release=SimpleNamespace(digest="d")))

    def of(device: str | None) -> str:
        return matter(opened, units, Place(0, 2), device)

    assert of("cuda:0") == of("cuda:1") != of(None)
    before = of(None)
    assert len(before) < limits.LOADER_WORD_BYTES // 2
    monkeypatch.setattr(limits, "LOADER_WINDOW_BYTES", 1)
    assert of(None) != before, "windows of other sizes would be mixed up"


@pytest.mark.parametrize(
    ("fails", "error"), [(MemoryError(), StorageError), (RuntimeError("CUDA oom\n"), DeviceFailed)]
)
def test_a_part_there_is_no_memory_for_is_an_error_of_the_tree(fails: Exception, error: type[Exception]):
    class Scarce(np.ndarray):
        def copy(self, order: Any = "C") -> Any:
            raise fails

    content, _ = safetensors_bytes({"a": ("U8", (4, 4))}, 1)
    (unit,) = select(manifest({"a.safetensors": content}))
    narrowed = Narrowed(Numpy(), {"a": Part(1, 0, 2)}, meter=Meter())
    with pytest.raises(error, match="part of 'a'"):
        narrowed.make(unit.entry, np.zeros(16, np.uint8).view(Scarce))


def test_the_same_tensor_of_another_file_is_something_else():
    """Same name, same place, other bytes: files= differs."""
    paths = ("x.safetensors", "y.safetensors")
    files = {path: safetensors_bytes({"a": ("U8", (9,))}, seed)[0] for seed, path in enumerate(paths)}
    opened: Any = SimpleNamespace(verified=SimpleNamespace(release=SimpleNamespace(digest="d")))
    assert len({fingerprint(opened, select(manifest(files), files=[path])) for path in paths}) == 2
