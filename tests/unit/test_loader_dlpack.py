# SPDX-License-Identifier: Apache-2.0
"""Tensors for any framework: what DLPack's structures say, who owns the memory, and what consumers make of it."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest

from pq_registry.errors import UsageError
from pq_registry.format.manifest import TensorEntry
from pq_registry.format.tensors import DTYPES
from pq_registry.loader import dlpack
from pq_registry.loader.dlpack import CODES, DLPack, DLPackTensor
from pq_registry.loader.dtypes import NUMPY

PLAIN_CODES = {"b": 6, "u": 1, "i": 0, "f": 2, "c": 5}


def made(dtype: str, shape: tuple[int, ...] = (2, 8)) -> tuple[DLPackTensor, np.ndarray]:
    size = DTYPES[dtype] * int(np.prod(shape)) // 8
    raw = np.random.default_rng(1).integers(0, 2 if dtype == "BOOL" else 256, size, np.uint8)
    return DLPack().make(TensorEntry("t", dtype, shape, 0, size), raw), raw


def structure(capsule: object, name: bytes):
    kind = dict(dlpack._STRUCTURES)[name]
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    return ctypes.cast(get(capsule, name), ctypes.POINTER(kind)).contents


def test_every_dtype_has_a_code_or_is_refused() -> None:
    assert NUMPY.keys() | CODES.keys() | {"F6_E2M3", "F6_E3M2"} == set(DTYPES)
    for dtype in ("F6_E2M3", "F6_E3M2"):
        with pytest.raises(UsageError, match="DLPack"):
            DLPack().check([TensorEntry("t", dtype, (4,), 0, 3)])
    with pytest.raises(UsageError):
        DLPack().check([TensorEntry("t", "F4", (2, 3), 0, 3)])
    DLPack().check([TensorEntry("t", dtype, (4,), 0, 0) for dtype in NUMPY.keys() | CODES.keys()])


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("dtype", sorted(NUMPY.keys() | CODES.keys()))
def test_what_the_structure_says(dtype: str, versioned: bool) -> None:
    tensor, raw = made(dtype)
    capsule = tensor.__dlpack__(max_version=(1, 1) if versioned else None)
    name = b"dltensor_versioned" if versioned and np.lib.NumpyVersion(np.__version__) >= "2.1.0" else b"dltensor"
    found = structure(capsule, name).tensor
    assert found.data + found.byte_offset == raw.ctypes.data
    assert (found.device_type, found.device_id) == tensor.__dlpack_device__() == (1, 0)
    said = (found.dtype.code, found.dtype.bits, found.dtype.lanes)
    if dtype in CODES:
        assert said == CODES[dtype]
    else:
        plain = np.dtype(NUMPY[dtype])
        assert said == (PLAIN_CODES[plain.kind], plain.itemsize * 8, 1)
    shape = [ctypes.cast(found.shape, ctypes.POINTER(ctypes.c_int64))[axis] for axis in range(found.ndim)]
    assert shape == ([2, 4] if dtype == "F4" else [2, 8])
    bits = found.dtype.bits * found.dtype.lanes * int(np.prod(shape))
    assert bits == tensor.nbytes * 8 == raw.nbytes * 8


@pytest.mark.parametrize("dtype", sorted(NUMPY))
def test_numpy_takes_it_over_without_a_copy(dtype: str) -> None:
    tensor, raw = made(dtype)
    array = np.from_dlpack(tensor)
    assert array.dtype == np.dtype(NUMPY[dtype]) and array.shape == (2, 8)
    assert array.tobytes() == raw.tobytes()
    assert np.shares_memory(array, raw)
    copied = np.from_dlpack(tensor, copy=True)
    assert copied.tobytes() == raw.tobytes() and not np.shares_memory(copied, raw)


def test_the_memory_lives_as_long_as_its_consumer_and_no_longer() -> None:
    class Memory(np.ndarray):
        pass

    raw = np.arange(64, dtype=np.uint8).view(Memory)
    gone = weakref.ref(raw)
    tensor = DLPack().make(TensorEntry("t", "I64", (8,), 0, 64), raw)
    array = np.from_dlpack(tensor)
    del raw, tensor
    gc.collect()
    assert gone() is not None
    assert array.tobytes() == bytes(range(64))
    del array
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_capsule_nobody_takes_frees_the_memory(dtype: str) -> None:
    class Memory(np.ndarray):
        pass

    raw = np.zeros(64, np.uint8).view(Memory)
    gone = weakref.ref(raw)
    tensor = DLPack().make(TensorEntry("t", dtype, (16,) if dtype == "F32" else (32,), 0, 64), raw)
    capsule = tensor.__dlpack__(max_version=(1, 0))
    del raw, tensor
    gc.collect()
    assert gone() is not None
    del capsule
    gc.collect()
    assert gone() is None


def test_other_devices_and_streams_are_refused_as_the_protocol_says() -> None:
    tensor, _ = made("F32")
    for options in ({"stream": 1}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**options)
    assert tensor.__dlpack__(dl_device=(1, 0)) is not None


def test_empty_tensors_and_scalars() -> None:
    assert np.from_dlpack(made("F32", (0, 4))[0]).shape == (0, 4)
    assert np.from_dlpack(made("F64", ())[0]).shape == ()
    assert repr(made("BF16", (1, 2))[0]) == "DLPackTensor(dtype='BF16', shape=(1, 2))"


@pytest.mark.torch
@pytest.mark.parametrize("dtype", sorted(NUMPY.keys() | CODES.keys()))
def test_torch_takes_it_over_without_a_copy(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")
    from pq_registry.loader.torch_bridge import TORCH

    tensor, raw = made(dtype)
    found = torch.from_dlpack(tensor)
    assert found.dtype == getattr(torch, TORCH[dtype])
    assert tuple(found.shape) == ((2, 4) if dtype == "F4" else (2, 8))
    assert found.data_ptr() == raw.ctypes.data
    assert found.flatten().view(torch.uint8).numpy().tobytes() == raw.tobytes()
