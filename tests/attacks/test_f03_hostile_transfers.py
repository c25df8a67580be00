# SPDX-License-Identifier: Apache-2.0
"""F3: answers that never end, crawl, stop short, are compressed, or are for another range.

Each is met by a bound of bytes or of time, ends in an error of the tree, and leaves nothing under a final name.
"""

from __future__ import annotations

import gzip
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import ConnectionFailed, PqregError, ResponseInvalid, TransportError
from pq_registry.format.digest import Digest
from tests.fake_registry import Handler, serving
from tests.pull_site import FILES, SHARD, Site, content, final_names

PATIENCE = 0.25
LONG = 15
"""Seconds after which something that should be bounded is called endless."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving() as registry:
        yield Site(registry, tmp_path)


@pytest.fixture
def client(site: Site) -> Iterator[RegistryClient]:
    with site.client("token", timeout=PATIENCE) as made:
        yield made


def forever(handler: Handler, chunk: bytes, pause: float = 0.0) -> None:
    """Send ``chunk`` until the client has had enough."""
    handler.close_connection = True
    try:
        for _ in itertools.count():
            handler.wfile.write(chunk)
            handler.wfile.flush()
            if pause:
                threading.Event().wait(pause)
    except OSError:
        pass


def head(handler: Handler, *lines: str, status: str = "200 OK") -> None:
    handler.wfile.write("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())


def endless_body(handler: Handler) -> bool:
    head(handler, "Transfer-Encoding: chunked")
    forever(handler, b"10000\r\n" + b"x" * 65536 + b"\r\n")
    return True


def endless_headers(handler: Handler) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    forever(handler, b"y" * 60_000)
    return True


def endless_interim(handler: Handler) -> bool:
    forever(handler, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    return True


def endless_trailer(handler: Handler) -> bool:
    head(handler, "Transfer-Encoding: chunked")
    handler.wfile.write(b"2\r\n{}\r\n0\r\n")
    forever(handler, b"X-Trailer: y\r\n" * 1000)
    return True


def huge_length(handler: Handler) -> bool:
    head(handler, "Content-Length: 99999999999999")
    forever(handler, b"x" * 65536)
    return True


def no_length(handler: Handler) -> bool:
    head(handler, "Connection: close")
    handler.wfile.write(b'{"role": "admin", "namespaces": [], "expires": null}')
    handler.close_connection = True
    return True


def silence(handler: Handler) -> bool:
    threading.Event().wait(PATIENCE * 3)
    handler.close_connection = True
    return True


def drip_head(handler: Handler) -> bool:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    forever(handler, b"y", pause=0.02)
    return True


def drip_body(handler: Handler) -> bool:
    head(handler, "Content-Length: 100000")
    forever(handler, b"y", pause=0.02)
    return True


def short(handler: Handler) -> bool:
    head(handler, "Content-Length: 100")
    handler.wfile.write(b"x" * 50)
    handler.close_connection = True
    return True


def compressed(handler: Handler) -> bool:
    data = gzip.compress(b'{"role": "admin", "namespaces": [], "expires": null}')
    handler.send(200, data, headers={"Content-Encoding": "gzip"})
    return True


BOMB = gzip.compress(bytes(50_000_000))


def bomb(handler: Handler) -> bool:
    handler.send(200, BOMB, headers={"Content-Encoding": "GZIP"})
    return True


def not_http(handler: Handler) -> bool:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")
    handler.close_connection = True
    return True


def many_headers(handler: Handler) -> bool:
    head(handler, *[f"X-{number}: y" for number in range(10_000)], "Content-Length: 0")
    return True


def negative_length(handler: Handler) -> bool:
    head(handler, "Content-Length: -1")
    handler.wfile.write(b"{}")
    handler.close_connection = True
    return True


HOSTILE: dict[str, Callable[[Handler], bool]] = {
    rule.__name__: rule
    for rule in (
        endless_body, endless_headers, endless_interim, endless_trailer, huge_length, no_length, silence, drip_head,
        drip_body, short, compressed, bomb, not_http, many_headers, negative_length,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_f03_a_control_answer_is_bounded(site: Site, client: RegistryClient, name: str) -> None:
    site.registry.rules["whoami"] = HOSTILE[name]
    begun = time.monotonic()
    with pytest.raises(TransportError):
        client.whoami()
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("name", HOSTILE)
def test_f03_a_manifest_is_bounded(site: Site, client: RegistryClient, name: str) -> None:
    site.registry.rules["GET /v1/blobs"] = HOSTILE[name]
    begun = time.monotonic()
    with pytest.raises(TransportError):
        client.blob_bytes(Digest.of(b"x"), 1000)
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("name", HOSTILE)
def test_f03_a_range_is_bounded_and_nothing_gets_a_name(site: Site, name: str) -> None:
    resolved = site.resolve(site.add())
    site.registry.rules["GET /v1/blobs"] = HOSTILE[name]
    begun = time.monotonic()
    with pytest.raises(TransportError):
        site.pull(resolved, timeout=PATIENCE)
    assert time.monotonic() - begun < LONG
    assert final_names(site.out) == set()


def test_f03_a_body_one_byte_above_its_bound_is_refused(site: Site, client: RegistryClient) -> None:
    body = os.urandom(1000)
    digest = Digest(site.registry.add_blob(body))
    assert client.blob_bytes(digest, 1000) == body
    with pytest.raises(ResponseInvalid):
        client.blob_bytes(digest, 999)


def ranged(change: Callable[[dict[str, str], bytes], tuple[str, dict[str, str], bytes]]) -> Callable[[Handler], bool]:
    """Answers a range request after ``change`` of (headers, body)."""

    def rule(handler: Handler) -> bool:
        data = handler.registry.blobs[handler.path.rsplit("/", 1)[1]]
        first, last = map(int, handler.headers["Range"][6:].split("-"))
        body = data[first : last + 1]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "Content-Length": str(len(body))}
        status, headers, body = change(headers, body)
        head(handler, *[f"{name}: {value}" for name, value in headers.items()], status=status)
        handler.wfile.write(body)
        handler.close_connection = True
        return True

    return rule


OK = "206 Partial Content"
WRONG: dict[str, Callable[[dict[str, str], bytes], tuple[str, dict[str, str], bytes]]] = {
    "no range": lambda headers, body: (OK, {"Content-Length": headers["Content-Length"]}, body),
    "shifted": lambda headers, body: (OK, {**headers, "Content-Range": "bytes 1-100/1000"}, body),
    "other total": lambda headers, body: (
        OK, {**headers, "Content-Range": headers["Content-Range"].rpartition("/")[0] + "/7"}, body,
    ),
    "unknown total": lambda headers, body: (
        OK, {**headers, "Content-Range": headers["Content-Range"].rpartition("/")[0] + "/*"}, body,
    ),
    "other unit": lambda headers, body: (OK, {**headers, "Content-Range": "items 0-99/1000"}, body),
    "padded number": lambda headers, body: (
        OK, {**headers, "Content-Range": headers["Content-Range"].replace(" ", " 0")}, body,
    ),
    "longer": lambda headers, body: (OK, {**headers, "Content-Length": str(len(body) + 1)}, body + b"x"),
    "shorter": lambda headers, body: (OK, {**headers, "Content-Length": str(len(body) - 1)}, body[:-1]),
    "the whole": lambda headers, body: ("200 OK", headers, body),
    "no content": lambda headers, body: ("204 No Content", {}, b""),
    "multipart": lambda headers, body: (
        OK, {"Content-Type": "multipart/byteranges; boundary=x", "Content-Length": str(len(body))}, body,
    ),
    "chunked": lambda headers, body: (
        OK, {"Content-Range": headers["Content-Range"], "Transfer-Encoding": "chunked"},
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    ),
    "compressed": lambda headers, body: (OK, {**headers, "Content-Encoding": "br"}, body),
    "not satisfiable": lambda headers, body: ("416 Range Not Satisfiable", {"Content-Length": "0"}, b""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_f03_an_answer_for_another_range_is_refused(site: Site, client: RegistryClient, name: str) -> None:
    data = os.urandom(1000)
    digest = Digest(site.registry.add_blob(data))
    site.registry.rules["GET /v1/blobs"] = ranged(WRONG[name])
    reader = RangeReader(client.exchanger)
    buffer = memoryview(bytearray(100))
    with pytest.raises(TransportError):
        reader.read_into(blob_path(digest), 200, buffer, size=1000)
    reader.close()


def test_f03_a_whole_blob_may_come_as_200(site: Site, client: RegistryClient) -> None:
    data = os.urandom(1000)
    digest = Digest(site.registry.add_blob(data))
    site.registry.rules["GET /v1/blobs"] = lambda handler: handler.send(200, data)
    reader = RangeReader(client.exchanger)
    buffer = memoryview(bytearray(1000))
    reader.read_into(blob_path(digest), 0, buffer, size=1000)
    reader.close()
    assert bytes(buffer) == data


def test_f03_a_transfer_that_breaks_off_continues_where_it_was(site: Site, client: RegistryClient) -> None:
    data = os.urandom(1000)
    digest = Digest(site.registry.add_blob(data))
    asked = []

    def cut(headers: dict[str, str], body: bytes) -> tuple[str, dict[str, str], bytes]:
        asked.append(headers["Content-Range"])
        return OK, headers, body[:300]

    site.registry.rules["GET /v1/blobs"] = ranged(cut)
    reader = RangeReader(client.exchanger)
    buffer = memoryview(bytearray(1000))
    arrived: list[int] = []
    reader.read_into(blob_path(digest), 0, buffer, size=1000, arrived=arrived.append)
    reader.close()
    assert bytes(buffer) == data
    assert asked == [f"bytes {first}-999/1000" for first in (0, 300, 600, 900)]
    assert sum(arrived) == 1000


def test_f03_a_server_that_gives_a_little_per_try_is_given_up(site: Site, client: RegistryClient) -> None:
    digest = Digest(site.registry.add_blob(os.urandom(1000)))
    asked = []

    def little(headers: dict[str, str], body: bytes) -> tuple[str, dict[str, str], bytes]:
        asked.append(headers)
        return OK, headers, body[:1]

    site.registry.rules["GET /v1/blobs"] = ranged(little)
    reader = RangeReader(client.exchanger)
    with pytest.raises(ConnectionFailed):
        reader.read_into(blob_path(digest), 0, memoryview(bytearray(1000)), size=1000)
    reader.close()
    assert len(asked) == limits.ATTEMPTS


def test_f03_a_slow_but_honest_server_is_waited_for(site: Site, client: RegistryClient) -> None:
    """At twice the rate that counts as stalled, for several times the patience."""
    size = int(limits.MINIMUM_RATE_BYTES * 2 * PATIENCE * 4)
    data = os.urandom(size)
    digest = Digest(site.registry.add_blob(data))

    def slowly(handler: Handler) -> bool:
        head(handler, f"Content-Length: {size}")
        for start in range(0, size, 256):
            handler.wfile.write(data[start : start + 256])
            handler.wfile.flush()
            threading.Event().wait(256 / (limits.MINIMUM_RATE_BYTES * 2))
        return True

    site.registry.rules["GET /v1/blobs"] = slowly
    assert client.blob_bytes(digest, size) == data


def test_f03_a_pull_survives_every_failure_that_passes(site: Site) -> None:
    """Each connection's first answers fail in another way; what had arrived is not asked for again."""
    files = {**FILES, "big": os.urandom(11 * SHARD + 17)}
    digest = site.add(files)
    resolved = site.resolve(digest)
    half = ranged(lambda headers, body: (OK, headers, body[: len(body) // 2]))
    failures = iter([half, silence, not_http, lambda handler: handler.problem(503, "server-refused")])
    lock = threading.Lock()

    def rule(handler: Handler) -> bool:
        with lock:
            failure = next(failures, None)
        return failure is not None and failure(handler)

    site.registry.rules["GET /v1/blobs"] = rule
    site.pull(resolved, timeout=2)
    assert content(site.out) == files
    asked = [seen.headers["range"] for seen in site.registry.seen if "blobs" in seen.line and "range" in seen.headers]
    assert len(asked) == len(set(files.values())) - 1 + 1 + 4  # no request for the empty file, two runs for the big one


def test_f03_errors_of_a_pull_are_errors_of_the_tree(site: Site) -> None:
    resolved = site.resolve(site.add())
    site.registry.blobs.clear()
    with pytest.raises(PqregError, match="not-found"):
        site.pull(resolved)
