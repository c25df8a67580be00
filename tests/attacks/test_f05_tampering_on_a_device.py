# SPDX-License-Identifier: Apache-2.0
"""F5: what a device computes on, or is brought, is what was signed, or nothing is handed out of it.

The device here works late and in any order. A flipped bit anywhere in the stored bytes, stored bytes that are others
each time they are read, and bytes that change between page-locked memory and the device.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.errors import ShardMismatch
from pq_registry.loader.options import CheckedOn
from tests.accelerator import Simulated
from tests.deviceload import Loading, same
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
CONTENT, TRUTH = safetensors_bytes({f"t{number}": ("U8", (SHARD // 2 + number,)) for number in range(9)}, 11)
WAYS = pytest.mark.parametrize(
    ("check", "sealed"), [("cpu", False), ("cpu", True), ("device", False), ("device", True)]
)


def handed_out(loading: Loading, check: CheckedOn, **how: Any) -> dict[str, np.ndarray]:
    """What is handed out before the load is refused."""
    found: dict[str, np.ndarray] = {}
    with pytest.raises(ShardMismatch):
        for name, array in loading.tensors(check, **how):
            found[name] = array.copy()
    return found


@WAYS
def test_a_flipped_bit_anywhere(check: CheckedOn, sealed: bool) -> None:
    rng = random.Random(f"{check} {sealed}")
    device = Simulated(seed=rng.randrange(1000), lag=9)
    for _ in range(12):
        loading = Loading({"m.safetensors": CONTENT}, device, sealed=sealed)
        path = max(loading.source.files, key=lambda name: len(loading.source.files[name]))
        bad = bytearray(loading.source.files[path])
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        loading.source.files[path] = bytes(bad)
        found = handed_out(loading, check, whole=False)
        assert same(found, {name: TRUTH[name] for name in found})
    assert device.violations == []
    assert device.pinned == []
    device.close()


@WAYS
def test_a_source_that_lies_every_other_time(check: CheckedOn, sealed: bool) -> None:
    """Whatever was read when, only bytes that were checked where they are used are handed out."""
    device = Simulated(seed=4, lag=9)
    loading = Loading({"m.safetensors": CONTENT}, device, sealed=sealed, attempts=4)
    path = max(loading.source.files, key=lambda name: len(loading.source.files[name]))
    good = loading.source.files[path]
    bad = bytes(byte ^ 1 for byte in good)
    reads = 0

    def swap(name: str, offset: int) -> None:
        nonlocal reads
        reads += 1
        loading.source.files[path] = good if reads % 2 == 0 else bad

    loading.opened.stored().before = swap  # type: ignore[attr-defined]
    try:
        found = {name: array.copy() for name, array in loading.tensors(check, whole=True)}
    except ShardMismatch:
        found = {}
    assert same(found, TRUTH) or not found
    device.close()


@pytest.mark.parametrize("sealed", [False, True])
def test_bytes_that_change_on_the_bus_at_any_time(sealed: bool) -> None:
    rng = random.Random(8)
    device = Simulated(seed=5, lag=9)

    def spoil(arrived: np.ndarray) -> None:
        arrived[rng.randrange(len(arrived))] ^= 1 << rng.randrange(8)

    device.spoil = spoil
    for _ in range(6):
        assert handed_out(Loading({"m.safetensors": CONTENT}, device, sealed=sealed), "device", whole=True) == {}
    device.close()
