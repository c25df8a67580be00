# SPDX-License-Identifier: Apache-2.0
"""load and iter_tensors onto a device from end to end: who checks is the caller's choice, where there is a choice."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import ShardMismatch, UsageError
from pq_registry.loader import api
from pq_registry.loader.device import choice, cudakernels
from tests.accelerator import OnDevice, Simulated
from tests.releases import release_directory, write_trust
from tests.samples import NOW
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
CHECKS = ("cpu", "device")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    """A device that stands in for the one torch would have."""
    made = Simulated(seed=1)
    monkeypatch.setattr(api, "framework_of", lambda request: OnDevice(made))
    yield made
    made.close()
    gc.collect()
    assert made.pinned == []
    assert made.violations == []


@pytest.mark.parametrize("check", CHECKS)
def test_a_directory_is_loaded_and_a_flipped_bit_refused(
    device: Simulated, check: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    content, truth = safetensors_bytes(
        {"a": ("BF16", (SHARD,)), "b": ("F32", (3,)), "none": ("F32", (0, 2)), "c": ("U8", (3 * SHARD + 1,))}, 1
    )
    release_directory(tmp_path / "r", {"model.safetensors": content})
    options = {"expect": "acme/minilm", "trust": write_trust(tmp_path / "trust.json"), "check_on": check}
    meter = Meter()
    heard: list[int] = []

    class Watch:
        def start(self, label: str, total_bytes: int) -> None:
            heard.append(-total_bytes)

        def advance(self, count: int) -> None:
            heard.append(count)

        def done(self) -> None:
            pass

    found = pq_registry.load(tmp_path / "r", stats=meter, progress=Watch(), **options)  # type: ignore[arg-type]
    assert {name: array.tobytes() for name, array in found.items()} == {k: v.tobytes() for k, v in truth.items()}
    assert len({id(array.base if array.base is not None else array) for array in found.values() if array.size}) == 1
    assert sum(heard) == 0, "every byte is told of, once"
    assert meter["hash"].count == meter["read"].count > 0
    found = dict(pq_registry.iter_tensors(tmp_path / "r", **options))  # type: ignore[arg-type]
    assert {name: array.tobytes() for name, array in found.items()} == {k: v.tobytes() for k, v in truth.items()}
    bad = bytearray(content)
    bad[2 * SHARD + 1] ^= 0x10
    (tmp_path / "r" / "model.safetensors").write_bytes(bad)
    with pytest.raises(ShardMismatch, match=r"shard 2 of model\.safetensors"):
        pq_registry.load(tmp_path / "r", **options)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
        monkeypatch.setenv("PQREG_REGISTRY", registry.url)
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        yield site
        site.close()


@pytest.mark.parametrize("check", CHECKS)
def test_a_sealed_release_from_a_registry_and_from_a_mirror(device: Simulated, check: str, site: SealingSite):
    content, arrays = safetensors_bytes({"w": ("F32", (5 * SHARD // 4 + 1000,)), "b": ("F16", (77,))}, 1)
    assert content == model_files()["model.safetensors"]
    truth = {name: np.asarray(array).tobytes() for name, array in arrays.items()}
    site.pull_sealed(site.home / "mirror")
    options = {"recipient_key": recipient(), "check_on": check}
    for what, more in ((f"{NAME}:v1", {}), (site.home / "mirror", {"expect": NAME})):
        found = pq_registry.load(what, **options, **more)  # type: ignore[arg-type]
        assert {name: array.tobytes() for name, array in found.items()} == truth
    only = pq_registry.load(f"{NAME}:v1", names=["b"], **options)  # type: ignore[arg-type]
    assert {name: array.tobytes() for name, array in only.items()} == {"b": truth["b"]}
    assert bool(device.digest_calls) == (check == "device")


def test_check_on_device_is_refused_where_nothing_could_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for call in (pq_registry.load, pq_registry.iter_tensors):
        for name in ("cpu", "mps", "meta"):
            with pytest.raises(UsageError, match="needs a device that computes") as caught:
                call(tmp_path, expect="acme/minilm", device=name, check_on="device")
            assert 'check_on="cpu"' in (caught.value.hint or "")
    with pytest.raises(UsageError, match="do not go together"):
        choice.require_computing("cuda:1", shared=True)
    monkeypatch.setitem(sys.modules, "triton", cudakernels)
    choice.require_computing("cuda", shared=False)
    monkeypatch.delitem(sys.modules, "triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs triton") as caught:
        choice.require_computing("cuda", shared=False)
    assert "pq-registry[cuda]" in (caught.value.hint or "")
