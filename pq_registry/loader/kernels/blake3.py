# SPDX-License-Identifier: Apache-2.0
"""BLAKE3 of many shards on a CUDA device."""

from __future__ import annotations

from typing import Any, Final

from pq_registry.crypto.shards import SHARD_DIGEST_BYTES
from pq_registry.errors import UsageError
from pq_registry.loader.kernels.launch import Rows, on_device_of, require_triton

CHUNK_BYTES: Final = 1024
CHUNK_LANES: Final = 32
"""Chunks a program: one warp, so that nothing waits for other warps, and what lanes exchange stays within it."""
TREE_LANES: Final = 256
"""Nodes a step of a program that merges the 2048 chunks of a shard; eight warps."""


def shard_digests(data: Any, *, stride: int, size: int, last: int, count: int, out: Any) -> None:
    """Digest shards on the current stream of their device; nothing is waited for.

    Args:
        data: 1-D uint8 tensor; shard ``k`` begins at ``k * stride``.
        stride: bytes from shard to shard.
        size: bytes of every shard but the last, at least 1.
        last: bytes of the last one.
        count: how many there are.
        out: uint8 tensor of shape (count, 32), contiguous, on the same device.

    Raises:
        UsageError: without triton, or if a tensor is not what it must be.
    """
    rows = Rows(data, stride, size, last, count)
    rows.check("what is to be digested")
    kind = (tuple(out.shape), str(out.dtype), out.is_contiguous(), out.device)
    if kind != ((count, SHARD_DIGEST_BYTES), "torch.uint8", True, data.device):
        raise UsageError(
            "there is no room for the digests",
            expected=f"a contiguous tensor of uint8, shape ({count}, {SHARD_DIGEST_BYTES}), on {data.device}",
            found=f"{out.dtype}, shape {tuple(out.shape)}, on {out.device}",
        )
    require_triton(data)
    import torch

    from pq_registry.loader.kernels.blake3_triton import chunk_kernel, tree_kernel

    with on_device_of(data):
        if not rows.aligned:
            rows = rows.copied()
        chunks = -(-size // CHUNK_BYTES)
        # Zeros, so that no digest of an earlier call is found again, whatever becomes of this one.
        nodes = data.new_zeros(count * chunks * 32).view(torch.uint32)
        spare = torch.empty(count * -(-chunks // 2) * 8, dtype=torch.uint32, device=data.device)
        # Of its own, for the caller's may begin anywhere.
        found = data.new_zeros((count, SHARD_DIGEST_BYTES)).view(torch.uint32)
        chunk_kernel[(-(-count * chunks // CHUNK_LANES),)](
            rows.data, nodes, rows.stride, size, last, count, CHUNK_LANES, num_warps=1
        )
        tree_kernel[(count,)](nodes, spare, found, size, last, count, TREE_LANES, num_warps=TREE_LANES // 32)
        out.copy_(found.view(torch.uint8))
