# SPDX-License-Identifier: Apache-2.0
"""Tensors as torch tensors, on the device asked for. torch is imported when the first one is made, not before.

On the CPU a tensor shares the verified memory and keeps it alive. On a CUDA device it is a view of memory there, to
which checked bytes were brought (``loader.device``). On any other device it is a copy, and the memory it was copied
from is free once the copy is made.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Final

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.loader.device.accelerator import Accelerator, DeviceBytes
from pq_registry.loader.dtypes import Raw, check_byte_order, no_form

TORCH: Final = MappingProxyType(
    {
        "BOOL": "bool",
        "F4": "float4_e2m1fn_x2",
        "U8": "uint8",
        "I8": "int8",
        "F8_E5M2": "float8_e5m2",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E8M0": "float8_e8m0fnu",
        "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "I16": "int16",
        "U16": "uint16",
        "F16": "float16",
        "BF16": "bfloat16",
        "I32": "int32",
        "U32": "uint32",
        "F32": "float32",
        "C64": "complex64",
        "F64": "float64",
        "I64": "int64",
        "U64": "uint64",
    }
)
"""The torch dtype of each safetensors dtype that has one."""


def is_installed() -> bool:
    """Whether torch could be imported. Does not import it."""
    return "torch" in sys.modules or importlib.util.find_spec("torch") is not None


class Torch:
    """Tensors of torch on one device."""

    def __init__(self, device: str) -> None:
        """Import torch and try the device.

        Raises:
            UsageError: if torch is missing, or has no such device here.
        """
        if not is_installed():
            raise UsageError(
                "torch is not installed",
                expected="torch" if device == "cpu" else f"torch, for device={device!r}",
                hint='pip install "pq-registry[torch]"' + (' or framework="numpy"' if device == "cpu" else ""),
            )
        import torch

        self._torch = torch
        try:
            self._device = torch.device(device)
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            # A torch that was built without CUDA raises AssertionError, other backends either of the other two.
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"torch has no device {device!r} here", found=reason[:200], hint='try device="cpu"'
            ) from None

    @property
    def on_cpu(self) -> bool:
        """Whether tensors share the memory their bytes were read into."""
        return bool(self._device.type == "cpu")

    def accelerator(self) -> Accelerator | None:
        """The CUDA device, for whoever asks in the thread that will be given the tensors. Raises DeviceFailed."""
        if self._device.type != "cuda":
            return None
        from pq_registry.loader.device.cuda import Cuda

        return Cuda(self._torch, self._device)

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse what this version of torch cannot hold.

        Raises:
            UsageError: naming the first such tensor.
        """
        check_byte_order()
        for entry in entries:
            name = TORCH.get(entry.dtype)
            packed_oddly = entry.dtype == "F4" and (not entry.shape or entry.shape[-1] % 2 == 1)
            if name is None or not hasattr(self._torch, name) or packed_oddly:
                raise no_form(entry, f"torch {self._torch.__version__}")

    def make(self, entry: TensorEntry, raw: Raw | DeviceBytes) -> Any:
        """A tensor that shares ``raw``; of bytes in host memory for another device than the CPU, a copy."""
        dtype = getattr(self._torch, TORCH[entry.dtype])
        shape = entry.shape
        if entry.dtype == "F4":
            shape = (*shape[:-1], shape[-1] // 2)
        if not len(raw):  # torch.frombuffer refuses empty buffers
            return self._torch.empty(shape, dtype=dtype, device=self._device)
        if isinstance(raw, self._torch.Tensor):
            return raw.view(dtype).reshape(shape)
        tensor = self._torch.frombuffer(raw, dtype=self._torch.uint8).view(dtype).reshape(shape)
        return tensor if self.on_cpu else tensor.to(self._device)
