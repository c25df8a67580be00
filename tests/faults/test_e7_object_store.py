# SPDX-License-Identifier: Apache-2.0
"""E7 at the stores: what each fault of an object store comes to. A proxy in front of a real one makes the faults.

Three outcomes are allowed: it works by trying again; it fails with a StorageError, which a client is told to try later;
or, where other bytes came, whoever reads notices. Never: another blob, a tile or checkpoint overwritten, half an object
taken for a whole one, a wait without end, a secret in a message.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import LogHalted, NotFound, PqregError, SettingError
from pq_registry.format.digest import Digest
from pq_registry.server.problems import problem_of
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.probe import probe, require
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.tiles import S3Tiles
from tests.engines import Bucket
from tests.faultproxy import (
    Answer,
    Changed,
    ChangedRequest,
    Drip,
    Fault,
    FaultProxy,
    Lost,
    LostBehind,
    Request,
    Reset,
    Truncated,
    flipped,
)
from tests.faults.storesite import DATA, SECRET, Site, note, refused

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PASSING: list[Fault] = [
    Answer(503),
    Answer(500, "InternalError"),
    Answer(429, "TooManyRequests"),
    Reset(),
    Lost(),
    LostBehind(502),
]


@pytest.fixture
def site(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Impatient, so that faults that are waited for take a second and not half a minute."""
    monkeypatch.setattr(limits, "S3_SILENCE_SECONDS", 1)
    monkeypatch.setattr(limits, "S3_ATTEMPTS", 2)
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        found = Site(proxy, s3_bucket)
        assert found.session.capabilities.conditional_put
        yield found
        found.session.close()


def every(site: Site) -> dict[str, tuple[Callable[[], object], Callable[[], bool]]]:
    """Each thing the service does, and how to see that it is done."""
    put, finished, begun = (StoredBlob(Digest.of(DATA), new_upload_id()) for _ in range(3))
    gone = site.kept()
    storage_id = site.store.begin(finished)
    site.session.call(
        "upload_part", "store", f"sha256/{finished.digest.hex[:2]}/{finished.digest.hex}/{finished.copy}",
        UploadId=storage_id, PartNumber=1, Body=DATA,
    )  # fmt: skip
    held = site.store.parts(finished, storage_id)
    abandoned = StoredBlob(Digest.of(b"never"), new_upload_id())
    abandoned_id = site.store.begin(abandoned)
    checkpoint = note(3)
    present = site.kept()
    return {
        "put": (lambda: site.store.put(put, DATA), lambda: hash_blob(site.store, put) == put.digest),
        "begin": (lambda: site.store.begin(begun), lambda: begun in [each.blob for each in site.store.unfinished()]),
        "list parts": (lambda: site.store.parts(finished, storage_id), lambda: True),
        "finish": (
            lambda: site.store.finish(finished, storage_id, held),
            lambda: hash_blob(site.store, finished) == finished.digest,
        ),
        "abandon": (
            lambda: site.store.abandon(abandoned, abandoned_id),
            lambda: abandoned not in [each.blob for each in site.store.unfinished()],
        ),
        "open": (lambda: site.store.open(present).close(), lambda: True),
        "read": (lambda: site.read(present), lambda: True),
        "remove": (lambda: site.store.remove(gone), lambda: site.store.size(gone) is None),
        "tile": (
            lambda: site.tiles.write([("tile/0/000", b"t" * 8192)]),
            lambda: site.tiles.read("tile/0/000") == b"t" * 8192,
        ),
        "checkpoint": (
            lambda: site.tiles.write_checkpoint(checkpoint),
            lambda: site.tiles.read("checkpoint") == checkpoint,
        ),
        "list": (lambda: list(site.store.iterate()), lambda: True),
    }


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: repr(fault)[:28])
def test_a_passing_fault_is_tried_again(site: Site, fault: Fault) -> None:
    """503, 500, 429, a reset, success whose answer is lost: done, and nothing else is changed by the second try."""
    for name, (attempt, is_done) in every(site).items():
        site.proxy.inject(fault)
        attempt()
        assert site.proxy.pending == 0, f"{name}: the fault was not met"
        assert is_done(), name


def test_silence_after_success_is_waited_for_and_tried_again(site: Site) -> None:
    attempts = every(site)
    for name in ("put", "finish", "tile", "checkpoint"):
        attempt, is_done = attempts[name]
        site.proxy.inject(Lost(silent=True))
        attempt()
        assert site.proxy.pending == 0 and is_done(), name


@pytest.mark.parametrize("fault", [Answer(503), Reset()], ids=["503", "reset"])
def test_a_lasting_fault_is_told_and_does_no_harm(site: Site, fault: Fault) -> None:
    for name, (attempt, is_done) in every(site).items():
        site.proxy.inject(fault, times=1000)
        error = refused(attempt)
        problem = problem_of(error, "request")
        assert (problem.status, problem.headers.get("Retry-After")) == (503, str(limits.S3_SLOW_DOWN_SECONDS)), name
        site.proxy.heal()
        attempt()
        assert is_done(), f"{name}: the same call, later"


def test_a_store_that_is_gone(site: Site) -> None:
    blob = site.kept()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        session = S3Session(site.bucket.config(s3_endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}"))
        error = refused(lambda: S3BlobStore(session).open(blob), "cannot look at")
        assert error.retry_after == limits.S3_SLOW_DOWN_SECONDS
        refused(S3BlobStore(session).check)
        session.close()


@pytest.mark.parametrize("cut", [0, 1, 65_536, 299_999])
def test_a_truncated_body_is_taken_up_where_it_broke(site: Site, cut: int) -> None:
    blob = site.kept()
    site.proxy.inject(Truncated(cut), method="GET")
    reader = site.store.open(blob)
    assert reader.read(0, len(DATA)) == DATA
    reader.close()
    asked = [each.headers["Range"] for each in site.proxy.requests if "Range" in each.headers]
    assert asked == [f"bytes=0-{len(DATA) - 1}", f"bytes={cut}-{len(DATA) - 1}"]
    site.tiles.replace("tile/0/000", DATA)
    site.proxy.inject(Truncated(cut), method="GET")
    assert site.tiles.read("tile/0/000") == DATA


def test_a_body_that_is_always_truncated(site: Site) -> None:
    blob = site.kept()
    reader = site.store.open(blob)
    site.proxy.inject(Truncated(10), method="GET", times=1000)
    refused(lambda: reader.read(0, len(DATA)))
    reader.close()


def test_corrupted_bytes_are_other_bytes_to_whoever_reads(site: Site) -> None:
    """Nothing says so on the way; the digest does, and files of the log are checked against the tree by readers."""
    blob = site.kept()
    site.proxy.inject(Changed(body=flipped), method="GET")
    assert hash_blob(site.store, blob) != blob.digest
    assert hash_blob(site.store, blob) == blob.digest


def test_a_corrupted_put_is_refused_by_the_store(site: Site) -> None:
    """The service sends checksums of what it sends, so the store notices before anything stands there."""
    blob = StoredBlob(Digest.of(DATA), new_upload_id())
    site.proxy.inject(ChangedRequest(flipped), method="PUT", times=1000)
    refused(lambda: site.store.put(blob, DATA))
    refused(lambda: site.tiles.write([("tile/0/000", DATA[:8192])]))
    site.proxy.heal()
    assert site.store.size(blob) is None
    with pytest.raises(NotFound):
        site.tiles.read("tile/0/000")


def test_the_wrong_range_is_not_taken_for_the_right_one(site: Site) -> None:
    blob = site.kept()
    reader = site.store.open(blob)
    for fault in (
        Changed(headers={"Content-Range": f"bytes 5-14/{len(DATA)}"}),
        Changed(headers={"Content-Range": None}),
        Changed(headers={"Content-Range": "bytes 0-9/*"}),
        Changed(status=200),
        Changed(body=lambda data: data + b"x"),
        Changed(body=lambda data: data[:-1]),
        Changed(headers={"Content-Encoding": "gzip"}),
        Changed(status=200, headers={"Content-Range": None}, body=lambda _: DATA),
    ):
        site.proxy.inject(fault, method="GET", times=2)
        refused(lambda: reader.read(0, 10))
        site.proxy.heal()
    assert reader.read(0, 10) == DATA[:10]
    reader.close()


def test_an_object_that_is_swapped_while_it_is_read(site: Site) -> None:
    blob = site.kept()
    reader = site.store.open(blob)
    assert reader.read(0, 10) == DATA[:10]
    client = site.bucket.client()
    key = f"{site.bucket.prefix}/sha256/{blob.digest.hex[:2]}/{blob.digest.hex}/{blob.copy}"
    client.put_object(Bucket=site.bucket.name, Key=key, Body=bytes(len(DATA)))
    refused(lambda: reader.read(50, 10), "replaced")
    reader.close()
    site.proxy.inject(Changed(headers={"ETag": '"other"'}), method="GET")
    reader = site.store.open(blob)
    refused(lambda: reader.read(0, 10), "replaced")
    client.delete_object(Bucket=site.bucket.name, Key=key)
    refused(lambda: reader.read(0, 10), "removed")
    reader.close()
    client.close()


def test_wrong_tags_of_parts_never_make_an_object(site: Site) -> None:
    attempt, is_done = every(site)["finish"]
    blob = StoredBlob(Digest.of(DATA), new_upload_id())
    storage_id = site.store.begin(blob)
    name = f"sha256/{blob.digest.hex[:2]}/{blob.digest.hex}/{blob.copy}"
    site.session.call("upload_part", "store", name, UploadId=storage_id, PartNumber=1, Body=DATA)
    wrong = Changed(body=lambda data: re.sub(rb"<ETag>.*?</ETag>", b"<ETag>&#34;" + b"0" * 32 + b"&#34;</ETag>", data))
    site.proxy.inject(wrong, method="GET")
    held = site.store.parts(blob, storage_id)
    refused(lambda: site.store.finish(blob, storage_id, held))
    assert site.store.size(blob) is None
    site.store.finish(blob, storage_id, site.store.parts(blob, storage_id))
    assert hash_blob(site.store, blob) == blob.digest
    for body in (b"<ListPartsResult><Part><PartNumber>0</PartNumber></Part></ListPartsResult>", b"<html>", b""):
        site.proxy.inject(Answer(200, body=body), method="GET")
        try:
            assert site.store.parts(StoredBlob(blob.digest, new_upload_id()), storage_id) == {}
        except PqregError as error:
            assert not SECRET.search(str(error))
        site.proxy.heal()
    attempt()
    assert is_done()


def test_success_that_is_an_error(site: Site) -> None:
    """CompleteMultipartUpload may begin its answer with 200 and end it with an error: it is tried again."""
    attempt, is_done = every(site)["finish"]
    site.proxy.inject(Answer(200, "InternalError"), method="POST")
    attempt()
    assert site.proxy.pending == 0 and is_done()


def test_a_finished_upload_whose_answer_was_lost_for_good(site: Site) -> None:
    """The service gave up; the next try finds no upload, but the object of that size. Another size is refused."""
    attempt, is_done = every(site)["finish"]
    site.proxy.inject(Lost(), method="POST", times=1)
    site.proxy.inject(Answer(503), method="POST", times=1)
    refused(attempt)
    attempt()
    assert is_done()
    blob = StoredBlob(Digest.of(b"nothing"), new_upload_id())
    storage_id = site.store.begin(blob)
    site.store.abandon(blob, storage_id)
    refused(lambda: site.store.finish(blob, storage_id, {}), "no longer knows")


def test_a_lost_answer_to_a_conditional_write(site: Site) -> None:
    """The second try meets the first one's object: the same bytes are no conflict, others halt the log."""
    site.proxy.inject(Lost(), method="PUT")
    site.tiles.write([("tile/0/000", b"t" * 8192)])
    for size in (1, 2):
        site.proxy.inject(Lost(), method="PUT")
        site.tiles.write_checkpoint(note(size))
    with pytest.raises(LogHalted):
        site.tiles.write([("tile/0/000", b"u" * 8192)])


def test_an_expired_or_skewed_signature(site: Site) -> None:
    """A URL that is over is 403 for whoever has it; a service whose clock is wrong says so and does not start."""
    early = S3Session(site.session.config, clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    blob = site.kept()
    reader = S3BlobStore(early).open(blob)
    error = refused(lambda: reader.read(0, 10))
    assert "403" in str(error) and "credentials" in str(error.hint)
    reader.close()
    early.close()
    site.proxy.inject(Answer(403, "RequestTimeTooSkewed"))
    assert "clock" in str(refused(site.store.check).hint)


@pytest.mark.parametrize("minutes", [-20, 20])
def test_clocks_that_differ_are_noticed_at_the_start(site: Site, minutes: int) -> None:
    told = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    site.proxy.inject(Changed(headers={"Date": told}), times=10_000)
    session = S3Session(site.session.config)
    refused(lambda: require(session), "clocks")
    _, findings = probe(session)
    assert [each.name for each in findings if each.fatal] == ["clock"]
    session.close()


def test_a_store_that_drips_is_given_up(site: Site) -> None:
    """A byte every hundredth of a second never is a silence; below MINIMUM_RATE_BYTES per second it is given up."""
    blob = site.kept()
    reader = site.store.open(blob)
    site.proxy.inject(Drip(0.01), method="GET", times=2)
    refused(lambda: reader.read(0, 100_000), "too slowly")
    site.proxy.heal()
    assert reader.read(0, 100_000) == DATA[:100_000]
    reader.close()


def test_a_store_that_says_nothing_is_given_up(site: Site) -> None:
    blob = site.kept()
    site.proxy.inject(Lost(silent=True), times=2)
    assert refused(site.store.check).retry_after == limits.S3_SLOW_DOWN_SECONDS
    site.proxy.inject(Lost(silent=True), method="GET", times=2)
    reader = site.store.open(blob)
    refused(lambda: reader.read(0, 10))
    reader.close()


@pytest.mark.parametrize("status", [200, 501])
def test_conditions_that_are_not_there_are_not_relied_on(site: Site, status: int) -> None:
    """501, or, worse, success that overwrites: what stands is read first, and the rules hold all the same."""

    def conditional(request: Request) -> bool:
        return request.method == "PUT" and any(
            name.lower() in ("if-none-match", "if-match") for name in request.headers
        )

    class Ignored(Fault):
        def handle(self, request: Request, forward: Any, exchange: Any) -> None:
            kept = {name: value for name, value in request.headers.items() if not name.lower().startswith("if-")}
            client = site.bucket.client()
            client.put_object(Bucket=site.bucket.name, Key=request.path.split("/", 2)[2], Body=request.body)
            client.close()
            exchange.send(forward(Request("HEAD", request.path, request.query, kept, b"")), head=True)

    site.proxy.inject(Answer(501, "NotImplemented") if status == 501 else Ignored(), when=conditional, times=10_000)
    session = S3Session(site.session.config)
    tiles = S3Tiles(session)
    assert not session.capabilities.conditional_put and not session.capabilities.conditional_replace
    tiles.write([("tile/0/000", b"t" * 8192)])
    tiles.write([("tile/0/000", b"t" * 8192)])
    with pytest.raises(LogHalted):
        tiles.write([("tile/0/000", b"u" * 8192)])
    tiles.write_checkpoint(note(2))
    with pytest.raises(LogHalted):
        tiles.write_checkpoint(note(1))
    require(session)
    session.close()


def test_retention_that_the_bucket_does_not_know(site: Site) -> None:
    session = S3Session(site.bucket.config(s3_retention_days="1"))
    blob = site.kept()
    with pytest.raises(SettingError, match="no Object Lock"):
        require(session)
    refused(lambda: S3BlobStore(session).retain(blob, NOW), "no Object Lock")
    assert S3BlobStore(site.session).retain(blob, NOW) is None
    session.close()
