# SPDX-License-Identifier: Apache-2.0
"""The write side of the Hub's protocol: what a client that is hostile, late or twice there cannot do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.local import LocalBlobStore
from tests.hub_site import HubSite, hub_site
from tests.server_harness import Api
from tests.unit.test_server_hub_push import LFS, OCTETS, batch, commit, create, file, follow, header, sha256
from tests.xetsamples import SampleFile, sample_shard, sample_xorb


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("bounds") / "registry", publish=False) as site:
        yield site


@pytest.fixture
def publisher(site: HubSite) -> Api:
    return site.registry.as_role("publisher")


def test_a_part_with_other_bytes_begins_the_upload_anew(
    site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that arrived wrong would otherwise stand in the way of that file for a week."""
    monkeypatch.setattr(limits, "HUB_MULTIPART_BYTES", limits.PART_BYTES)
    if not isinstance(site.registry.registry.blobs, LocalBlobStore):
        pytest.skip("an object store takes the part that came last")
    model, data = create(publisher, "anew"), os.urandom(limits.PART_BYTES + 1)
    action = batch(publisher, model, data).json["objects"][0]["actions"]["upload"]
    assert follow(site, "PUT", action["header"]["00001"], os.urandom(limits.PART_BYTES)).status == 200
    assert follow(site, "PUT", action["header"]["00001"], data[:-1]).status == 409
    assert follow(site, "PUT", action["header"]["00002"], data[-1:]).status == 404
    action = batch(publisher, model, data).json["objects"][0]["actions"]["upload"]
    assert follow(site, "PUT", action["header"]["00001"], data[:-1]).status == 200
    assert follow(site, "PUT", action["header"]["00002"], data[-1:]).status == 200
    assert follow(site, "POST", action["href"]).status == 200


def test_what_is_there_is_read_to_its_end_all_the_same(
    site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is still sending would see a reset connection, try again, and see another one."""
    monkeypatch.setattr(limits, "DRAINED_BODY_BYTES", 0)
    model, data = create(publisher, "once-more"), os.urandom(3 * limits.MIB)
    url = urlsplit(batch(publisher, model, data).json["objects"][0]["actions"]["upload"]["href"])
    token = publisher.get(f"/api/models/{model}/xet-write-token/main").json
    xorb = sample_xorb([data[start : start + 100_000] for start in range(0, len(data), 100_000)])
    block = f"{urlsplit(token['casUrl']).path}/v1/xorbs/default/{xorb.name}"
    authorized = {**OCTETS, "Authorization": f"Bearer {token['accessToken']}"}
    connection = site.registry.with_token(None).connect()
    for _ in range(2):
        for method, path, body in (("PUT", f"{url.path}?{url.query}", data), ("POST", block, xorb.packed)):
            connection.request(method, path, body, authorized)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("connection")) == (200, None), (method, answer.read())
            answer.read()
    connection.close()


def test_an_answer_has_so_many_urls(site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1000 files of 156 GiB it would be 2 GB; what is beyond is sent whole."""
    monkeypatch.setattr(limits, "HUB_BATCH_URLS", 12)
    model = create(publisher, "urls")
    objects = [{"oid": sha256(bytes([number])), "size": 5 * limits.PART_BYTES} for number in (1, 2, 2, 3)]
    body = {"operation": "upload", "transfers": ["multipart"], "objects": objects}
    answer = publisher.post(f"/{model}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS).json
    assert [item["oid"] for item in answer["objects"]] == [sha256(bytes([number])) for number in (1, 2, 3)]
    found = [item["actions"]["upload"].get("header", {}) for item in answer["objects"]]
    assert [len(sent) for sent in found] == [6, 6, 0], "a size, and a URL for each part"
    assert "verify" in answer["objects"][2]["actions"]


def test_what_was_sent_goes_with_its_repository(site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would count for no quota any more, and stay until the next start."""
    model = create(publisher, "unfinished")
    token = publisher.get(f"/api/models/{model}/xet-write-token/main").json
    client, cas = site.registry.with_token(token["accessToken"]), urlsplit(token["casUrl"]).path
    xorb = sample_xorb([os.urandom(10_000)])
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 200
    removed: list[StoredBlob] = []
    remove = Blocks.remove

    def noted(blocks: Blocks, block: StoredBlob) -> None:
        remove(blocks, block)
        removed.append(block)

    monkeypatch.setattr(Blocks, "remove", noted)
    assert publisher.request("DELETE", "/api/repos/delete", {"name": model}).status == 200
    assert [block.digest for block in removed] == [Digest.of(xorb.chunks[0])]


def test_little_cannot_be_said_to_be_much(site: HubSite, publisher: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named often enough, one packed xorb of zeros would fill the disk before its file turned out to be another."""
    monkeypatch.setattr(limits, "XET_REPEATED_BYTES", 1000)
    model = create(publisher, "repeated")
    token = publisher.get(f"/api/models/{model}/xet-write-token/main").json
    client, cas = site.registry.with_token(token["accessToken"]), urlsplit(token["casUrl"]).path
    xorb = sample_xorb([bytes(500), bytes(500)])
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 200
    runs = ((xorb.name, 0, 2, 1000), (xorb.name, 0, 1, 500), (xorb.name, 1, 2, 500))
    for times, status in ((limits.XET_REPEATS // 2 + 1, 422), (limits.XET_REPEATS // 2, 200)):
        again = SampleFile(Digest.of(bytes(2000 * times)), runs * times)
        assert client.post(f"{cas}/v1/shards", sample_shard([again]), OCTETS).status == status, times


def test_without_drafts_nothing_is_written(tmp_path: Path) -> None:
    with hub_site(tmp_path / "registry", publish=False, drafts=DraftPolicy.OFF) as site:
        admin = site.registry.with_token(site.token)
        for answer in (
            admin.post("/api/repos/create", {"name": "acme/x"}),
            admin.post("/api/models/acme/x/preupload/main", {"files": []}),
            batch(admin, "acme/x", b"x"),
            admin.get("/api/models/acme/x/xet-write-token/main"),
            commit(admin, "acme/x", header(), file("a", b"x")),
            admin.request("PUT", f"/api/lfs/acme/x/objects/{sha256(b'x')}", b"x", OCTETS),
            admin.request("PUT", f"/api/lfs/acme/x/uploads/{'0' * 32}/parts/1", b"x", OCTETS),
            admin.post(f"/api/lfs/acme/x/uploads/{'0' * 32}", b"", OCTETS),
        ):
            assert answer.status == 403, answer
            assert "drafts" in answer.json["error"]
