# SPDX-License-Identifier: Apache-2.0
"""Tensors on a device that copies late and out of order: right bit for bit, checked there or here."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pq_registry import limits
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.loader.options import CheckedOn
from pq_registry.loader.selection import select
from tests.accelerator import Simulated, Work
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
@pytest.mark.parametrize("whole", [True, False])
def test_every_tensor_bit_for_bit_in_file_order(device: Simulated, check: CheckedOn, whole: bool, sealed: bool):
    files, truth = sample()
    loading = Loading(files, device, sealed=sealed)
    # What is copied here is what whoever gets a tensor sees at that moment.
    found = [(name, array.copy()) for name, array in loading.tensors(check, whole=whole)]
    assert [name for name, _ in found] == [unit.entry.name for unit in select(loading.opened)]
    assert same(dict(found), truth)
    assert device.violations == []
    assert loading.source.closed == 1
    starts = [(path, offset) for path, offset, _ in loading.source.reads]
    assert len(starts) == len(set(starts)), "no shard is read twice"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("whole", [True, False])
def test_only_what_is_asked_for_takes_room(one_device: Simulated, check: CheckedOn, whole: bool):
    files, truth = sample()
    loading = Loading(files, one_device)
    found = dict(loading.tensors(check, whole=whole, names=["b3", "b2", "a1"]))
    assert same(found, {name: truth[name] for name in ("b3", "b2", "a1")})
    gc.collect()
    needed = sum(array.nbytes for array in found.values())
    assert sum(one_device.live.values()) <= needed + 3 * 512, "staging is gone, and nothing else was allocated"


@pytest.mark.parametrize("sealed", SEALED)
@pytest.mark.parametrize("check", CHECKS)
def test_each_tampered_shard_is_refused_by_name_and_number(one_device: Simulated, check: CheckedOn, sealed: bool):
    files, _ = sample()
    loading = Loading(files, one_device, sealed=sealed)
    listed = loading.opened.unsealed.release.manifest.sealed_files if sealed else loading.opened.files  # type: ignore[union-attr]
    for file in listed:
        good = loading.source.files[file.path.text]
        for index in sorted({0, file.shard_count // 2, file.shard_count - 1} if file.shard_count else ()):
            offset, length = file.shard_range(index)
            bad = bytearray(good)
            bad[offset + length * 2 // 3] ^= 1
            loading.source.files[file.path.text] = bytes(bad)
            with pytest.raises(ShardMismatch, match=f"shard {index} of {file.path} ") as caught:
                list(loading.tensors(check, whole=True))
            assert caught.value.step == 8
        loading.source.files[file.path.text] = good
    assert one_device.violations == []
    assert one_device.pinned == []


@pytest.mark.parametrize("check", CHECKS)
def test_swapped_shards_are_refused_and_nothing_of_them_is_released(one_device: Simulated, check: CheckedOn):
    files, truth = sample()
    loading = Loading(files, one_device)
    content = files["b.safetensors"]
    loading.source.files["b.safetensors"] = content[SHARD : 2 * SHARD] + content[:SHARD] + content[2 * SHARD :]
    released: dict[str, np.ndarray] = {}
    with pytest.raises(ShardMismatch, match=r"of b\.safetensors"):
        for name, array in loading.tensors(check, whole=False):
            released[name] = array
    assert "b0" not in released
    assert same(released, {name: truth[name] for name in released})


@pytest.mark.parametrize("sealed", SEALED)
def test_bytes_that_change_on_their_way_to_the_device_are_found_by_the_device(one_device: Simulated, sealed: bool):
    """What was hashed is what is used; a check that ends where the copy begins cannot see this."""
    files, truth = sample()
    copies = 0

    def spoil(arrived: np.ndarray) -> None:
        nonlocal copies
        copies += 1
        if copies == 2:
            arrived[len(arrived) // 2] ^= 1

    one_device.spoil = spoil
    with pytest.raises(ShardMismatch):
        list(Loading(files, one_device, sealed=sealed).tensors("device", whole=True))
    copies = 0
    assert same(dict(Loading(files, one_device, sealed=sealed, attempts=2).tensors("device", whole=True)), truth)
    assert copies > 2


@pytest.mark.parametrize("sealed", SEALED)
def test_a_shard_that_arrived_damaged_is_fetched_again(one_device: Simulated, sealed: bool):
    files, truth = sample()
    loading = Loading(files, one_device, sealed=sealed, attempts=3)
    path = max(loading.source.files, key=lambda name: len(loading.source.files[name]))
    good = loading.source.files[path]
    bad = bytearray(good)
    bad[SHARD + 99] ^= 4
    loading.source.files[path] = bytes(bad)
    tries = 0

    def repair(name: str, offset: int) -> None:
        nonlocal tries
        if name == path and offset == one_slice:
            tries += 1
            if tries == 2:
                loading.source.files[path] = good

    one_slice = SHARD + (limits.SEAL_TAG_BYTES if sealed else 0)
    loading.source.before = repair
    assert same(dict(loading.tensors("device", whole=True)), truth)
    assert tries == 2
    loading.source.before = lambda name, offset: None
    loading.source.files[path] = bytes(bad)
    with pytest.raises(ShardMismatch, match="shard 1 of"):
        list(loading.tensors("device", whole=True))
    again = [read for read in loading.source.reads if read[:2] == (path, one_slice) and read[2] <= one_slice]
    assert len(again) == 2 + 2, "one repaired after two more reads in all, one given up after three"


def test_keys_are_overwritten_after_use(one_device: Simulated):
    files, truth = sample()
    assert same(dict(Loading(files, one_device, sealed=True).tensors("device", whole=True)), truth)
    assert one_device.key_copies
    assert not any(any(key) for key in one_device.key_copies)


def test_nothing_is_decrypted_before_all_of_a_run_was_compared(one_device: Simulated):
    files, _ = sample()
    loading = Loading(files, one_device, sealed=True)
    for path, content in loading.source.files.items():
        loading.source.files[path] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(ShardMismatch):
        list(loading.tensors("device", whole=True))
    decrypted = len(one_device.key_copies)
    assert decrypted < sum(file.shard_count for file in loading.opened.files), "the bad shards are among the rest"
    assert one_device.digest_calls


def test_the_host_sees_no_plaintext_of_a_sealed_release(one_device: Simulated, monkeypatch: pytest.MonkeyPatch):
    files, truth = sample()
    loading = Loading(files, one_device, sealed=True)
    seen: list[bytes] = []
    bring = Simulated.bring

    def look(self: Simulated, transfers: Any) -> Work:
        seen.extend(bytes(transfer.source) for transfer in transfers)
        return bring(self, transfers)

    monkeypatch.setattr(Simulated, "bring", look)
    list(loading.tensors("device", whole=True))
    probe = truth["b4"].tobytes()[5000:5032]
    assert seen and not any(probe in piece for piece in seen)


def test_a_device_without_kernels_is_refused_and_the_source_closed():
    device = Simulated(computes=False)
    loading = Loading(sample()[0], device)
    with pytest.raises(UsageError, match="computes nothing"):
        list(loading.tensors("device", whole=True))
    assert loading.source.closed == 1
    device.close()


def test_the_meter_knows_where_the_bytes_went(one_device: Simulated):
    files, _ = sample()
    size = sum(len(content) for content in files.values())
    plain = Loading(files, one_device)
    list(plain.tensors("device", whole=True))
    assert [plain.meter[stage].count for stage in ("read", "hash", "unseal", "copy")] == [size, size, 0, size]
    sealed = Loading(files, one_device, sealed=True)
    list(sealed.tensors("device", whole=True))
    stored = sealed.meter["read"].count
    assert stored > size
    assert [sealed.meter[stage].count for stage in ("hash", "unseal", "copy")] == [stored, size, size]


@pytest.mark.parametrize("check", ["cpu", "device"])
def test_tensors_that_are_not_neighbours_are_aligned_all_the_same(check: CheckedOn):
    content, truth = safetensors_bytes({"a": ("U8", (5,)), "b": ("U8", (3,)), "c": ("F64", (4,))}, 1)
    device = Simulated()
    try:
        loading = Loading({"m.safetensors": content}, device)
        found = dict(loading.tensors(check, whole=True, names=["a", "c"]))
        assert found["c"].base is not None and found["c"].ctypes.data % 8 == 0, "a is 5 bytes, and b is left out"
        assert same(found, {name: truth[name] for name in ("a", "c")})
    finally:
        device.close()
