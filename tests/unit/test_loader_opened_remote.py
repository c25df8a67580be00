# SPDX-License-Identifier: Apache-2.0
"""open_verified on a registry and on sealed releases: by range, in the clear, and never a byte that was altered."""

from __future__ import annotations

from pathlib import Path

import pytest

import pq_registry
from pq_registry import limits
from pq_registry.errors import ShardMismatch
from pq_registry.loader import api
from pq_registry.loader.options import LoadOptions
from tests.fake_registry import serving
from tests.releases import write_trust
from tests.samples import FILES, NOW, release
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES


def test_from_a_registry_only_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, arrays = safetensors_bytes({"w": ("F32", (8, SHARD // 4)), "b": ("F16", (77,))}, 1)
    files = {**FILES, "model.safetensors": weights}
    monkeypatch.setattr(api, "utc_now", lambda: NOW)
    with serving() as registry:
        digest = registry.add_release(*release(files), files)
        trust = write_trust(tmp_path / "trust.json")
        options: LoadOptions = {"registry": registry.url, "trust": trust, "framework": "numpy"}
        with pq_registry.open_verified(f"acme/minilm@{digest}", **options) as release_:
            before = registry.bytes_served()
            assert release_.get_slice("w")[3:5].tobytes() == arrays["w"][3:5].tobytes()
            assert registry.bytes_served() - before <= 3 * SHARD
            assert release_.get_tensor("w").tobytes() == arrays["w"].tobytes()
            assert release_.get_tensor("b").tobytes() == arrays["b"].tobytes()


def test_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, arrays = safetensors_bytes({"w": ("F32", (5 * SHARD // 4 + 1000,)), "b": ("F16", (77,))}, 1)
    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        mirror = tmp_path / "mirror"
        site.pull_sealed(mirror)
        trust = tmp_path / "trust.json"
        remote: LoadOptions = {
            "registry": registry.url,
            "trust": trust,
            "recipient_key": recipient(),
            "framework": "numpy",
        }
        local: LoadOptions = {**remote, "expect": NAME}
        places: list[tuple[str | Path, LoadOptions]] = [(f"{NAME}:v1", remote), (mirror, local)]
        for what, options in places:
            with pq_registry.open_verified(what, **options) as release_:
                for path, content in model_files().items():
                    assert release_.read_file(path) == content
                assert release_.get_tensor("w").tobytes() == arrays["w"].tobytes()
                assert release_.get_slice("w")[-5:].tobytes() == arrays["w"][-5:].tobytes()
                assert (
                    release_.read_range("model.safetensors", SHARD - 3, 2 * SHARD + 3)
                    == (model_files()["model.safetensors"][SHARD - 3 : 2 * SHARD + 3])
                )
        weights = max((mirror / "sealed").iterdir(), key=lambda one: one.stat().st_size)
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        with pq_registry.open_verified(mirror, **local) as release_:
            assert release_.get_slice("w")[:5].tobytes() == arrays["w"][:5].tobytes()
            with pytest.raises(ShardMismatch):
                release_.get_tensor("b")
        site.close()
