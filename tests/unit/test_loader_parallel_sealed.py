# SPDX-License-Identifier: Apache-2.0
"""Sealed releases among several processes: each decrypts its share, or its rows, and nothing is fetched twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pq_registry import load
from pq_registry.client.meter import Meter
from pq_registry.errors import PqregError, ShardMismatch
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.loader import api
from pq_registry.loader.dtypes import Numpy
from pq_registry.loader.options import Request
from pq_registry.loader.parallel.joint import fingerprint, read_shared
from pq_registry.loader.parallel.words import agree
from pq_registry.loader.selection import select
from tests.exchange import Hub, InProcess
from tests.sealed_registry import sealed_registry
from tests.sealing_site import NAME, SealingSite, model_files, recipient, write_files
from tests.tensors import safetensors_bytes

_, TRUTH = safetensors_bytes({"w": ("F32", (5 * 2097152 // 4 + 1000,)), "b": ("F16", (77,))}, 1)


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


def together(size: int, release: Any, **options: Any) -> list[tuple[dict[str, Any], PqregError | None, Meter]]:
    """Load in threads, as the processes of a group would; each opens the release for itself."""
    hub = Hub(size)
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        tensors: dict[str, Any] = {}
        meter = Meter()
        try:
            request = Request.of({**options, "stats": meter, "recipient_key": recipient()})
            opened = api.open_for(release, request)
            units = select(opened)
            exchange = InProcess(hub, rank)
            agree(exchange, fingerprint(opened, units))
            tensors |= read_shared(opened, Numpy(), units, request, exchange, whole=False)
            found[rank] = (tensors, None, meter)
        except PqregError as error:
            found[rank] = (tensors, error, meter)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    return found


def test_shares_come_from_the_registry_once_and_are_decrypted_once(site: SealingSite) -> None:
    site.registry.ranges.clear()
    found = together(2, f"{NAME}:v1")
    for tensors, error, meter in found:
        assert error is None and all(tensors[name].tobytes() == TRUTH[name].tobytes() for name in TRUTH)
        assert 0 < meter["unseal"].count < sum(one["unseal"].count for *_, one in found)
    fetched = [(path, offset) for path, offset, length in site.registry.ranges if length > SLICE_BYTES // 2]
    assert fetched and len(fetched) == len(set(fetched))


def test_altered_ciphertext_is_everybodys_error(site: SealingSite) -> None:
    mirror = site.home / "mirror"
    site.pull_sealed(mirror)
    path = max((mirror / "sealed").iterdir(), key=lambda one: one.stat().st_size)
    data = bytearray(path.read_bytes())
    data[SLICE_BYTES + 5] ^= 1
    path.write_bytes(data)
    found = together(3, mirror, expect=NAME)
    assert [type(error) for _, error, _ in found] == [ShardMismatch] * 3
    assert not any("w" in tensors for tensors, *_ in found)


@pytest.mark.parametrize("size", [2, 7])
def test_ranks_decrypt_only_the_shards_of_their_rows(site: SealingSite, size: int) -> None:
    expected = np.array_split(TRUTH["w"], size)
    for rank in range(size):
        meter = Meter()
        found = load(
            f"{NAME}:v1", framework="numpy", recipient_key=recipient(), names=["w"],
            rank=rank, world_size=size, plan={"w": "dim0:split"}, stats=meter,
        )  # fmt: skip
        assert found["w"].tobytes() == expected[rank].tobytes()
        assert meter["unseal"].count <= expected[rank].nbytes + 2 * SLICE_BYTES
