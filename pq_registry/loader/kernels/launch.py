# SPDX-License-Identifier: Apache-2.0
"""What both kernels need before they are launched: triton, one device, and shards that begin and end at words.

The kernels read and write 32-bit words. Shards that are not aligned, or whose last word is not full, are copied on the
device first, with zeros after each. In a release that is the end of a file whose size is no multiple of 4, seldom more.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pq_registry.errors import UsageError

WORD_BYTES = 4
ROW_BYTES = 16
"""Rows of a copy begin at multiples of this: what a lane reads at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """``count`` shards in a tensor of bytes, ``stride`` apart, each of ``size`` bytes, the last of ``last``."""

    data: Any
    stride: int
    size: int
    last: int
    count: int

    def check(self, what: str) -> None:
        """Refuse what does not fit.

        Raises:
            UsageError: if ``data`` is no contiguous 1-D tensor of bytes that holds them all.
        """
        data = self.data
        if not (self.count >= 1 and 1 <= self.last <= self.size and (self.count == 1 or self.size <= self.stride)):
            raise UsageError(f"{what}: these are no shards", expected="1 <= last <= size <= stride", found=self._text())
        if str(data.dtype) != "torch.uint8" or data.dim() != 1 or not data.is_contiguous():
            raise UsageError(
                f"{what} is no tensor of bytes",
                expected="a contiguous 1-D tensor of uint8",
                found=f"{data.dtype}, shape {tuple(data.shape)}",
            )
        if data.numel() < self.end:
            raise UsageError(f"{what} is too short", expected=f"at least {self.end} bytes", found=f"{data.numel()}")

    def _text(self) -> str:
        return f"count={self.count} stride={self.stride} size={self.size} last={self.last}"

    @property
    def end(self) -> int:
        """Where the last shard ends."""
        return (self.count - 1) * self.stride + self.last

    @property
    def aligned(self) -> bool:
        """Whether every shard begins and ends at a word."""
        places = (self.data.data_ptr(), self.last) + ((self.stride, self.size) if self.count > 1 else ())
        return all(place % WORD_BYTES == 0 for place in places)

    def copied(self) -> Rows:
        """The same shards, aligned, with zeros after each."""
        stride = -(-self.size // ROW_BYTES) * ROW_BYTES
        copy = Rows(self.data.new_zeros(self.count * stride), stride, self.size, self.last, self.count)
        copy.take(self)
        return copy

    def take(self, other: Rows) -> None:
        """Copy what the same shards are elsewhere, not a byte besides."""
        whole = (self.count - 1, self.size)
        if self.count > 1:
            self.data.as_strided(whole, (self.stride, 1), self.data.storage_offset()).copy_(
                other.data.as_strided(whole, (other.stride, 1), other.data.storage_offset())
            )
        begin, there = (self.count - 1) * self.stride, (other.count - 1) * other.stride
        self.data[begin : begin + self.last].copy_(other.data[there : there + self.last])


def require_triton(data: Any) -> None:
    """Refuse where the kernels could not be compiled, or could not reach ``data``.

    Raises:
        UsageError: if triton is not installed, or ``data`` is on the CPU and triton does not interpret.
    """
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        raise UsageError(
            "triton is not installed",
            expected="triton, which torch for CUDA brings along",
            hint='pip install "pq-registry[cuda]"',
        )
    import triton

    if data.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise UsageError("kernels run on a CUDA device", expected="a tensor on it", found=f"one on {data.device}")


def on_device_of(data: Any) -> AbstractContextManager[Any]:
    """Makes the device of ``data`` the one that launches go to. Nothing to do for the interpreter's CPU tensors."""
    if data.device.type != "cuda":
        return nullcontext()
    import torch

    return torch.cuda.device(data.device)  # type: ignore[no-any-return]
