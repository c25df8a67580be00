# SPDX-License-Identifier: Apache-2.0
"""The kernels for ``tests.benchmarks.gpu``: right on large inputs, and how fast alone; the bus beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pq_registry import limits
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.loader import kernels

SHARD, TAG = limits.SHARD_BYTES, limits.SEAL_TAG_BYTES
TIMES = 9


def prepare(device: torch.device) -> None:
    """Compile, or have the interpreter do what would be compiled."""
    kernels.prepare(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def noise(size: int, seed: int) -> np.ndarray:
    """Bytes."""
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def digests(data: torch.Tensor, stride: int, size: int, last: int, count: int) -> list[bytes]:
    """By the kernel."""
    out = torch.empty((count, 32), dtype=torch.uint8, device=data.device)
    kernels.shard_digests(data, stride=stride, size=size, last=last, count=count, out=out)
    return [bytes(row.numpy()) for row in out.cpu()]


def check(device: torch.device, *, small: bool) -> dict[str, Any]:
    """Compare; what differs is an AssertionError."""
    shard, count = (1024 + 64, 2) if small else (SHARD, 32)
    lasts = (100,) if small else (shard, 1, 15, 1024, 1025, 65536 + 4, shard - 1)
    done = {"digests": 0, "plaintexts": 0, "flipped bits found": 0}
    for begin in (0,) if small else (0, 8, 3):
        for last in lasts:
            stride = shard + TAG
            raw = noise(begin + (count - 1) * stride + last + TAG, last)
            data = torch.from_numpy(raw).to(device)[begin:]
            found = digests(data, stride, stride, last + TAG, count)
            parts = [raw[begin + k * stride :][: stride if k < count - 1 else last + TAG] for k in range(count)]
            assert found == [blake3(part.tobytes()).digest() for part in parts], ("blake3", begin, last)
            done["digests"] += count
    raw = noise(count * shard, 1)
    expected = [blake3(raw[k * shard :][:shard].tobytes()).digest() for k in range(count)]
    places = (5,) if small else (0, shard - 1, shard, 7 * shard + 1023, 7 * shard + 1024, count * shard - 1)
    for place in places:
        raw[place] ^= 1
        found = digests(torch.from_numpy(raw).to(device), shard, shard, shard, count)
        wrong = [k for k in range(count) if found[k] != expected[k]]
        assert wrong == [place // shard], ("a flipped bit", place, wrong)
        raw[place] ^= 1
        done["flipped bits found"] += 1
    for last in lasts[:1] if small else lasts:
        done["plaintexts"] += plaintexts(device, shard, last, count)
    return done


def plaintexts(device: torch.device, shard: int, last: int, count: int) -> int:
    """What the CPU sealed, decrypted by the kernel."""
    stride = shard + TAG
    stored = np.zeros(count * stride, np.uint8)
    plain = [noise(shard if k < count - 1 else last, k) for k in range(count)]
    keys = np.stack([noise(44, 1000 + k) for k in range(count)])
    for k, text in enumerate(plain):
        sealed = AESGCM(keys[k, :32].tobytes()).encrypt(keys[k, 32:].tobytes(), text.tobytes(), b"")
        stored[k * stride :][: len(sealed)] = np.frombuffer(sealed, np.uint8)
    out = torch.zeros(count * shard, dtype=torch.uint8, device=device)
    kernels.ctr_xor(
        torch.from_numpy(stored).to(device), out, stride=stride, out_stride=shard, size=shard, last=last, count=count,
        keys=torch.from_numpy(keys).to(device),
    )  # fmt: skip
    found = out.cpu().numpy()
    for k, text in enumerate(plain):
        assert np.array_equal(found[k * shard :][: len(text)], text), ("aes", last, k)
    assert not found[(count - 1) * shard + last :].any(), "written beyond the end"
    return count


def rates(device: torch.device, *, small: bool) -> dict[str, Any]:
    """GB/s, median and best of ``TIMES``: the copy alone, and the kernels over a run of a load and over 1 GiB."""
    rows: dict[str, Any] = {}
    size = 4096 if small else 1 << 30
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    there = torch.empty(size, dtype=torch.uint8, device=device)
    rows["copy of page-locked memory"] = rate(device, size, lambda: there.copy_(host, non_blocking=True), small=small)
    shard = 1024 if small else SHARD
    for count in (2,) if small else (limits.LOADER_DEVICE_SHARDS, 64, size // SHARD):
        room = count * shard
        out = torch.empty((count, 32), dtype=torch.uint8, device=device)
        keys = torch.zeros((count, 44), dtype=torch.uint8, device=device)
        stored = torch.empty(count * (shard + TAG), dtype=torch.uint8, device=device)

        def hashed(count: int = count, out: torch.Tensor = out) -> None:
            kernels.shard_digests(there, stride=shard, size=shard, last=shard, count=count, out=out)

        def decrypted(count: int = count, keys: torch.Tensor = keys, stored: torch.Tensor = stored) -> None:
            kernels.ctr_xor(
                stored, there, stride=shard + TAG, out_stride=shard, size=shard, last=shard, count=count, keys=keys
            )

        def both(hashed: Callable[[], None] = hashed, decrypted: Callable[[], None] = decrypted) -> None:
            hashed()
            decrypted()

        title = f"{room >> 20} MiB" if not small else f"{room} bytes"
        rows[f"BLAKE3, {title}"] = rate(device, room, hashed, small=small)
        rows[f"AES-256-CTR, {title}"] = rate(device, room, decrypted, small=small)
        if not small:
            rows[f"both, {title}"] = rate(device, room, both, small=small)
    return rows


def rate(device: torch.device, size: int, work: Callable[[], object], *, small: bool) -> dict[str, float]:
    """GB/s between two events around ``work``."""
    if small:
        work()
        return {"not measured": 0.0}
    seconds = []
    for _ in range(TIMES + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    seconds = seconds[2:]  # the first two warm up
    return {"median": size / statistics.median(seconds) / 1e9, "best": size / min(seconds) / 1e9}


def same_as_files(tensors: dict[str, Any], files: list[Path]) -> None:
    """Every byte of every tensor."""
    names = set()
    for path in files:
        raw = np.memmap(path, np.uint8, "r")
        start = header_size(raw[:8].tobytes(), raw.size)
        for entry in parse_header(raw[:start].tobytes(), raw.size).tensors:
            tensor = tensors[entry.name].contiguous().flatten()
            found = tensor.view(torch.uint8).cpu().numpy() if tensor.numel() else raw[:0]
            assert np.array_equal(found, raw[start + entry.begin : start + entry.end]), entry.name
            names.add(entry.name)
    assert names == tensors.keys(), "other tensors than the files have"
