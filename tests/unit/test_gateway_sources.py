# SPDX-License-Identifier: Apache-2.0
"""Where a gateway's releases come from: sealed ones it may open, directories of every kind, and another Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.keptgrants import keep_grants
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import SettingError
from pq_registry.format.instant import utc_now
from pq_registry.gateway.origins.directory import DirectoryOrigin
from pq_registry.gateway.origins.hub import HubOrigin
from pq_registry.service.hub.model import Commit
from tests.gateway_site import RunningGateway, registry_origin, running_gateway
from tests.hub_site import FILES as HUB_FILES
from tests.hub_site import HubSite
from tests.releases import release_directory
from tests.samples import FILES, NOW, trust_file
from tests.sealed_registry import sealed_registry
from tests.sealing_site import SealingSite, model_files, recipient, write_files
from tests.server_harness import RunningRegistry

SHARD = limits.SHARD_BYTES
WEIGHTS = "model.safetensors"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SealingSite]:
    with sealed_registry() as registry:
        found = SealingSite(registry, tmp_path)
        found.push(write_files(tmp_path / "model", model_files()), recipient().public)
        yield found
        found.close()


def offline(trust: bytes, *, live: bool = False) -> object:
    return lambda: Verifier(trust, utc_now() if live else NOW, online=False)


def check_plaintext(gateway: RunningGateway, site: SealingSite, revision: str) -> None:
    model = gateway.get(f"/api/models/acme/secret/revision/{revision}").json
    sealing = site.release().manifest.sealing
    assert sealing is not None
    assert (
        model["sha"] == Commit.of_release(sealing.inner_sha256).value != Commit.of_release(site.release().digest).value
    )
    assert {item["rfilename"] for item in model["siblings"]} == set(model_files())
    for path, content in model_files().items():
        answer = gateway.get(f"/acme/secret/resolve/{revision}/{path}")
        assert (answer.status, answer.body) == (200, content)
        again = gateway.get(f"/acme/secret/resolve/{model['sha']}/{path}")
        assert (again.status, again.body) == (200, content)
    weights = model_files()[WEIGHTS]
    for first, last in ((0, 5), (SHARD - 2, SHARD + 2), (SHARD, len(weights) - 1)):
        answer = gateway.get(f"/acme/secret/resolve/{revision}/{WEIGHTS}", Range=f"bytes={first}-{last}")
        assert (answer.status, answer.body) == (206, weights[first : last + 1])
    assert gateway.get(f"/acme/secret/resolve/{revision}/sealed/00000").status == 404


def test_a_sealed_release_is_opened_for_a_node_it_was_granted_to(site: SealingSite, tmp_path: Path) -> None:
    origin = registry_origin(site.registry.url, tmp_path, site.trust.encode(), utc_now, key=recipient())
    with running_gateway([origin], tmp_path / "cache") as gateway:
        check_plaintext(gateway, site, "v1")
        kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert len(kept) > sum(map(len, model_files().values()))
    for content in model_files().values():
        pieces = [content[at : at + 24] for at in range(0, len(content) - 24, 1 + len(content) // 50)]
        assert not [piece for piece in pieces if piece in kept], "only ciphertext is on the disk"


def test_without_a_grant_it_is_refused_and_without_a_key_it_is_ciphertext(site: SealingSite, tmp_path: Path) -> None:
    stranger = registry_origin(site.registry.url, tmp_path / "a", site.trust.encode(), utc_now, key=recipient("other"))
    with running_gateway([stranger], None) as gateway:
        answer = gateway.get("/api/models/acme/secret/revision/v1")
        assert (answer.status, answer.headers["x-error-code"]) == (403, "GatedRepo")
    keyless = registry_origin(site.registry.url, tmp_path / "b", site.trust.encode(), utc_now)
    with running_gateway([keyless], None) as gateway:
        model = gateway.get("/api/models/acme/secret/revision/v1").json
        assert model["pqreg"]["sealed"] and model["sha"] == Commit.of_release(site.release().digest).value
        assert {"pqreg.inner", "pqreg.json", "sealed/00000"} <= {item["rfilename"] for item in model["siblings"]}
        entry = site.release().manifest.files[1]
        assert len(gateway.get(f"/acme/secret/resolve/v1/{entry.path}").body) == entry.size


def test_a_withdrawn_grant_ends_it(site: SealingSite, tmp_path: Path) -> None:
    origin = registry_origin(site.registry.url, tmp_path, site.trust.encode(), utc_now, key=recipient())
    with running_gateway([origin], tmp_path / "cache", verified_seconds=0) as gateway:
        path = f"/acme/secret/resolve/v1/{WEIGHTS}"
        assert gateway.get(path).status == 200
        site.registry.grants.clear()
        assert gateway.get(path).status == 403, "what is in the cache is no grant"


def test_directories(tmp_path: Path) -> None:
    one = release_directory(tmp_path / "all" / "acme" / "minilm")
    trust = trust_file().encode()
    origin = DirectoryOrigin([tmp_path / "all"], verifier=offline(trust), state_dir=tmp_path / "state")  # type: ignore[arg-type]
    with running_gateway([origin], None, verified_seconds=0) as gateway:
        assert [item["id"] for item in gateway.get("/api/models").json] == ["acme/minilm"]
        assert gateway.get("/api/models?search=other").json == []
        commit = Commit.of_release(one).value
        for revision in ("main", commit, one.hex):
            model = gateway.get(f"/api/models/acme/minilm/revision/{revision}").json
            assert (model["sha"], model["pqreg"]["proven"]) == (commit, revision != "main")
        assert gateway.get("/api/models/acme/minilm/revision/v1").headers["x-error-code"] == "RevisionNotFound"
        assert gateway.get("/api/models/acme/other").headers["x-error-code"] == "RepoNotFound"
        assert gateway.get("/acme/minilm/resolve/main/sub/notes.txt").body == FILES["sub/notes.txt"]
        assert [item["name"] for item in gateway.get("/api/models/acme/minilm/refs").json["branches"]] == ["main"]
        other = release_directory(tmp_path / "all" / "acme" / "again", {"x": b"y"})
        assert gateway.get("/api/models/acme/minilm/revision/main").status == 404, "two releases: which one?"
        assert gateway.get(f"/acme/minilm/resolve/{other.hex[:40]}/x").body == b"y"
        (tmp_path / "all" / "acme" / "again" / "x").write_bytes(b"z")
        assert gateway.get(f"/acme/minilm/resolve/{other.hex[:40]}/x").status == 422
        (tmp_path / "all" / "acme" / "again" / "x").write_bytes(b"y")
    with running_gateway([origin], None) as gateway:
        assert gateway.get(f"/acme/minilm/resolve/{other.hex[:40]}/x").body == b"y"
        (tmp_path / "all" / "acme" / "minilm" / "more").write_bytes(b"not signed")
        assert gateway.get("/acme/minilm/resolve/main/more").status == 404
        assert gateway.get(f"/acme/minilm/resolve/{one.hex}/config.json").json["type"] == "/problems/file-set-mismatch"
    with pytest.raises(SettingError):
        DirectoryOrigin([tmp_path / "nowhere"], verifier=offline(trust), state_dir=tmp_path)  # type: ignore[arg-type]


def test_sealed_directories(site: SealingSite, tmp_path: Path) -> None:
    mirror, clear = tmp_path / "d" / "mirror", tmp_path / "e" / "clear"
    site.pull_sealed(mirror)
    keep_grants(mirror, site.release(), site.client(), site.verifier(), SeenGrants(tmp_path / "seen"))
    site.pull(recipient(), clear)
    verifier = offline(site.trust.encode(), live=True)
    sealed = DirectoryOrigin([mirror.parent], verifier=verifier, state_dir=tmp_path / "s", key=recipient())  # type: ignore[arg-type]
    with running_gateway([sealed], None) as gateway:
        check_plaintext(gateway, site, "main")
    opened = DirectoryOrigin([clear], verifier=verifier, state_dir=tmp_path / "s")  # type: ignore[arg-type]
    with running_gateway([opened], None) as gateway:
        check_plaintext(gateway, site, "main")
        check_plaintext(gateway, site, site.release().digest.hex[:40])
    shutil.rmtree(mirror / ".pqreg" / "grants")
    with running_gateway([sealed], None) as gateway:
        assert gateway.get("/api/models/acme/secret/revision/main").status == 403


def test_another_hub(registry: RunningRegistry, tmp_path: Path) -> None:
    hub = HubSite(registry)
    digest = hub.publish()
    trust = trust_file(created=NOW).encode()
    client = RegistryClient(hub.url, hub.token, timeout=20, sleep=lambda _seconds: None)
    origin = HubOrigin(client, verifier=offline(trust, live=True), state_dir=tmp_path / "state")  # type: ignore[arg-type]
    with running_gateway([origin], tmp_path / "cache", verified_seconds=0) as gateway:
        commit = Commit.of_release(digest).value
        for revision in ("main", commit, digest.hex):
            model = gateway.get(f"/api/models/acme/minilm/revision/{revision}").json
            assert (model["sha"], model["pqreg"]["proven"]) == (commit, revision != "main")
        for path, content in HUB_FILES.items():
            assert gateway.get(f"/acme/minilm/resolve/main/{path}").body == content
        assert gateway.get("/api/models/acme/minilm/revision/v9").headers["x-error-code"] == "RevisionNotFound"
        assert gateway.get("/api/models/acme/nothing/revision/main").headers["x-error-code"] == "RepoNotFound"
