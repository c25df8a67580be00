# SPDX-License-Identifier: Apache-2.0
"""D4: what is given to one caller for an upload serves no other, nothing else, and no longer than their token.

URLs and tokens that the Hub's clients send files with carry no rights of their own (service.hub.capabilities), and what
somebody sent in chunks is not there for others, whether they know its hash or not.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.service.quotas import Quota, Quotas
from tests.hub_site import HubSite, hub_site
from tests.server_harness import Api
from tests.xetsamples import LZ4, SampleFile, sample_shard, sample_xorb, whole

OCTETS = {"Content-Type": "application/octet-stream"}
LFS = {"Content-Type": "application/vnd.git-lfs+json"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("others") / "registry", publish=False) as site:
        yield site


def made(site: HubSite, name: str, organization: str = "acme") -> str:
    admin = site.registry.with_token(site.token)
    answer = admin.post("/api/repos/create", {"name": name, "organization": organization})
    assert answer.status in (200, 409), answer
    return f"{organization}/{name}"


def upload_url(caller: Api, model: str, data: bytes) -> str:
    """Path and query of the URL at which ``data`` is to be sent."""
    body = {"operation": "upload", "objects": [{"oid": Digest.of(data).hex, "size": len(data)}]}
    answer = caller.post(f"/{model}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS)
    place = urlsplit(answer.json["objects"][0]["actions"]["upload"]["href"])
    return f"{place.path}?{place.query}"


def xet(caller: Api, model: str) -> tuple[Api, str]:
    """A caller with the token for chunked uploads, and where these go."""
    answer = caller.get(f"/api/models/{model}/xet-write-token/main")
    assert answer.status == 200, answer
    return caller.with_token(answer.json["accessToken"]), urlsplit(answer.json["casUrl"]).path


def test_a_url_is_for_one_file_of_one_repository(site: HubSite) -> None:
    model, other = made(site, "one"), made(site, "two")
    publisher, nobody = site.registry.as_role("publisher"), site.registry.with_token(None)
    data = os.urandom(1000)
    url = upload_url(publisher, model, data)
    path, _, query = url.partition("?")
    elsewhere = os.urandom(1000)
    for method, wrong in (
        ("PUT", path),
        ("PUT", f"{path}?{query}&{query}"),
        ("PUT", f"{path}?{query[:-1]}{'0' if query[-1] != '0' else '1'}"),
        ("PUT", f"/api/lfs/{model}/objects/{Digest.of(elsewhere).hex}?{query}"),
        ("PUT", f"/api/lfs/{other}/objects/{Digest.of(data).hex}?{query}"),
        ("PUT", f"/api/lfs/{model}/uploads/{'0' * 32}/parts/1?{query}"),
        ("POST", f"/api/lfs/{model}/uploads/{'0' * 32}?{query}"),
        ("POST", f"/api/lfs/{model}/verify?{query}"),
        ("POST", f"/api/models/{model}/commit/main?{query}"),
        ("GET", f"/api/models/{model}?{query}"),
    ):
        assert nobody.request(method, wrong, b"x" if method != "GET" else None, OCTETS).status == 401, (method, wrong)
    assert nobody.request("PUT", url, data, OCTETS).status == 200


def test_a_url_ends_with_its_time_and_with_its_token(site: HubSite) -> None:
    model, admin = made(site, "ends"), site.registry.with_token(site.token)
    publisher, nobody = site.registry.as_role("publisher"), site.registry.with_token(None)
    data = os.urandom(1000)
    url, (client, cas) = upload_url(publisher, model, data), xet(publisher, model)
    xorb = sample_xorb([data])
    block = f"{cas}/v1/xorbs/default/{xorb.name}"
    clock = site.registry.clock
    try:
        clock.offset = timedelta(seconds=limits.XET_TOKEN_SECONDS + 1)
        assert client.post(block, xorb.packed, OCTETS).status == 401
        clock.offset = timedelta(seconds=limits.CAPABILITY_SECONDS - 300)
        assert nobody.request("PUT", url, b"other bytes", OCTETS).status == 422, "not over yet"
        clock.offset = timedelta(seconds=limits.CAPABILITY_SECONDS + 1)
        assert nobody.request("PUT", url, data, OCTETS).status == 401
    finally:
        clock.offset = timedelta()
    assert client.token is not None
    token_id = client.token.split(".")[0]
    assert admin.request("DELETE", f"/v1/tokens/{token_id}").status == 204
    assert nobody.request("PUT", url, data, OCTETS).status == 401
    assert client.post(block, xorb.packed, OCTETS).status == 401


def test_a_token_for_chunked_uploads_is_for_nothing_else(site: HubSite) -> None:
    model, other = made(site, "narrow"), made(site, "wide")
    client, cas = xet(site.registry.as_role("publisher"), model)
    assert client.get(f"/api/models/{model}").status == 401
    assert client.get("/v1/whoami").status == 401
    assert client.post(f"/api/models/{model}/commit/main", b"", OCTETS).status == 401
    assert client.request("PUT", f"/api/lfs/{model}/objects/{'0' * 64}", b"x", OCTETS).status == 401
    xorb = sample_xorb([b"narrow"])
    wrong = cas.replace(model, other)
    assert client.post(f"{wrong}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 401
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 200


def test_chunks_of_others_are_not_there(site: HubSite) -> None:
    mine, theirs = made(site, "mine"), made(site, "theirs", "lab")
    owner, cas = xet(site.registry.as_role("publisher", "acme"), mine)
    secret = sample_xorb([b"the weights of a model nobody else has", b"and more of them"])
    assert owner.post(f"{cas}/v1/xorbs/default/{secret.name}", secret.packed, OCTETS).status == 200
    stranger, elsewhere = xet(site.registry.as_role("publisher", "lab"), theirs)
    # Knowing hash, lengths and even the SHA-256 is not having the bytes.
    before = stranger.post(f"{elsewhere}/v1/shards", sample_shard([whole(secret)]), OCTETS)
    unknown = SampleFile(Digest.of(b"x"), (("cd" * 32, 0, 1, 1),))
    never = stranger.post(f"{elsewhere}/v1/shards", sample_shard([unknown]), OCTETS)
    assert before.status == never.status == 409
    assert before.json["error"] == never.json["error"]
    assert owner.post(f"{cas}/v1/shards", sample_shard([whole(secret)]), OCTETS).status == 200
    assert stranger.post(f"{elsewhere}/v1/shards", sample_shard([whole(secret)]), OCTETS).status == 409, "nor the file"
    colleague, _ = xet(site.registry.as_role("publisher", "acme"), mine)
    assert colleague.post(f"{cas}/v1/shards", sample_shard([whole(secret)]), OCTETS).status == 200


def test_a_shard_that_says_other_chunks_than_there_are(site: HubSite) -> None:
    model = made(site, "lies")
    client, cas = xet(site.registry.as_role("publisher"), model)
    xorb = sample_xorb([b"one", b"three"])
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 200
    for terms in (((xorb.name, 0, 3, 8),), ((xorb.name, 0, 2, 9),), ((xorb.name, 1, 2, 3),)):
        shard = sample_shard([SampleFile(Digest.of(b"onethree"), terms)])
        assert client.post(f"{cas}/v1/shards", shard, OCTETS).status == 422, terms
    assert client.post(f"{cas}/v1/xorbs/default/{xorb.name[:-1]}", xorb.packed, OCTETS).status == 422
    assert client.post(f"{cas}/v1/xorbs/default/{'0' * 64}", xorb.packed, OCTETS).status == 422
    assert client.post(f"{cas}/v1/xorbs/default/{'1' * 64}", b"junk", OCTETS).status == 422
    assert client.post(f"{cas}/v1/shards", b"junk", OCTETS).status == 422


def test_readers_and_read_only_registries_take_nothing(site: HubSite) -> None:
    model = made(site, "reading")
    reader, publisher = site.registry.as_role("reader"), site.registry.as_role("publisher")
    assert reader.get(f"/api/models/{model}/xet-write-token/main").status == 403
    data = os.urandom(100)
    url, (client, cas) = upload_url(publisher, model, data), xet(publisher, model)
    config = site.registry.app.state.config
    site.registry.app.state.config = dataclasses.replace(config, read_only=True)
    try:
        assert site.registry.with_token(None).request("PUT", url, data, OCTETS).status == 403
        assert client.post(f"{cas}/v1/shards", sample_shard([]), OCTETS).status == 403
        assert publisher.post("/api/repos/create", {"name": "acme/more"}).status == 403
    finally:
        site.registry.app.state.config = config


def test_quotas_hold_for_every_way_in(site: HubSite) -> None:
    model = made(site, "full", "lab")
    publisher = site.registry.as_role("publisher", "lab")
    client, cas = xet(publisher, model)
    xorb = sample_xorb([os.urandom(100_000)])
    keeper = site.registry.registry.quotas
    before, keeper.quotas = keeper.quotas, Quotas(Quota(bytes=50_000, repositories=1))
    try:
        refused = client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS)
        assert (refused.status, refused.json["type"]) == (403, "/problems/quota-exceeded")
        small = sample_xorb([bytes(100_000)], [LZ4])
        assert len(small.packed) < 10_000, "what it unpacks to counts"
        refused = client.post(f"{cas}/v1/xorbs/default/{small.name}", small.packed, OCTETS)
        assert (refused.status, refused.json["type"]) == (403, "/problems/quota-exceeded")
        body = {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 60_000}]}
        answer = publisher.post(f"/{model}.git/info/lfs/objects/batch", json.dumps(body).encode(), LFS)
        assert answer.json["objects"][0]["error"]["code"] == 403
        path = f"/api/lfs/{model}/objects/{Digest.of(bytes(60_000)).hex}"
        assert publisher.request("PUT", path, bytes(60_000), OCTETS).status == 403
        assert publisher.post("/api/repos/create", {"name": "lab/another"}).status == 403
    finally:
        keeper.quotas = before
    # Once there is room, a xorb counts only until its file is there: 100 000 bytes fit into 150 000.
    before, keeper.quotas = keeper.quotas, Quotas(Quota(bytes=150_000, repositories=0))
    try:
        assert client.post(f"{cas}/v1/xorbs/default/{xorb.name}", xorb.packed, OCTETS).status == 200
        assert client.post(f"{cas}/v1/shards", sample_shard([whole(xorb)]), OCTETS).status == 200
    finally:
        keeper.quotas = before


def test_what_is_signed_stands_in_no_log(site: HubSite) -> None:
    records: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(f"{record.getMessage()} {record.__dict__.get('pqreg')}")

    handler = Keeping()
    logger = logging.getLogger("pq_registry")
    logger.addHandler(handler)
    level, _ = logger.level, logger.setLevel(logging.INFO)
    try:
        model, publisher = made(site, "silent"), site.registry.as_role("publisher")
        url, (client, cas) = upload_url(publisher, model, b"data"), xet(publisher, model)
        site.registry.with_token(None).request("PUT", url, b"data", OCTETS)
        client.post(f"{cas}/v1/shards", b"junk", OCTETS)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert any("/api/lfs/" in line for line in records)
    code = url.rpartition(".")[2]
    assert client.token is not None
    assert not [line for line in records if code in line or client.token in line]
