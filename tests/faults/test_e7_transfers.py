# SPDX-License-Identifier: Apache-2.0
"""E7 for publishers and nodes: what push and pull do when the object store, or the way to it, fails.

One table of what goes wrong for clients, one for the service; each with what has to come of it. The same for the store
by itself is in ``test_e7_object_store``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import FileDigestMismatch, PqregError, TransportError
from tests.engines import fresh_bucket
from tests.faultproxy import (
    Answer,
    Changed,
    ChangedRequest,
    Drip,
    Fault,
    Lost,
    LostBehind,
    Request,
    Reset,
    Truncated,
    flipped,
)
from tests.object_site import ObjectSite, object_site, of_clients, of_service
from tests.pull_site import content
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
PATIENCE = 1.0
"""Seconds of silence a client takes in these tests."""


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectSite]:
    with pytest.MonkeyPatch.context() as patch, object_site(tmp_path_factory.mktemp("site"), fresh_bucket()) as made:
        patch.setattr(limits, "PART_BYTES", 4 * SHARD)  # a few parts, a few megabytes
        yield made


@pytest.fixture
def site(shared_site: ObjectSite) -> Iterator[ObjectSite]:
    shared_site.proxy.requests.clear()
    yield shared_site
    shared_site.proxy.heal()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model nobody has pushed before."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": secrets.token_hex(8)}))
    weights, _ = safetensors_bytes({"w": ("F32", (5 * SHARD // 2 + 1000,))}, secrets.randbits(30))
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def is_part(request: Request) -> bool:
    return of_clients(request) and request.method == "PUT" and "partNumber" in request.query


def is_read(request: Request) -> bool:
    return of_clients(request) and request.method == "GET"


PUSHED_BY_RETRY: dict[str, tuple[Fault, int]] = {
    "503": (Answer(503), 2),
    "500": (Answer(500, "InternalError"), 2),
    "expired": (Answer(403, "AccessDenied"), 1),
    "clock skew": (Answer(403, "RequestTimeTooSkewed"), 1),
    "upload unknown": (Answer(404, "NoSuchUpload"), 1),
    "reset": (Reset(), 2),
    "done, answer lost": (Lost(), 1),
    "done, silence": (Lost(silent=True), 1),
    "done, 502": (LostBehind(), 1),
    "done, refused": (Changed(status=403), 1),
    "corrupted on the way": (ChangedRequest(flipped), 1),
    "another ETag": (Changed(headers={"ETag": '"0123"'}), 4),
    "no ETag": (Changed(headers={"ETag": None}), 4),
    "answer drips": (Drip(0.05, whole_head=False), 1),
}


@pytest.mark.parametrize("name", PUSHED_BY_RETRY)
def test_e7_a_push_gets_through(site: ObjectSite, model: Path, name: str) -> None:
    fault, times = PUSHED_BY_RETRY[name]
    site.proxy.inject(fault, when=is_part, times=times)
    pushed = site.push(model, timeout=PATIENCE)
    assert name.endswith("ETag") or not site.proxy.pending
    site.proxy.heal()
    site.pull(pushed, model.parent / "out")
    assert content(model.parent / "out") == content(model)


@pytest.mark.parametrize("name", ["503", "reset", "expired"])
def test_e7_a_push_that_does_not_get_through_goes_on_where_it_was(site: ObjectSite, model: Path, name: str) -> None:
    fault, _ = PUSHED_BY_RETRY[name]
    site.proxy.inject(fault, when=is_part, skip=1, times=1000)
    with pytest.raises(TransportError) as caught:
        site.push(model)
    assert "X-Amz" not in f"{caught.value} {caught.value.hint}"
    site.proxy.heal()
    pushed = site.push(model)
    assert pushed.sent.resumed >= 4 * SHARD
    site.pull(pushed, model.parent / "out")
    assert content(model.parent / "out") == content(model)


PULLED_BY_RETRY: dict[str, tuple[Fault, int]] = {
    "503": (Answer(503), 2),
    "expired": (Answer(403, "AccessDenied"), 1),
    "not there yet": (Answer(404, "NoSuchKey"), 1),
    "reset": (Reset(), 2),
    "silence": (Lost(silent=True), 1),
    "cut off": (Truncated(100_000), 2),
    "corrupted": (Changed(body=flipped), 1),
    "another range": (Changed(headers={"Content-Range": "bytes 0-1/2"}), 1),
    "drips": (Drip(0.05), 1),
}


@pytest.mark.parametrize("name", PULLED_BY_RETRY)
def test_e7_a_pull_gets_through_or_refuses(site: ObjectSite, model: Path, name: str) -> None:
    pushed = site.push(model)
    fault, times = PULLED_BY_RETRY[name]
    large = (model / "model.safetensors").stat().st_size
    site.proxy.inject(fault, when=lambda request: is_read(request) and "range" in _names(request), times=times)
    out = model.parent / "out"
    try:
        site.pull(pushed, out, timeout=PATIENCE)
    except PqregError:
        # An answer that is not HTTP's answer to the question is never asked for again by itself; nothing is left
        # that looks finished, and the next pull has everything.
        assert name == "another range"
        assert not (out / "model.safetensors").exists()
        site.pull(pushed, out)
    assert not site.proxy.pending
    assert content(out) == content(model)
    assert (out / "model.safetensors").stat().st_size == large


def _names(request: Request) -> set[str]:
    return {name.lower() for name in request.headers}


def finishes(request: Request) -> bool:
    return of_service(request) and request.method == "POST" and "uploadId" in request.query


def lists(request: Request) -> bool:
    return of_service(request) and request.method == "GET" and "uploadId" in request.query


def begins(request: Request) -> bool:
    return of_service(request) and request.method == "POST" and request.query.startswith("uploads")


def verifies(request: Request) -> bool:
    return of_service(request) and request.method == "GET" and "/sha256/" in request.path and "range" in _names(request)


SERVICE: dict[str, tuple[Fault, Callable[[Request], bool], int]] = {
    "begin 503": (Answer(503), begins, 2),
    "begun, answer lost": (Lost(), begins, 1),
    "list 503": (Answer(503), lists, 2),
    "finish 503": (Answer(503), finishes, 2),
    "finished, answer lost": (Lost(), finishes, 1),
    "finished, 502": (LostBehind(), finishes, 1),
    "read 503": (Answer(503), verifies, 2),
    "read cut off": (Truncated(100_000), verifies, 1),
    "read reset": (Reset(), verifies, 2),
}


@pytest.mark.parametrize("name", SERVICE)
def test_e7_what_fails_for_the_service_is_tried_again(site: ObjectSite, model: Path, name: str) -> None:
    fault, when, times = SERVICE[name]
    site.proxy.inject(fault, when=when, times=times)
    pushed = site.push(model)
    assert not site.proxy.pending
    site.pull(pushed, model.parent / "out")
    assert content(model.parent / "out") == content(model)


def test_e7_bytes_the_service_reads_wrongly_are_refused_and_nothing_of_them_stays(
    site: ObjectSite, model: Path
) -> None:
    before = site.bucket.keys()
    site.proxy.inject(Changed(body=flipped), when=verifies, skip=1)
    with pytest.raises(FileDigestMismatch):
        for _ in range(3):  # which blob it hits first is a matter of threads
            site.push(model)
            site.proxy.inject(Changed(body=flipped), when=verifies)
    site.proxy.heal()
    pushed = site.push(model)
    site.pull(pushed, model.parent / "out")
    assert content(model.parent / "out") == content(model)
    assert len([key for key in set(site.bucket.keys()) - set(before) if key.startswith("sha256/")]) == 3


def test_e7_an_outage_ends_a_push_cleanly_and_is_told_by_its_status(site: ObjectSite, model: Path) -> None:
    site.proxy.inject(Reset(), when=lambda _: True, times=10_000)
    with pytest.raises(TransportError) as caught:
        site.push(model)
    assert "X-Amz" not in f"{caught.value} {caught.value.hint}"
    site.proxy.heal()
    pushed = site.push(model)
    site.pull(pushed, model.parent / "out")


def test_e7_weights_never_pass_through_the_service(site: ObjectSite, model: Path) -> None:
    pushed = site.push(model)
    received = site.api.app.state.metrics.received._value.get()
    sent = site.sent_by_service()
    site.pull(pushed, model.parent / "out")
    size = (model / "model.safetensors").stat().st_size
    assert received < size / 10  # envelopes, and blobs of one slice
    assert site.sent_by_service() - sent < size / 10
    asked = [line for line in site.proxy.requests if is_read(line) and "/sha256/" in line.path]
    assert len(asked) > 3


def test_e7_no_url_is_in_the_services_log(site: ObjectSite, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pushed = site.push(model)
    site.pull(pushed, model.parent / "out")
    said = "".join(capfd.readouterr())
    assert "X-Amz" not in said
    assert site.api.get("/metrics").status == 200
    assert b"X-Amz" not in site.api.get("/metrics").body
