# SPDX-License-Identifier: Apache-2.0
"""D9 with an object store: what costs a client little must not cost the service, or the store behind it, much."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.storage.stores import StoreConfig
from tests.engines import fresh_bucket
from tests.faultproxy import Exchange, Fault, FaultProxy, Forward, Request
from tests.object_site import of_service
from tests.samples import REPOSITORY
from tests.server_harness import RunningRegistry, running

CONTENT = secrets.token_bytes(limits.SHARD_BYTES + 1)


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(fresh_bucket().server.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, proxy: FaultProxy) -> Iterator[RunningRegistry]:
    home = tmp_path_factory.mktemp("registry")
    stores = StoreConfig(data=home / "data", s3=fresh_bucket().config(s3_endpoint=proxy.url))
    with running(home / "data", stores=stores) as made:
        yield made


def urls(registry: RunningRegistry, upload: str) -> str:
    return f"/v1/repos/{REPOSITORY}/uploads/{upload}/urls"


def test_d09_urls_are_asked_for_in_bounded_numbers_and_only_for_what_there_is(registry: RunningRegistry) -> None:
    upload = registry.open_upload(CONTENT).json["id"]
    part = {"number": 0, "sha256": str(Digest.of(b"x"))}
    path = urls(registry, upload)
    assert registry.post(path, {"parts": [part] * limits.SIGNED_PARTS}).status == 200
    refused: tuple[Any, ...] = (
        {"parts": []},
        {"parts": [part] * (limits.SIGNED_PARTS + 1)},
        {"parts": [{**part, "number": 1}]},
        {"parts": [{**part, "number": -1}]},
        {"parts": [{**part, "number": limits.PARTS}]},
        {"parts": [{**part, "number": 2**70}]},
        {"parts": [{**part, "number": "0"}]},
        {"parts": [{**part, "sha256": "sha256:" + "A" * 64}]},
        {"parts": [{**part, "url": "http://127.0.0.1/"}]},
        {"parts": [part], "key": "log/checkpoint"},
        {},
        [],
    )
    for body in refused:
        assert registry.post(path, body).status == 422, body
    assert (
        registry.post(path, b" " * (limits.REQUEST_BODY_BYTES + 1), {"Content-Type": "application/json"}).status == 413
    )


def test_d09_completing_what_is_not_complete_reads_nothing(registry: RunningRegistry, proxy: FaultProxy) -> None:
    upload = registry.open_upload(CONTENT + b"more").json["id"]
    before = len(proxy.requests)
    for _ in range(5):
        assert registry.complete(upload).code == "conflict"
    asked = [request for request in proxy.requests[before:] if of_service(request) and "/sha256/" in request.path]
    assert len(asked) <= 10
    assert {request.method for request in asked} == {"GET"}
    assert all("uploadId" in request.query for request in asked)  # the parts were listed, and that is all


def test_d09_ranges_of_what_lies_elsewhere_are_the_stores_business(
    registry: RunningRegistry, proxy: FaultProxy
) -> None:
    digest = registry.upload(b"small").hex
    before = len(proxy.requests)
    for wanted in ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), "bytes=99999-", "bytes=0-" + "9" * 4000):
        answer = registry.request_once("GET", f"/v1/blobs/sha256/{digest}", headers={"Range": wanted})
        assert (answer.status, answer.body) == (307, b"")
    assert registry.request("HEAD", f"/v1/blobs/sha256/{digest}").headers["content-length"] == "5"
    assert not [request for request in proxy.requests[before:] if "/sha256/" in request.path]


@dataclass
class Held(Fault):
    """No answer before ``may`` is set."""

    may: threading.Event

    def handle(self, request: Request, forward: Forward, exchange: Exchange) -> None:
        assert self.may.wait(60)
        super().handle(request, forward, exchange)


def test_d09_a_store_that_does_not_answer_keeps_nobody_else_waiting(
    registry: RunningRegistry, proxy: FaultProxy
) -> None:
    uploads = [registry.open_upload(CONTENT + bytes([number])).json["id"] for number in range(50)]
    may = threading.Event()
    proxy.inject(Held(may), when=lambda request: "uploadId" in request.query, times=10_000)
    with ThreadPoolExecutor(len(uploads)) as clients:
        waiting = [clients.submit(registry.complete, upload) for upload in uploads]
        try:
            for _ in range(20):
                assert registry.get("/livez").status == 200
                assert registry.get("/v1/whoami").status == 200
            assert not any(request.done() for request in waiting)
        finally:
            proxy.heal()
            may.set()
        assert {request.result().code for request in waiting} == {"conflict"}
