# SPDX-License-Identifier: Apache-2.0
"""Tensors as numpy arrays: which dtype each dtype of safetensors becomes, and the bytes as an array of it.

Arrays are views of the bytes they are made from. The one exception is F4 in numpy: the format packs two elements in a
byte, the first in the low half, and ml_dtypes gives each a byte of its own, so these are unpacked. torch keeps them
packed (``float4_e2m1fn_x2``, the last dimension halved). F6 has no form in either framework and is refused before
anything is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.loader.device.accelerator import Accelerator

NUMPY: Final = MappingProxyType(
    {
        "BOOL": "bool",
        "U8": "uint8",
        "I8": "int8",
        "I16": "int16",
        "U16": "uint16",
        "F16": "float16",
        "I32": "int32",
        "U32": "uint32",
        "F32": "float32",
        "C64": "complex64",
        "F64": "float64",
        "I64": "int64",
        "U64": "uint64",
    }
)
"""dtypes numpy has itself."""

ML_DTYPES: Final = MappingProxyType(
    {
        "F4": "float4_e2m1fn",
        "F8_E5M2": "float8_e5m2",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E8M0": "float8_e8m0fnu",
        "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "BF16": "bfloat16",
    }
)
"""dtypes that the package ml_dtypes adds to numpy."""

Raw = np.ndarray[Any, np.dtype[np.uint8]]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of the safetensors dtype ``name``, which must be in one of the tables above."""
    plain = NUMPY.get(name)
    if plain is not None:
        return np.dtype(plain)
    import ml_dtypes

    added: np.dtype[Any] = np.dtype(getattr(ml_dtypes, ML_DTYPES[name]))
    return added


class Framework(Protocol):
    """What tensors are made as."""

    @property
    def on_cpu(self) -> bool:
        """Whether tensors share the memory their bytes were read into."""

    def accelerator(self) -> Accelerator | None:
        """The device that bytes are brought to, in whose memory ``make`` gets them; None if they stay with the host.

        Raises:
            DeviceFailed: if it does not answer.
        """

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse tensors the framework cannot represent, before anything is read. Raises UsageError."""

    def make(self, entry: TensorEntry, raw: Any) -> Any:
        """The tensor ``entry`` whose bytes are ``raw``, in host memory (``Raw``) or in that of the accelerator."""


class Numpy:
    """Arrays of numpy and ml_dtypes."""

    on_cpu = True

    def accelerator(self) -> None:
        """Arrays are in host memory."""

    def check(self, entries: Iterable[TensorEntry]) -> None:
        """Refuse what numpy cannot hold.

        Raises:
            UsageError: naming the first such tensor.
        """
        check_byte_order()
        for entry in entries:
            if entry.dtype not in NUMPY and entry.dtype not in ML_DTYPES:
                raise no_form(entry, "numpy")

    def make(self, entry: TensorEntry, raw: Raw) -> np.ndarray[Any, np.dtype[Any]]:
        """A view of ``raw``, or for F4 its elements unpacked."""
        dtype = numpy_dtype(entry.dtype)
        if entry.dtype == "F4":
            unpacked = np.empty(2 * raw.size, np.uint8)
            np.bitwise_and(raw, 0x0F, out=unpacked[0::2])
            np.right_shift(raw, 4, out=unpacked[1::2])
            raw = unpacked
        return raw.view(dtype).reshape(entry.shape)


def check_byte_order() -> None:
    """Refuse machines whose numbers are stored the other way round.

    Raises:
        UsageError: on a big-endian machine; safetensors is little-endian and views cannot swap bytes.
    """
    if sys.byteorder != "little":
        raise UsageError("tensors cannot be loaded here", expected="a little-endian machine", found=sys.byteorder)


def no_form(entry: TensorEntry, framework: str) -> UsageError:
    """The error for a tensor that ``framework`` cannot represent."""
    return UsageError(
        f"{framework} has no form for the tensor {entry.name!r}",
        expected="another dtype, or dimensions that can be packed",
        found=f"{entry.dtype} {list(entry.shape)}",
        hint="leave it out by giving names=, or use another framework",
    )
