# SPDX-License-Identifier: Apache-2.0
"""AES-256-CTR of many sealed shards on a CUDA device: what GCM encrypts with, counters from 2 (SP 800-38D, 7.1).

GCM's tag is neither computed nor looked at. Whoever calls this has checked the signed BLAKE3 digest of what is to be
decrypted first (``shard_digests``).
"""

from __future__ import annotations

from typing import Any, Final

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.loader.kernels.launch import Rows, on_device_of, require_triton

MATERIAL_BYTES: Final = 44
"""Key (32) and nonce (12) of a shard."""
KEY_WORDS: Final = 2048
"""Words a shard's expanded key takes on the device."""
LANES: Final = 32
"""Lanes a program, 32 blocks each: one warp, for at 255 registers a lane a multiprocessor holds eight anyway."""
RUN_BYTES: Final = LANES * 32 * 16


def ctr_xor(data: Any, out: Any, *, stride: int, out_stride: int, size: int, last: int, count: int, keys: Any) -> None:
    """Decrypt (or encrypt) shards on the current stream of their device; nothing is waited for.

    The expanded keys are overwritten on the same stream when they are no longer needed; ``keys`` is the caller's.

    Args:
        data: 1-D uint8 tensor; shard ``k`` begins at ``k * stride``.
        out: the same for the result, ``out_stride`` apart; may be ``data``, if the strides agree.
        stride: bytes from shard to shard in ``data``.
        out_stride: bytes from shard to shard in ``out``.
        size: bytes of every shard but the last, without tags.
        last: bytes of the last one.
        count: how many there are.
        keys: uint8 tensor of shape (count, 44), contiguous, on the same device: key and nonce of each.

    Raises:
        UsageError: without triton, or if a tensor is not what it must be.
    """
    source, target = Rows(data, stride, size, last, count), Rows(out, out_stride, size, last, count)
    source.check("what is to be decrypted")
    target.check("where it is to go")
    if size > limits.LOADER_CIPHER_BYTES:
        raise UsageError("a shard is too long", expected=f"at most {limits.LOADER_CIPHER_BYTES} bytes", found=size)
    if out.device != data.device:
        raise UsageError("plaintext goes elsewhere", expected=f"a tensor on {data.device}", found=f"on {out.device}")
    kind = (tuple(keys.shape), str(keys.dtype), keys.is_contiguous(), keys.device)
    if kind != ((count, MATERIAL_BYTES), "torch.uint8", True, data.device):
        raise UsageError(
            "there is not a key for each shard",
            expected=f"a contiguous tensor of uint8, shape ({count}, {MATERIAL_BYTES}), on {data.device}",
            found=f"{keys.dtype}, shape {tuple(keys.shape)}, on {keys.device}",
        )
    require_triton(data)
    import torch

    from pq_registry.loader.kernels.aes_triton import ctr_kernel, schedule_kernel

    with on_device_of(data):
        material = torch.empty(count * MATERIAL_BYTES // 4, dtype=torch.uint32, device=data.device)
        material.view(torch.uint8).copy_(keys.reshape(-1))
        masks = torch.empty(count * KEY_WORDS, dtype=torch.uint32, device=data.device)
        try:
            schedule_kernel[(count,)](material, masks, num_warps=1)
            direct = source.aligned and target.aligned
            here = source if direct else source.copied()
            there = target if direct else here
            # Of a copy whole words are decrypted, up to the zeros behind each shard.
            ctr_kernel[(-(-size // RUN_BYTES), count)](
                here.data, there.data, masks, here.stride, there.stride,
                size if direct else here.stride, last if direct else -(-last // 4) * 4, count, LANES, num_warps=1,
            )  # fmt: skip
            if not direct:
                target.take(there)
        finally:
            # As bytes: not every torch has kernels for words without a sign.
            masks.view(torch.uint8).zero_()
            material.view(torch.uint8).zero_()
