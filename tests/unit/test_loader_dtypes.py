# SPDX-License-Identifier: Apache-2.0
"""Every dtype of safetensors as numpy arrays, against the values they encode."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load as reference_load
from safetensors.numpy import save as reference_save

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import DTYPES
from pq_registry.loader import dtypes
from pq_registry.loader.dtypes import ML_DTYPES, NUMPY, Numpy


def entry(dtype: str, shape: tuple[int, ...], size: int) -> TensorEntry:
    return TensorEntry("t", dtype, shape, 0, size)


def test_every_dtype_of_the_format_is_mapped_or_refused():
    mapped = NUMPY.keys() | ML_DTYPES.keys()
    assert mapped | {"F6_E2M3", "F6_E3M2"} == set(DTYPES)
    for name in mapped - {"F4"}:
        assert dtypes.numpy_dtype(name).itemsize * 8 == DTYPES[name], name


@pytest.mark.parametrize("name", sorted(NUMPY))
def test_plain_dtypes_equal_what_safetensors_reads(name: str):
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 2, 64, np.uint8) if name == "BOOL" else rng.integers(0, 256, 64, np.uint8)
    dtype = dtypes.numpy_dtype(name)
    file = reference_save({"t": raw.view(dtype).reshape(2, -1)})
    expected = reference_load(file)["t"]
    found = Numpy().make(entry(name, expected.shape, 64), raw)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def test_bfloat16_and_float8_have_the_right_values():
    one_and_minus_two = np.array([0x3F80, 0xC000], "<u2").view(np.uint8)
    assert Numpy().make(entry("BF16", (2,), 4), one_and_minus_two).astype(np.float32).tolist() == [1.0, -2.0]
    assert Numpy().make(entry("F8_E4M3", (1,), 1), np.array([0x38], np.uint8)).astype(np.float32).tolist() == [1.0]
    assert Numpy().make(entry("F8_E5M2", (1,), 1), np.array([0x3C], np.uint8)).astype(np.float32).tolist() == [1.0]
    assert Numpy().make(entry("F8_E8M0", (1,), 1), np.array([128], np.uint8)).astype(np.float32).tolist() == [2.0]


def test_float4_is_unpacked_low_half_first():
    raw = np.array([0x2 | 0xA << 4, 0x7 | 0x0 << 4], np.uint8)  # 1.0, -1.0; 6.0, 0.0
    found = Numpy().make(entry("F4", (2, 2), 2), raw)
    assert found.dtype == ml_dtypes.float4_e2m1fn
    assert found.astype(np.float32).tolist() == [[1.0, -1.0], [6.0, 0.0]]


def test_arrays_are_views_and_writable():
    raw = np.zeros(8, np.uint8)
    found = Numpy().make(entry("F32", (2,), 8), raw)
    assert np.shares_memory(found, raw)
    found[0] = 1
    assert raw.any()


@pytest.mark.parametrize(("shape", "size"), [((), 4), ((0,), 0), ((3, 0, 2), 0), ((1, 1, 1), 4)])
def test_scalars_and_empty_shapes(shape: tuple[int, ...], size: int):
    assert Numpy().make(entry("F32", shape, size), np.zeros(size, np.uint8)).shape == shape


def test_what_numpy_cannot_hold_is_refused_with_its_name():
    with pytest.raises(UsageError, match=r"'t'.*F6_E2M3"):
        Numpy().check([entry("F32", (1,), 4), entry("F6_E2M3", (4,), 3)])


def test_big_endian_machines_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(UsageError, match="little-endian"):
        Numpy().check([])
