# SPDX-License-Identifier: Apache-2.0
"""Safetensors files with random content, and the arrays they must load as."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import tensor_bits
from pq_registry.loader.dtypes import Numpy

Truth = dict[str, np.ndarray]


def safetensors_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], seed: int, *, header_padding: int = 0
) -> tuple[bytes, Truth]:
    """A file with these (dtype, shape), in this order; ``header_padding`` more spaces misplace its data section."""
    rng = np.random.default_rng(seed)
    header: dict[str, object] = {}
    parts: list[np.ndarray] = []
    truth: Truth = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = tensor_bits(dtype, shape) // 8
        raw = rng.integers(0, 2 if dtype == "BOOL" else 256, size, np.uint8)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        truth[name] = Numpy().make(TensorEntry(name, dtype, shape, at, at + size), raw)
        parts.append(raw)
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + header_padding)
    return len(text).to_bytes(8, "little") + text + b"".join(part.tobytes() for part in parts), truth
