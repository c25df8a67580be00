# SPDX-License-Identifier: Apache-2.0
"""Sealed releases through the loader: from the registry, a mirror and an unsealed directory, and never a wrong byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pq_registry import iter_tensors, load
from pq_registry.client import keysource
from pq_registry.client.keptgrants import keep_grants
from pq_registry.client.seengrants import SeenGrants
from pq_registry.crypto.sealing import FileSealer
from pq_registry.errors import GrantMissing, GrantWithdrawn, KeyCustodyError, ShardMismatch, UnsealFailed
from pq_registry.format.sealing import SLICE_BYTES
from pqreg_keys import custody
from pqreg_keys.source import FileKeySource
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes


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


def expected() -> dict[str, bytes]:
    content, arrays = safetensors_bytes({"w": ("F32", (5 * 2097152 // 4 + 1000,)), "b": ("F16", (77,))}, 1)
    assert content == model_files()["model.safetensors"]
    return {name: np.asarray(value).tobytes() for name, value in arrays.items()}


def same(tensors: dict[str, np.ndarray]) -> bool:
    return {name: tensor.tobytes() for name, tensor in tensors.items()} == expected()


def test_from_the_registry(site: SealingSite) -> None:
    key = recipient()
    assert same(load(f"{NAME}:v1", framework="numpy", recipient_key=key))
    assert same(dict(iter_tensors(f"{NAME}:v1", framework="numpy", recipient_key=key)))
    only = load(f"{NAME}:v1", framework="numpy", recipient_key=key, names=["b"])
    assert list(only) == ["b"]
    with pytest.raises(GrantMissing, match="sealed"):
        load(f"{NAME}:v1", framework="numpy")
    with pytest.raises(GrantMissing):
        load(f"{NAME}:v1", framework="numpy", recipient_key=recipient("stranger"))


def test_one_tensor_reads_its_shards_and_no_others(site: SealingSite) -> None:
    site.registry.ranges.clear()
    load(f"{NAME}:v1", framework="numpy", recipient_key=recipient(), names=["b"])
    lengths = [length for _, _, length in site.registry.ranges]
    assert sum(lengths) < 2 * SLICE_BYTES  # pqreg.inner, and the one shard that holds the tensor


def test_from_a_mirror_with_its_grants_and_without_a_network(
    site: SealingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    key = recipient()
    assert same(load(mirror, expect=NAME, framework="numpy", recipient_key=key))  # the registry has the grant
    release = site.release()
    assert keep_grants(mirror, release, site.client(), site.verifier(), SeenGrants(site.home / "mirror-state")) == 2
    monkeypatch.delenv("PQREG_REGISTRY")
    assert same(load(mirror, expect=NAME, framework="numpy", recipient_key=key))
    assert same(dict(iter_tensors(mirror, expect=NAME, framework="numpy", recipient_key=key)))
    with pytest.raises(GrantMissing, match="no registry to ask"):
        load(mirror, expect=NAME, framework="numpy", recipient_key=recipient("stranger"))


def test_from_an_unsealed_directory_without_a_key(site: SealingSite) -> None:
    out = site.home / "out"
    site.pull(recipient(), out)
    assert same(load(out, expect=NAME, framework="numpy"))
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[3_000_000] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ShardMismatch):
        load(out, expect=NAME, framework="numpy")


def test_no_tensor_of_altered_ciphertext(site: SealingSite) -> None:
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    path = max((mirror / "sealed").iterdir(), key=lambda one: one.stat().st_size)
    data = bytearray(path.read_bytes())
    data[SLICE_BYTES + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardMismatch):
        load(mirror, expect=NAME, framework="numpy", recipient_key=recipient())
    opened = []
    with pytest.raises(ShardMismatch):
        for name, _tensor in iter_tensors(mirror, expect=NAME, framework="numpy", recipient_key=recipient()):
            opened.append(name)
    assert "w" not in opened


def test_a_shard_that_was_signed_and_does_not_decrypt_is_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = FileSealer.seal_into

    def elsewhere(self: FileSealer, index: int, plaintext: memoryview, out: memoryview) -> None:
        wrong = 1 if self.shard_count > 2 and index == 2 else index  # sealed for another place, and signed
        original(self, wrong, plaintext, out)

    with sealed_registry() as registry:
        site = SealingSite(registry, tmp_path)
        (tmp_path / "trust.json").write_bytes(site.trust.encode())
        with monkeypatch.context() as context:
            context.setattr(FileSealer, "seal_into", elsewhere)
            site.push(write_files(tmp_path / "model", model_files()), recipient().public)
        monkeypatch.setenv("PQREG_TRUST", str(tmp_path / "trust.json"))
        monkeypatch.setenv("PQREG_REGISTRY", registry.url)
        with pytest.raises(UnsealFailed):
            load(f"{NAME}:v1", framework="numpy", recipient_key=recipient())
        with pytest.raises(UnsealFailed):
            site.pull(recipient(), tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.safetensors"))
        site.close()


def test_a_withdrawn_grant_loads_nothing(site: SealingSite) -> None:
    from pq_registry.client.grants import withdraw

    withdraw(site.publisher(), site.release(), recipient().public.id)
    with pytest.raises(GrantWithdrawn):
        load(f"{NAME}:v1", framework="numpy", recipient_key=recipient())


class Installed:
    """An entry point."""

    name = "file"

    def load(self) -> type[FileKeySource]:
        return FileKeySource


def test_a_key_file_is_read_by_whatever_is_installed_for_it(site: SealingSite, monkeypatch: pytest.MonkeyPatch) -> None:
    custody.store_pair(site.home / "keys", "node", recipient(), None)
    path = site.home / "keys" / "node.pqkey"
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: [Installed()] if group == keysource.GROUP else []
    )
    assert same(load(f"{NAME}:v1", framework="numpy", recipient_key=path))
    monkeypatch.setenv("PQREG_RECIPIENT_KEY", str(path))
    assert same(load(f"{NAME}:v1", framework="numpy"))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    assert same(load(f"{NAME}:v1", framework="numpy"))  # as in a source tree
    monkeypatch.setattr(keysource, "DEFAULT", "nowhere.at_all:Source")
    with pytest.raises(KeyCustodyError):
        load(f"{NAME}:v1", framework="numpy")


def test_the_distribution_offers_the_key_source() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["entry-points"][keysource.GROUP]["file"].partition(":")
    assert f"{module}:{attribute}" == keysource.DEFAULT
    assert f"{FileKeySource.__module__}:{FileKeySource.__qualname__}" == f"{module}:{attribute}"
