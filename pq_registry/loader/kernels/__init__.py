# SPDX-License-Identifier: Apache-2.0
"""BLAKE3 and AES-256-CTR on a CUDA device, in Triton (docs/operations/gpu.md, ADR 0017).

``shard_digests`` and ``ctr_xor`` queue their work on the current stream of the device and return; ``prepare`` compiles
everything ahead, which takes up to a minute the first time on a machine and is cached by triton from then on.
Importing this imports neither torch nor triton.
"""

from __future__ import annotations

from typing import Any

from pq_registry import limits
from pq_registry.loader.kernels.aes import MATERIAL_BYTES, ctr_xor
from pq_registry.loader.kernels.blake3 import shard_digests

__all__ = ["ctr_xor", "prepare", "shard_digests"]


def prepare(device: Any, *, sealed: bool = True) -> None:
    """Compile what a load on ``device`` will launch, by launching it on a few bytes.

    Raises:
        UsageError: if triton is not installed.
    """
    import torch

    few = torch.zeros(64, dtype=torch.uint8, device=device)
    out = torch.empty((1, 32), dtype=torch.uint8, device=device)
    stride = limits.SHARD_BYTES
    shard_digests(few, stride=stride, size=64, last=64, count=1, out=out)
    if sealed:
        keys = torch.zeros((1, MATERIAL_BYTES), dtype=torch.uint8, device=device)
        ctr_xor(few, few, stride=stride, out_stride=stride, size=64, last=64, count=1, keys=keys)
