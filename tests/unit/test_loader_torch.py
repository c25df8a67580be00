# SPDX-License-Identifier: Apache-2.0
"""Verified tensors as torch tensors. Left out, and listed as such, where torch is not installed."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (make test-torch)")

import pq_registry  # noqa: E402
from pq_registry import limits  # noqa: E402
from pq_registry.errors import UsageError  # noqa: E402
from pq_registry.format.manifest import TensorEntry  # noqa: E402
from pq_registry.format.tensors import DTYPES  # noqa: E402
from pq_registry.loader import api  # noqa: E402
from pq_registry.loader.torch_bridge import TORCH, Torch  # noqa: E402
from tests.releases import release_directory, write_trust  # noqa: E402
from tests.samples import NOW  # noqa: E402
from tests.tensors import safetensors_bytes  # noqa: E402

pytestmark = pytest.mark.torch


def entry(dtype: str, shape: tuple[int, ...], size: int) -> TensorEntry:
    return TensorEntry("t", dtype, shape, 0, size)


def bits(tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_every_dtype_of_the_format_is_mapped_or_refused():
    assert TORCH.keys() | {"F6_E2M3", "F6_E3M2"} == set(DTYPES)
    for name in TORCH.keys() - {"F4"}:
        assert getattr(torch, TORCH[name]).itemsize * 8 == DTYPES[name], name


@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_bytes_become_tensors_and_stay_the_same_memory(dtype: str):
    raw = np.random.default_rng(1).integers(0, 2 if dtype == "BOOL" else 256, 64, np.uint8)
    elements = 64 * 8 // DTYPES[dtype]
    tensor = Torch("cpu").make(entry(dtype, (2, elements // 2), 64), raw)
    halved = 2 if dtype == "F4" else 1
    assert tuple(tensor.shape) == (2, elements // 2 // halved)
    assert tensor.dtype == getattr(torch, TORCH[dtype])
    assert bits(tensor) == raw.tobytes()
    assert tensor.data_ptr() == raw.ctypes.data


def test_values_agree_with_safetensors(tmp_path: Path):
    from safetensors.torch import load, save

    truth = {
        "bf16": torch.randn(3, 5).to(torch.bfloat16),
        "f8": torch.randn(4, 4).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "ids": torch.arange(1000),
        "mask": torch.tensor([True, False, True]),
        "c64": torch.randn(7, dtype=torch.complex64),
    }
    release_directory(tmp_path / "r", {"model.safetensors": save(truth)})
    expected = load(save(truth))
    found = loaded(tmp_path)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and tensor.shape == expected[name].shape, name
        assert bits(tensor) == bits(expected[name]), name


def loaded(tmp_path: Path, **options: object) -> dict:
    trust = write_trust(tmp_path / "trust.json")
    return pq_registry.load(tmp_path / "r", expect="acme/minilm", trust=trust, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "utc_now", lambda: NOW)


def test_auto_is_torch_and_tensors_outlive_one_another(tmp_path: Path):
    size = 3 * limits.SHARD_BYTES
    content, truth = safetensors_bytes({f"t{number}": ("BF16", (size // 2,)) for number in range(6)}, 1)
    release_directory(tmp_path / "r", {"model.safetensors": content})
    trust = write_trust(tmp_path / "trust.json")
    kept = loaded(tmp_path)["t3"]
    stream = pq_registry.iter_tensors(tmp_path / "r", expect="acme/minilm", trust=trust)
    streamed = {}
    for name, tensor in stream:
        assert isinstance(tensor, torch.Tensor)
        if name in ("t1", "t4"):
            streamed[name] = tensor[5:]
        del tensor
    gc.collect()
    assert bits(kept) == truth["t3"].tobytes()
    for name, tensor in streamed.items():
        assert bits(tensor) == truth[name][5:].tobytes(), "memory of a tensor in use was used again"


def test_another_device_gets_copies(tmp_path: Path):
    content, _ = safetensors_bytes({"w": ("F32", (5, 3)), "none": ("F32", (0,))}, 1)
    release_directory(tmp_path / "r", {"model.safetensors": content})
    found = loaded(tmp_path, device="meta")
    assert {name: (tensor.device.type, tuple(tensor.shape)) for name, tensor in found.items()} == {
        "w": ("meta", (5, 3)),
        "none": ("meta", (0,)),
    }


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "mps:3"])
def test_devices_that_are_not_here_are_refused(device: str):
    with pytest.raises(UsageError, match="no device"):
        Torch(device)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_float4_that_cannot_be_packed_is_refused(shape: tuple[int, ...]):
    with pytest.raises(UsageError, match="no form"):
        Torch("cpu").check([entry("F4", shape, 3)])


def test_float6_is_refused():
    with pytest.raises(UsageError, match=r"torch .* has no form for the tensor 't'"):
        Torch("cpu").check([entry("F6_E3M2", (4,), 3)])
