# SPDX-License-Identifier: Apache-2.0
"""Unmodified clients of the Hub through the gateway: the same files, verified, and never a byte of a damaged shard."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.mending import mark_blobs
from pq_registry.storage.fsck import check_registry
from tests.gateway_process import serving_gateway
from tests.hub_clients import Client, client
from tests.hub_site import EVIDENCE, FILES, HubSite, client_environment, hub_site, repository
from tests.stored import change_blob

WEIGHTS = random.Random(11).randbytes(5 * limits.SHARD_BYTES // 2)
MARK = b"these bytes nobody signed!"
HASHES = {path: hashlib.sha256(content).hexdigest() for path, content in FILES.items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("hub") / "registry") as site:
        yield site


@pytest.fixture(scope="module")
def gateway(site: HubSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_gateway(tmp_path_factory.mktemp("node"), site) as url:
        yield url


@pytest.fixture(params=["newest", "pinned"])
def hub(request: pytest.FixtureRequest, gateway: str, tmp_path: Path) -> Client:
    """A client that knows of the gateway alone, and has no token."""
    home = tmp_path / "home"
    return client(request.param, home, client_environment(home, gateway, ""))


def test_clients_get_the_verified_release(hub: Client, site: HubSite, tmp_path: Path) -> None:
    hub.hf("download", "acme/minilm", "--local-dir", tmp_path / "out")
    out, cached, names, tree, ranges = hub.run(
        ("hashes", {"folder": str(tmp_path / "out")}),
        ("snapshot", {"repo_id": "acme/minilm"}),
        ("list_repo_files", {"repo_id": "acme/minilm"}),
        ("list_repo_tree", {"repo_id": "acme/minilm", "recursive": True}),
        ("ranges", {"path": "acme/minilm/weights.bin", "wanted": [[1000, 3000], [0, 4]]}),
    )
    assert {path: out[path] for path in HASHES} == HASHES
    assert set(out) == set(names) >= set(HASHES)
    assert set(out) <= {*HASHES, *EVIDENCE, "pqreg.json"}
    assert Path(cached["folder"]).name == site.releases["acme/minilm:main"].hex[:40]
    assert cached["hashes"] == out
    assert {one["path"] for one in tree if "blob_id" in one} == set(names)
    assert [bytes.fromhex(one) for one in ranges] == [FILES["weights.bin"][1000:4000], FILES["weights.bin"][:4]]


def test_what_is_not_there_has_its_own_error(hub: Client) -> None:
    found = hub.outcomes(
        ("snapshot", {"repo_id": "acme/nothing"}),
        ("snapshot", {"repo_id": "acme/minilm", "revision": "v9"}),
        ("download", {"repo_id": "acme/minilm", "filename": "not/there.txt"}),
    )
    kinds = [one.kind.removeprefix("Remote") for one in found]
    assert kinds == ["RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError"]


def test_nothing_is_written_through_it(hub: Client) -> None:
    found = hub.outcomes(
        ("create_repo", {"repo_id": "acme/new"}),
        ("create_branch", {"repo_id": "acme/minilm", "branch": "new"}),
    )
    assert all(one.status in (403, 404, 405) for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["newest", "pinned"])
def test_a_damaged_blob(site: HubSite, gateway: str, name: str, tmp_path: Path) -> None:
    """Stock clients take damaged bytes of the right length; the gateway sends none, and nobody does after fsck."""
    repo = f"acme/damaged-{name}"
    content = WEIGHTS + name.encode()
    digest = Digest.of(content)
    site.publish(f"{repo}:main", {"config.json": b"{}", "model.bin": content})
    change_blob(site.registry.data, digest, lambda _: content[: -len(MARK)] + MARK)

    home = tmp_path / "direct"
    direct = client(name, home, client_environment(home, site.url, site.token))
    (taken,) = direct.run(("download", {"repo_id": repo, "filename": "model.bin"}))
    assert taken["sha256"] != digest.hex, "the stock client compares sizes only"
    assert Path(taken["path"]).read_bytes().endswith(MARK)

    home = tmp_path / "verified"
    verified = client(name, home, client_environment(home, gateway, ""))
    small, refused = verified.outcomes(
        ("download", {"repo_id": repo, "filename": "config.json"}),
        ("download", {"repo_id": repo, "filename": "model.bin"}),
    )
    assert small["sha256"] == Digest.of(b"{}").hex
    assert isinstance(refused, Exception)
    assert not [path for path in home.rglob("*") if path.is_file() and MARK in path.read_bytes()]

    begun, parts = utc_now(), site.registry.registry
    found = check_registry(parts.catalogue, parts.blobs, among={digest})
    mark_blobs(parts.catalogue, found, begun=begun, now=utc_now())
    home = tmp_path / "after"
    after = client(name, home, client_environment(home, site.url, site.token))
    (gone,) = after.outcomes(("download", {"repo_id": repo, "filename": "model.bin"}))
    assert isinstance(gone, Exception)
    assert not [path for path in home.rglob("*") if path.is_file() and MARK in path.read_bytes()]
    for path in (f"/v1/blobs/sha256/{digest.hex}", f"/{repo}/resolve/main/model.bin"):
        answer = site.get(path)
        assert (answer.status, answer.json["type"]) == (410, "/problems/blob-damaged")
    assert "damaged" in answer.headers["x-error-message"]

    site.registry.upload(content, repository(repo))
    assert after.call("download", repo_id=repo, filename="model.bin")["sha256"] == digest.hex
