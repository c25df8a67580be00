# SPDX-License-Identifier: Apache-2.0
"""The Range header, and how blobs are served."""

from __future__ import annotations

import os

import pytest
from starlette.exceptions import HTTPException

from pq_registry.server.ranges import ByteRange, parse_range
from tests.server_harness import RunningRegistry

WHOLE = None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, WHOLE),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=0-", (0, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=5-100", (5, 10)),
        ("bytes=-1", (9, 10)),
        ("bytes=-10", (0, 10)),
        ("bytes=-11", (0, 10)),
        ("Bytes= 2-3 ", (2, 4)),
        # Malformed: ignored, as the RFC asks.
        ("", WHOLE),
        ("bytes", WHOLE),
        ("bytes=", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=3-2", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=1-2-3", WHOLE),
        ("bytes=+1-2", WHOLE),
        ("bytes=1_0-2", WHOLE),
        ("bytes=\u0661-2", WHOLE),
        ("items=0-1", WHOLE),
        ("bytes 0-1", WHOLE),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    found = parse_range(header, 10)
    assert found == (None if expected is None else ByteRange(*expected, 10))


@pytest.mark.parametrize(
    "header",
    [
        "bytes=10-",
        "bytes=10-20",
        "bytes=99999999999999999999-",
        "bytes=-0",
        "bytes=0-1,3-4",
        "bytes=0-1,",
        ",bytes=0-1",
        "bytes=0-,0-,0-",
    ],
)
def test_unsatisfiable_ranges(header: str) -> None:
    with pytest.raises(HTTPException) as caught:
        parse_range(header, 10)
    assert caught.value.status_code == 416
    assert caught.value.headers == {"Content-Range": "bytes */10"}


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_an_empty_blob_has_no_range(shared_registry: RunningRegistry) -> None:
    path = f"/v1/blobs/sha256/{shared_registry.upload(b'').hex}"
    answer = shared_registry.get(path)
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")
    assert shared_registry.get(path, {"Range": "bytes=0-"}).code == "range-not-satisfiable"


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_headers_of_a_blob(shared_registry: RunningRegistry) -> None:
    content = os.urandom(1000)
    digest = shared_registry.upload(content)
    path = f"/v1/blobs/sha256/{digest.hex}"
    answer = shared_registry.get(path)
    expected = {
        "etag": f'"{digest.hex}"',
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
        "content-type": "application/octet-stream",
        "content-length": "1000",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    head = shared_registry.request("HEAD", path, headers={"Range": "bytes=10-19"})
    assert (head.status, head.headers["content-length"], head.headers["content-range"]) == (
        206, "10", "bytes 10-19/1000")  # fmt: skip


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_conditional_requests(shared_registry: RunningRegistry) -> None:
    content = os.urandom(1000)
    digest = shared_registry.upload(content)
    path, etag = f"/v1/blobs/sha256/{digest.hex}", f'"{digest.hex}"'
    for condition in (etag, f'"x", {etag}', f"W/{etag}"):
        answer = shared_registry.get(path, {"If-None-Match": condition})
        assert (answer.status, answer.body) == (304, b"")
    assert shared_registry.get(path, {"If-None-Match": '"other"'}).status == 200
    assert shared_registry.get(path, {"Range": "bytes=0-9", "If-Range": etag}).status == 206
    assert shared_registry.get(path, {"Range": "bytes=0-9", "If-Range": '"other"'}).body == content


@pytest.mark.parametrize("hex_digits", ["0" * 63, "0" * 65, "G" * 64, "A" * 64, "..%2f..%2fcatalogue.sqlite3", "%00"])
def test_only_a_digest_names_a_blob(shared_registry: RunningRegistry, hex_digits: str) -> None:
    assert shared_registry.get(f"/v1/blobs/sha256/{hex_digits}").status in (400, 404)


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_a_reader_that_goes_away_leaves_nothing_open(shared_registry: RunningRegistry) -> None:
    content = bytes(64 << 20)
    digest = shared_registry.upload(content)
    blob = shared_registry.data / "blobs" / "sha256" / digest.hex[:2] / digest.hex

    def open_files() -> int:
        found = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                found += os.readlink(f"/proc/self/fd/{name}") == str(blob)
            except FileNotFoundError:
                continue
        return found

    for _ in range(5):
        connection = shared_registry.connect()
        connection.request(
            "GET", f"/v1/blobs/sha256/{digest.hex}", headers={"Authorization": f"Bearer {shared_registry.token}"}
        )
        response = connection.getresponse()
        assert response.read(10) == bytes(10)
        response.close()
        connection.close()
    # The service notices by itself; asking something else until then is not needed, only waiting is.
    import time

    for _ in range(400):
        if not open_files():
            break
        time.sleep(0.05)
    assert open_files() == 0
