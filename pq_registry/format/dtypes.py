# SPDX-License-Identifier: Apache-2.0
"""Element types of tensors, as safetensors names them, and how much room a tensor of one takes.

Sizes are in bits because some types are smaller than a byte; a tensor must come to whole bytes all the same, which is
checked where its offsets are known (``tensors``).
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError

DTYPES: Final = MappingProxyType(
    {
        "BOOL": 8,
        "F4": 4,
        "F6_E2M3": 6,
        "F6_E3M2": 6,
        "U8": 8,
        "I8": 8,
        "F8_E5M2": 8,
        "F8_E4M3": 8,
        "F8_E8M0": 8,
        "F8_E4M3FNUZ": 8,
        "F8_E5M2FNUZ": 8,
        "I16": 16,
        "U16": 16,
        "F16": 16,
        "BF16": 16,
        "I32": 32,
        "U32": 32,
        "F32": 32,
        "C64": 64,
        "F64": 64,
        "I64": 64,
        "U64": 64,
    }
)
"""Bits per element of every dtype of safetensors 0.8."""


def tensor_bits(dtype: str, shape: tuple[int, ...]) -> int:
    """Bits that a tensor of ``dtype`` and ``shape`` occupies.

    Raises:
        FormatError: for an unknown dtype, too many dimensions, or sizes no machine can hold.
    """
    bits = DTYPES.get(dtype)
    if bits is None:
        raise FormatError("unknown dtype", expected=", ".join(DTYPES), found=repr(dtype)[:40])
    if len(shape) > limits.TENSOR_RANK:
        raise FormatError(
            "too many dimensions", expected=f"at most {limits.TENSOR_RANK}", found=f"{len(shape)} of {dtype}"
        )
    # Zeros are left out: [2^50, 0, 2^50] holds nothing, but multiplying it out overflows elsewhere.
    if math.prod(size for size in shape if size) * bits > limits.FILE_BYTES * 8:
        raise FormatError("a tensor is too large", expected=f"at most {limits.FILE_BYTES} bytes", found=shape)
    return math.prod(shape) * bits
