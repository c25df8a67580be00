# SPDX-License-Identifier: Apache-2.0
"""Tensors for any framework that speaks DLPack 1.x, without importing one: ``framework="dlpack"``.

A ``DLPackTensor`` has ``__dlpack__`` and ``__dlpack_device__``, so ``torch.from_dlpack``, ``jax.dlpack.from_dlpack``,
``cupy.from_dlpack`` or ``numpy.from_dlpack`` make a tensor of theirs that shares the verified memory and keeps it
alive. numpy exports the memory as integers of the element's size, and of the structure it made only the element type
is written over where numpy has no such type: who owns and who frees the memory stays numpy's matter, with no callback
into Python.

F4 is exported as torch does: pairs of 4-bit elements (two lanes), the last dimension halved. F6 has no such form.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import DTYPES
from pq_registry.loader.dtypes import NUMPY, Raw, check_byte_order, no_form

CPU: Final = (1, 0)
"""kDLCPU, the first."""

CODES: Final = MappingProxyType(
    {
        "BF16": (4, 16, 1),
        "F8_E4M3": (10, 8, 1),
        "F8_E4M3FNUZ": (11, 8, 1),
        "F8_E5M2": (12, 8, 1),
        "F8_E5M2FNUZ": (13, 8, 1),
        "F8_E8M0": (14, 8, 1),
        "F4": (17, 4, 2),
    }
)
"""DLDataType (code, bits, lanes) of the dtypes numpy does not have (dlpack.h of DLPack 1.1)."""

_INTEGERS: Final = {1: np.uint8, 2: np.uint16}


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_STRUCTURES: Final = ((b"dltensor_versioned", _Versioned), (b"dltensor", _Managed))
"""What a capsule of each name points to."""


@dataclass(frozen=True, slots=True, eq=False)
class DLPackTensor:
    """A verified tensor that any framework can take over; ``dtype`` and ``shape`` are those of safetensors."""

    dtype: str
    shape: tuple[int, ...]
    _array: np.ndarray[Any, np.dtype[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self._array.nbytes

    def __repr__(self) -> str:
        return f"DLPackTensor(dtype={self.dtype!r}, shape={self.shape})"

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule for one consumer, as the Python array API defines it.

        Raises:
            BufferError: as the protocol demands, for a stream or another device than the CPU.
        """
        if stream is not None or (dl_device is not None and tuple(dl_device) != CPU):
            raise BufferError(f"the tensor is in host memory: expected device {CPU} and no stream, found {dl_device}")
        array = np.array(self._array) if copy else self._array
        try:
            capsule = array.__dlpack__(max_version=max_version)
        except TypeError:  # numpy 2.0 knows only the structure without a version, which every consumer takes
            capsule = array.__dlpack__()
        if self.dtype in CODES:
            _retype(capsule, *CODES[self.dtype])
        return capsule


class DLPack:
    """Tensors that any framework can take over."""

    on_cpu = True

    def accelerator(self) -> None:
        """Tensors are in host memory."""

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse what DLPack has no form for.

        Raises:
            UsageError: naming the first such tensor.
        """
        check_byte_order()
        for entry in entries:
            packed_oddly = entry.dtype == "F4" and (not entry.shape or entry.shape[-1] % 2 == 1)
            if (entry.dtype not in NUMPY and entry.dtype not in CODES) or packed_oddly:
                raise no_form(entry, "DLPack")

    def make(self, entry: TensorEntry, raw: Raw) -> DLPackTensor:
        """A tensor that shares ``raw``."""
        shape = entry.shape
        if entry.dtype == "F4":
            shape = (*shape[:-1], shape[-1] // 2)
        plain = NUMPY.get(entry.dtype)
        dtype = np.dtype(plain) if plain is not None else np.dtype(_INTEGERS[max(DTYPES[entry.dtype] // 8, 1)])
        return DLPackTensor(entry.dtype, entry.shape, raw.view(dtype).reshape(shape))


def _retype(capsule: Any, code: int, bits: int, lanes: int) -> None:
    """Write the element type into the structure that a capsule nobody has consumed points to."""
    api = ctypes.pythonapi
    valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", api))
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", api))
    for name, structure in _STRUCTURES:
        if valid(capsule, name):
            managed = ctypes.cast(pointer(capsule, name), ctypes.POINTER(structure)).contents
            managed.tensor.dtype = _DataType(code, bits, lanes)
            return
    raise BufferError("numpy exported something that is no DLPack tensor")
