# SPDX-License-Identifier: Apache-2.0
"""D9: little work for the sender, much for the service (CVE-2025-62727, CVE-2024-47874, CVE-2026-54283)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.server.guard import policies
from pq_registry.service.logsearch import LogSearch
from pq_registry.service.logview import LogView
from tests.attacks.test_d01_routes_without_policy import example
from tests.samples import publisher
from tests.server_harness import JSON, OCTETS, RunningRegistry

HEX = "0" * 64


@pytest.fixture(scope="module")
def blob(shared_registry: RunningRegistry) -> str:
    return f"/v1/blobs/sha256/{shared_registry.upload(bytes(range(256)) * 40).hex}"


class Raw:
    """A connection that sends what no client would."""

    def __init__(self, registry: RunningRegistry) -> None:
        host, _, port = registry.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.head = f"Host: {host}:{port}\r\nAuthorization: Bearer {registry.token}\r\n"

    def send(self, data: str | bytes) -> None:
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def read_to_end(self) -> bytes:
        """Everything until the service closes the connection (at most 20 s of silence)."""
        found = b""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return found
            if not data:
                return found
            found += data

    def read_answer(self) -> bytes:
        """One answer, by its Content-Length."""
        found = b""
        while b"\r\n\r\n" not in found:
            data = self.socket.recv(65536)
            if not data:
                return found
            found += data
        head, _, body = found.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self.socket.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw(shared_registry: RunningRegistry) -> Iterator[Raw]:
    with closing(Raw(shared_registry)) as connection:
        yield connection


# -- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.directory_only("an object store sends its blobs itself")
@pytest.mark.parametrize("count", [2, 100, 10_000])
def test_several_ranges_are_refused(shared_registry: RunningRegistry, blob: str, count: int) -> None:
    header = "bytes=" + ",".join(f"{n}-" for n in range(count))
    answer = shared_registry.get(blob, {"Range": header})
    assert answer.code == "range-not-satisfiable"
    assert answer.headers["content-range"] == "bytes */10240"


@pytest.mark.parametrize(
    "header", ["bytes=" + "9" * 100_000 + "-", "bytes=" + " " * 60_000 + "0-1", "bytes=" + "0-" * 30_000 + "x"]
)
def test_long_range_headers_cost_nothing(shared_registry: RunningRegistry, blob: str, header: str) -> None:
    started = time.monotonic()
    assert shared_registry.get(blob, {"Range": header}).status in (200, 206, 416)
    assert time.monotonic() - started < 5


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_every_route_bounds_its_body(shared_registry: RunningRegistry) -> None:
    for (method, path), policy in policies(shared_registry.app).items():
        if method == "HEAD":
            continue
        with closing(Raw(shared_registry)) as raw:
            # The body is announced, not sent: the answer must not wait for it.
            raw.send(f"{method} {example(path)} HTTP/1.1\r\n{raw.head}Content-Length: {policy.body + 1}\r\n")
            raw.send("Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n")
            answer = raw.read_to_end()
        assert answer.startswith(b"HTTP/1.1 413 "), (method, path, answer)
        assert b"/problems/content-too-large" in answer


@pytest.mark.parametrize("junk", [b"0,", b"[", b'{"a":0},', b'"",'])
def test_a_history_of_millions_of_nothings_is_not_even_parsed(shared_registry: RunningRegistry, junk: bytes) -> None:
    """Parsing one strictly takes eight seconds; in the event loop nobody else was answered meanwhile."""
    body = b'{"statements":[' + junk * ((limits.HISTORY_BYTES - 100) // len(junk)) + b"0]}"
    for path in ("repos/acme/minilm/tags/v1", "namespaces/acme/status", f"repos/acme/minilm/grants/{HEX}/{HEX}"):
        answer = shared_registry.request("POST", f"/v1/{path}/history", body, JSON)
        assert answer.code == "format-error", answer
        assert "is no history" in answer.json["detail"]


def test_routes_without_a_body_take_no_chunked_one(shared_registry: RunningRegistry) -> None:
    for (method, path), policy in policies(shared_registry.app).items():
        if policy.body or method == "HEAD":
            continue
        answer = shared_registry.request(method, example(path), iter([b"a" * 10]))
        assert answer.code == "bad-request", (method, path)


def test_a_chunked_body_is_counted(shared_registry: RunningRegistry) -> None:
    endless = (b" " * 65536 for _ in range(64))
    answer = shared_registry.request("POST", "/v1/repos/acme/x/missing", endless, JSON)
    assert answer.code == "content-too-large"


def test_a_part_needs_a_length(shared_registry: RunningRegistry) -> None:
    upload = shared_registry.open_upload(b"some content").json["id"]
    path = f"/v1/repos/acme/minilm/uploads/{upload}/parts/0"
    answer = shared_registry.request("PUT", path, iter([b"some content"]), {**OCTETS, "Pqreg-Shards": "AAAA"})
    assert answer.code == "length-required"
    for lying in (b"some", b"some content and more"):
        assert shared_registry.put_part(upload, 0, lying).code == "format-error"
    assert shared_registry.get(f"/v1/repos/acme/minilm/uploads/{upload}").json["parts"] == []


def test_length_and_chunks_together_are_refused(shared_registry: RunningRegistry, raw: Raw) -> None:
    raw.send(f"POST /v1/repos/acme/x/missing HTTP/1.1\r\n{raw.head}Content-Type: application/json\r\n")
    raw.send("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    raw.socket.shutdown(socket.SHUT_WR)
    assert b" 400 " in raw.read_to_end().partition(b"\r\n")[0]


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "+5", "5, 5", "99999999999999999999999", "\u0665"])
def test_odd_lengths_are_refused(shared_registry: RunningRegistry, raw: Raw, length: str) -> None:
    raw.send(f"POST /v1/repos/acme/x/missing HTTP/1.1\r\n{raw.head}Content-Type: application/json\r\n")
    raw.send(f"Content-Length: {length}\r\n\r\n")
    raw.socket.shutdown(socket.SHUT_WR)
    assert raw.read_to_end()[9:12] in (b"400", b"413")


@pytest.mark.parametrize("path", ["/v1/repos/acme/x/missing", "/v1/repos/acme/minilm/uploads/UPLOAD/parts/0"])
def test_a_slow_body_is_given_up(
    shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, raw: Raw, path: str
) -> None:
    monkeypatch.setattr(limits, "BODY_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(limits, "BODY_BYTES_PER_SECOND", 100 * limits.MIB)
    content = b"slow content of a part"
    upload = shared_registry.open_upload(content).json["id"]
    part = "UPLOAD" in path
    kind = "application/octet-stream" if part else "application/json"
    raw.send(
        f"{'PUT' if part else 'POST'} {path.replace('UPLOAD', upload)} HTTP/1.1\r\n{raw.head}Content-Type: {kind}\r\n"
    )
    raw.send(f"Pqreg-Shards: {'A' * 43}=\r\nContent-Length: {len(content)}\r\n\r\nslow")
    answer = raw.read_to_end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_body_that_trickles_is_given_up(
    shared_registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, raw: Raw
) -> None:
    monkeypatch.setattr(limits, "BODY_SILENCE_SECONDS", 0.5)
    raw.send(f"POST /v1/repos/acme/x/missing HTTP/1.1\r\n{raw.head}Content-Type: application/json\r\n")
    raw.send("Content-Length: 100000\r\n\r\n")
    raw.socket.settimeout(0.05)
    answer = b""
    started = time.monotonic()
    while not answer and time.monotonic() - started < 20:
        try:
            raw.send(b" ")
            answer = raw.socket.recv(65536)
        except TimeoutError:
            continue
    assert answer.startswith(b"HTTP/1.1 408 ")


# -- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", ["X-Pad: " + "a" * 4000 + "\r\n", "a" * 4000])
def test_an_endless_head_is_cut_off(shared_registry: RunningRegistry, raw: Raw, piece: str) -> None:
    raw.send("GET /livez HTTP/1.1\r\n" if piece.startswith("X") else "GET /")
    sent = 0
    with pytest.raises(ConnectionError):  # the service closes while we send
        while sent < 64 * limits.REQUEST_HEAD_BYTES:
            raw.send(piece)
            sent += len(piece)
    assert sent < 64 * limits.REQUEST_HEAD_BYTES


def test_a_slow_head_is_given_up(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_HEAD_SECONDS", 0.3)
    for beginning in ("", "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow:"):
        with closing(Raw(registry)) as raw:
            raw.send(beginning)
            assert raw.read_to_end() == b""


def test_a_second_request_on_a_connection_is_bounded_too(shared_registry: RunningRegistry, raw: Raw) -> None:
    raw.send(f"GET /livez HTTP/1.1\r\n{raw.head}\r\n")
    assert raw.read_answer().startswith(b"HTTP/1.1 200 ")
    raw.send("GET /livez HTTP/1.1\r\n")
    with pytest.raises(ConnectionError):  # the service closes while we send
        for _ in range(10_000):
            raw.send("X-Pad: " + "a" * 4000 + "\r\n")


def test_many_headers_of_one_request(shared_registry: RunningRegistry, raw: Raw) -> None:
    raw.send(f"GET /v1/whoami HTTP/1.1\r\n{raw.head}" + "".join(f"X-{n}: 1\r\n" for n in range(5000)) + "\r\n")
    assert raw.read_answer().startswith(b"HTTP/1.1 200 ")


# -- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"digests":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"digests":[' + b"1" * 100_000 + b"]}",
     b'{"digests":[1e400]}', b'{"digests":[NaN]}', b'{"digests":["\\ud800"]}', b"\xff\xfe", b"\xef\xbb\xbf{}", b"",
     b'{"digests":[],"digests":[]}', b'{"digests":{}}', b'{"digests":null}', b"null", b'{"digests":[null]}',
     b'{"digests":["sha256:' + b"A" * 64 + b'"]}'],
    ids=range(15),
)  # fmt: skip
def test_hostile_json_is_one_kind_of_error(shared_registry: RunningRegistry, body: bytes) -> None:
    started = time.monotonic()
    answer = shared_registry.post("/v1/repos/acme/x/missing", body, JSON)
    assert answer.code == "format-error", answer
    assert time.monotonic() - started < 5


def test_too_many_digests(shared_registry: RunningRegistry) -> None:
    for count, status in ((limits.MISSING_QUERY_DIGESTS, 200), (limits.MISSING_QUERY_DIGESTS + 1, 422)):
        digests = [str(Digest.of(str(number).encode())) for number in range(count)]
        assert shared_registry.post("/v1/repos/acme/x/missing", {"digests": digests}).status == status


def test_multipart_and_forms_are_not_parsed(shared_registry: RunningRegistry) -> None:
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"):
        answer = shared_registry.post("/v1/tokens", b"role=admin", {"Content-Type": kind})
        assert answer.code == "unsupported-media-type"


def test_compressed_bodies_are_not_unpacked(shared_registry: RunningRegistry) -> None:
    answer = shared_registry.post("/v1/tokens", b"\x1f\x8b", {**JSON, "Content-Encoding": "gzip"})
    assert answer.code == "unsupported-media-type"


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "1e3", str(2**63), "9" * 5000, "a", ""])
@pytest.mark.parametrize(
    "path", ["/v1/repos?limit=", "/v1/repos/acme/x?limit=", f"/v1/repos/acme/x/releases?content=sha256:{HEX}&limit="]
)
def test_page_sizes_are_bounded(shared_registry: RunningRegistry, path: str, limit: str) -> None:
    assert shared_registry.get(path + limit).code == "format-error"


@pytest.mark.parametrize("number", ["-1", "1", "10000", "1e1", "9" * 4000])
def test_part_numbers_are_bounded(shared_registry: RunningRegistry, number: str) -> None:
    upload = shared_registry.open_upload(b"bounded").json["id"]
    path = f"/v1/repos/acme/minilm/uploads/{upload}/parts/{number}"
    answer = shared_registry.request("PUT", path, b"bounded", {**OCTETS, "Pqreg-Shards": "A" * 43 + "="})
    assert answer.code == "format-error"


@pytest.mark.parametrize("size", [-1, limits.FILE_BYTES + 1, 2**63, 1.5, "1", None, True])
def test_sizes_are_bounded(shared_registry: RunningRegistry, size: object) -> None:
    body = {"digest": f"sha256:{HEX}", "size": size, "slice_size": limits.SHARD_BYTES}
    answer = shared_registry.post("/v1/repos/acme/x/uploads", json.dumps(body).encode(), JSON)
    assert answer.code == "format-error"


def test_unfinished_uploads_are_bounded(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OPEN_UPLOADS", 2)
    assert [registry.open_upload(bytes([n])).status for n in range(3)] == [201, 201, 409]
    assert registry.open_upload(bytes([0])).status == 200


@pytest.mark.parametrize("path", ["/", "/audit/log", "/v1/log/entries"])
def test_who_only_looks_keeps_no_publisher_waiting(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """As many look for something as may at once, and for long; a statement is taken meanwhile all the same."""
    go, looking = threading.Event(), threading.Semaphore(0)

    def search(*_args: object, **_options: object) -> tuple[list[object], None]:
        looking.release()
        go.wait(60)
        return [], None

    monkeypatch.setattr(LogSearch, "entries", search)
    monkeypatch.setattr(LogView, "search", search)
    with ThreadPoolExecutor(2 * limits.HEAVY_TASKS) as browsers:
        waiting = [browsers.submit(registry.get, path) for _ in range(2 * limits.HEAVY_TASKS)]
        try:
            for _ in range(limits.BROWSING_TASKS):
                assert looking.acquire(timeout=30)
            assert not looking.acquire(timeout=0.2)
            registry.register(publisher())
            assert registry.publish()
        finally:
            go.set()
        assert {answer.result(60).status for answer in waiting} == {200}
