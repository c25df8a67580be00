# SPDX-License-Identifier: Apache-2.0
"""load and iter_tensors against a real registry: verified tensors without a file, and what a bad registry gets."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pq_registry
from pq_registry import limits
from pq_registry.client import exchange
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import (
    ConnectionFailed,
    NotAuthenticated,
    NotFound,
    PqregError,
    ServerRefused,
    ShardMismatch,
    TagRollback,
    UntrustedSigner,
)
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from tests.publishing import Registry, publisher_at, push_as, running_registry, tag_of
from tests.releases import write_trust
from tests.samples import namespace_trust, publisher, trust_file
from tests.stored import changed_blob
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES
REFERENCE = "acme/model:v1"


@dataclass(frozen=True)
class Published:
    """A release in a registry that runs."""

    registry: Registry
    root: Path
    digest: Digest
    truth: Truth

    def blob(self, *path: str) -> Digest:
        """The content of a file of the model."""
        return Digest.of(self.root.joinpath("model", *path).read_bytes())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    root = tmp_path_factory.mktemp("load")
    one, truth = safetensors_bytes({"a": ("BF16", (5, SHARD)), "b": ("F32", ()), "c": ("U8", (0, 3))}, 1)
    sizes = {f"t{number}": ("I64", (SHARD // 16 + number,)) for number in range(40)}
    two, more = safetensors_bytes(sizes, 2, header_padding=1)
    (root / "model" / "sub").mkdir(parents=True)
    (root / "model" / "config.json").write_text("{}")
    (root / "model" / "model.safetensors").write_bytes(one)
    (root / "model" / "sub" / "more.safetensors").write_bytes(two)
    write_trust(root / "trust.json", created=utc_now(), expires=utc_now() + timedelta(days=1))
    with running_registry(root) as registry:
        result = push_as(publisher_at(registry, root / "state"), root / "model", REFERENCE)
        yield Published(registry, root, result.release, {**truth, **more})


@pytest.fixture(autouse=True)
def settings(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PQREG_REGISTRY", published.registry.url)
    monkeypatch.setenv("PQREG_TOKEN", published.registry.token)
    monkeypatch.setenv("PQREG_TRUST", str(published.root / "trust.json"))


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pqreg")] == []
    assert len(os.listdir("/proc/self/fd")) <= before


def same(found: dict[str, np.ndarray], truth: Truth) -> bool:
    return found.keys() == truth.keys() and all(found[name].tobytes() == truth[name].tobytes() for name in truth)


@pytest.mark.parametrize("connections", [1, 4, 64])
def test_load_and_iter_give_the_truth(published: Published, connections: int):
    options: dict[str, Any] = {"framework": "numpy", "connections": connections}
    assert same(pq_registry.load(REFERENCE, **options), published.truth)
    assert same(dict(pq_registry.iter_tensors(REFERENCE, **options)), published.truth)


def test_by_digest_and_with_given_settings(published: Published, monkeypatch: pytest.MonkeyPatch):
    for name in ("REGISTRY", "TOKEN", "TRUST"):
        monkeypatch.delenv(f"PQREG_{name}")
    found = pq_registry.load(
        f"acme/model@{published.digest}",
        framework="numpy",
        registry=published.registry.url,
        token=published.registry.token,
        trust=published.root / "trust.json",
        names=["b", "t7"],
    )
    assert same(found, {name: published.truth[name] for name in ("b", "t7")})


def test_nothing_is_written_to_disk(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert same(pq_registry.load(REFERENCE, framework="numpy"), published.truth)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.parent.name for path in written] == ["tags"], "only which tag was seen"
    assert sum(path.stat().st_size for path in written) < 10_000


def test_only_the_shards_of_the_names_are_asked_for(published: Published):
    before = len(published.registry.requests())
    pq_registry.load(REFERENCE, framework="numpy", names=["b"])
    asked = published.registry.requests()[before:]
    assert 1 <= len([line for line in asked if "/blobs/" in line["path"]]) <= 3, asked  # manifest, header, one shard


def test_closing_early_ends_the_connections(published: Published):
    tensors = pq_registry.iter_tensors(REFERENCE, framework="numpy")
    next(tensors)
    tensors.close()


def test_an_unknown_tag_and_a_wrong_token(published: Published):
    with pytest.raises(NotFound):
        pq_registry.load("acme/model:nope")
    with pytest.raises(NotAuthenticated):
        pq_registry.load(REFERENCE, token="wrong")


def test_a_registry_that_is_not_there(published: Published, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exchange, "pause_before", lambda *_: 0.0)
    with pytest.raises(ConnectionFailed):
        pq_registry.load(REFERENCE, registry="http://127.0.0.1:9")


def test_a_signer_the_trust_file_does_not_know(published: Published, tmp_path: Path):
    foreign = namespace_trust(publisher("mallory"))
    trust = tmp_path / "foreign.json"
    trust.write_bytes(trust_file(foreign, created=utc_now(), expires=utc_now() + timedelta(days=1)).encode())
    with pytest.raises(UntrustedSigner):
        pq_registry.load(REFERENCE, trust=trust)


@pytest.mark.parametrize("iterate", [False, True])
def test_one_flipped_byte_in_storage_is_refused(published: Published, iterate: bool):
    at = 5 * SHARD + 100

    def flip(good: bytes) -> bytes:
        return good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]

    with changed_blob(published.registry.data, published.blob("sub", "more.safetensors"), flip):
        with pytest.raises(ShardMismatch, match=r"shard 5 of sub/more\.safetensors"):
            if iterate:
                for name, array in pq_registry.iter_tensors(REFERENCE, framework="numpy"):
                    assert array.tobytes() == published.truth[name].tobytes()
            else:
                pq_registry.load(REFERENCE, framework="numpy")
        assert list(pq_registry.load(REFERENCE, framework="numpy", names=["t0"])) == ["t0"], "its shard is good"


def test_a_blob_that_is_gone_is_an_error_of_the_tree(published: Published):
    with changed_blob(published.registry.data, published.blob("model.safetensors"), lambda _: None):
        with pytest.raises(PqregError) as caught:
            pq_registry.load(REFERENCE, framework="numpy")
        assert isinstance(caught.value, NotFound | ServerRefused)


def test_a_tag_cannot_be_rolled_back_for_a_loader(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What the loader accepted once is remembered, as for every other command."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.safetensors").write_bytes(safetensors_bytes({"x": ("U8", (9,))}, 3)[0])
    alice = publisher_at(published.registry, published.root / "state")
    push_as(alice, other, "acme/moving:v1")
    old = alice.client.tag_envelope(*tag_of("acme/moving:v1"))
    push_as(alice, published.root / "model", "acme/moving:v1")
    alice.client.close()
    assert "a" in pq_registry.load("acme/moving:v1", framework="numpy", names=["a"])
    monkeypatch.setattr(RegistryClient, "present_tag_envelope", lambda *_: old)
    with pytest.raises(TagRollback):
        pq_registry.load("acme/moving:v1", framework="numpy")
