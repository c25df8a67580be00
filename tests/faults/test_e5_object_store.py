# SPDX-License-Identifier: Apache-2.0
"""E5 in an object store: once verified, a blob's object never changes, whatever its publisher still holds.

What a publisher holds are presigned requests: each is good for one part of one upload while that is open, and for
nothing else. What a node holds is good for reading one object.
"""

from __future__ import annotations

import http.client
import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from pq_registry import limits
from pq_registry.client.transport import RegistryClient
from pq_registry.client.uploadanswers import SignedPart
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import Conflict, FileDigestMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.storage.stores import StoreConfig
from tests.engines import Bucket, fresh_bucket
from tests.samples import REPOSITORY
from tests.server_harness import RunningRegistry, running

SIZE = limits.SHARD_BYTES + 1000
OTHER = RepositoryName.parse("acme/other")


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    return fresh_bucket()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, bucket: Bucket) -> Iterator[RunningRegistry]:
    home = tmp_path_factory.mktemp("registry")
    with running(home / "data", stores=StoreConfig(data=home / "data", s3=bucket.config())) as made:
        yield made


@pytest.fixture
def client(registry: RunningRegistry) -> Iterator[RegistryClient]:
    with RegistryClient(registry.url, registry.token) as made:
        yield made


def ask(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def put(part: SignedPart, body: bytes) -> int:
    headers = {name: value for name, value in part.headers.items() if name != "content-length"}
    return ask("PUT", part.url, body, headers)[0]


def begin(client: RegistryClient, content: bytes, repository: RepositoryName = REPOSITORY) -> tuple[str, SignedPart]:
    upload = client.open_upload(repository, Digest.of(content), len(content))
    assert upload.is_direct
    return upload.id, client.sign_part(repository, upload.id, 0, Digest.of(content))


def objects(bucket: Bucket, content: bytes) -> list[str]:
    """The keys of a digest."""
    keys = bucket.keys()
    return [key for key in keys if Digest.of(content).hex in key]


def stored(bucket: Bucket, content: bytes) -> list[bytes]:
    """The objects of a digest, read behind the registry's back."""
    found = objects(bucket, content)
    s3 = bucket.client()
    try:
        return [s3.get_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")["Body"].read() for key in found]
    finally:
        s3.close()


def test_e5_a_part_sent_after_completion_changes_nothing(client: RegistryClient, bucket: Bucket) -> None:
    content = secrets.token_bytes(SIZE)
    upload, part = begin(client, content)
    assert put(part, content) == 200
    assert client.complete_upload(REPOSITORY, upload) == Digest.of(content)
    assert put(part, content) >= 400
    assert put(part, bytes(SIZE)) >= 400
    assert stored(bucket, content) == [content]
    assert client.blob_bytes(Digest.of(content), SIZE) == content


def test_e5_a_part_url_is_good_for_its_bytes_only(client: RegistryClient) -> None:
    """SeaweedFS refuses other bytes; where a provider does not, completion does (``test_e5_other_bytes``)."""
    content = secrets.token_bytes(SIZE)
    _, part = begin(client, content)
    assert put(part, bytes(SIZE)) >= 400
    assert put(part, content[:-1]) >= 400
    headers = {name: value for name, value in part.headers.items() if name != "x-amz-checksum-sha256"}
    assert ask("PUT", part.url, content, headers)[0] == 403


@pytest.mark.parametrize("change", ["part", "key", "digest", "upload", "expiry", "method", "no query"])
def test_e5_a_part_url_is_good_for_nothing_else(client: RegistryClient, bucket: Bucket, change: str) -> None:
    content = secrets.token_bytes(SIZE)
    _, part = begin(client, content)
    other = secrets.token_bytes(SIZE)
    url, method = part.url, "PUT"
    if change == "part":
        url = url.replace("partNumber=1", "partNumber=2")
    elif change == "key":
        upload_id = urlsplit(url).path.rpartition("/")[2]
        url = url.replace(upload_id, "0" * 32)
    elif change == "digest":
        url = url.replace(Digest.of(content).hex, Digest.of(other).hex)
    elif change == "upload":
        url = url.replace("uploadId=", "uploadId=0")
    elif change == "expiry":
        url = url.replace("X-Amz-Expires=", "X-Amz-Expires=9")
    elif change == "method":
        method = "DELETE"
    else:
        url = url.partition("?")[0] + "?x"
    assert (url, method) != (part.url, "PUT")
    status, _ = ask(method, url, content, {k: v for k, v in part.headers.items() if k != "content-length"})
    assert status >= 400
    assert not stored(bucket, other)


def test_e5_a_read_url_reads_one_object(client: RegistryClient, registry: RunningRegistry, bucket: Bucket) -> None:
    contents = [secrets.token_bytes(SIZE) for _ in range(2)]
    for content in contents:
        upload, part = begin(client, content)
        assert put(part, content) == 200
        client.complete_upload(REPOSITORY, upload)
    answer = registry.request_once("GET", f"/v1/blobs/sha256/{Digest.of(contents[0]).hex}")
    assert (answer.status, answer.body) == (307, b"")
    url = answer.headers["location"]
    assert answer.headers["cache-control"].startswith("private, max-age=")
    assert 0 < int(answer.headers["cache-control"].rpartition("=")[2]) <= limits.S3_URL_SECONDS - 60
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert ask("GET", url) == (200, contents[0])
    assert ask("GET", url, headers={"Range": "bytes=5-9"}) == (206, contents[0][5:10])
    for method in ("PUT", "DELETE", "POST"):
        assert ask(method, url, b"x")[0] >= 400
    assert ask("GET", url.replace(Digest.of(contents[0]).hex, Digest.of(contents[1]).hex))[0] >= 400
    assert ask("GET", url.partition("?")[0] + "?x")[0] >= 400
    assert stored(bucket, contents[0]) == [contents[0]]


def test_e5_other_bytes_are_no_blob_and_leave_nothing(client: RegistryClient, bucket: Bucket) -> None:
    content, wrong = secrets.token_bytes(SIZE), secrets.token_bytes(SIZE)
    upload = client.open_upload(REPOSITORY, Digest.of(content), SIZE)
    assert put(client.sign_part(REPOSITORY, upload.id, 0, Digest.of(wrong)), wrong) == 200
    with pytest.raises(FileDigestMismatch):
        client.complete_upload(REPOSITORY, upload.id)
    assert client.missing(REPOSITORY, [Digest.of(content)]) == {Digest.of(content)}
    assert not stored(bucket, content)


def test_e5_a_known_blob_is_not_replaced_by_another_upload_of_it(client: RegistryClient, bucket: Bucket) -> None:
    content, wrong = secrets.token_bytes(SIZE), secrets.token_bytes(SIZE)
    upload, part = begin(client, content)
    assert put(part, content) == 200
    client.complete_upload(REPOSITORY, upload)
    before = objects(bucket, content)
    second = client.open_upload(OTHER, Digest.of(content), SIZE)
    assert put(client.sign_part(OTHER, second.id, 0, Digest.of(wrong)), wrong) == 200
    with pytest.raises(FileDigestMismatch):
        client.complete_upload(OTHER, second.id)
    third, again = begin(client, content, OTHER)
    assert put(again, content) == 200
    assert client.complete_upload(OTHER, third) == Digest.of(content)
    assert objects(bucket, content) == before
    assert stored(bucket, content) == [content]


def test_e5_small_blobs_are_stored_only_if_they_are_right(client: RegistryClient, bucket: Bucket) -> None:
    content, wrong = os.urandom(1000), os.urandom(1000)
    upload = client.open_upload(REPOSITORY, Digest.of(content), 1000)
    assert not upload.is_direct
    client.put_part(REPOSITORY, upload.id, 0, wrong, shard_digests(wrong))
    with pytest.raises(Conflict):
        client.put_part(REPOSITORY, upload.id, 0, content, shard_digests(content))
    with pytest.raises(FileDigestMismatch):
        client.complete_upload(REPOSITORY, upload.id)
    assert not stored(bucket, content)
