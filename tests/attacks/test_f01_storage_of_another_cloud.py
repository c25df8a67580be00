# SPDX-License-Identifier: Apache-2.0
"""F1 on the service's side: whatever environment, profile, proxy or provider say, one endpoint is asked and no other.

The hazard is real: a transfer client that ignores ``endpoint_url`` sends a sovereign deployment's weights to another
cloud, and an SDK follows a bucket to the region, and so the host, an answer names.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import SettingError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob, StoredPart
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.config import S3Config
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.tiles import S3Tiles
from tests.engines import Bucket
from tests.faultproxy import Answer, FaultProxy

DATA = b"weights of an edge site"
BLOB = StoredBlob(Digest.of(DATA), "0" * 32)


class Canary:
    """A listener that nobody should ever speak to."""

    def __init__(self) -> None:
        self.visits = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Canary]:
    """A canary, and an environment in which every knob of the SDK points to it."""
    bird = Canary()
    (tmp_path / "config").write_text(
        f"[default]\nendpoint_url = {bird.url}\nregion = us-east-1\nservices = all\n"
        "credential_process = /bin/false\ns3 =\n    use_accelerate_endpoint = true\n    addressing_style = virtual\n"
        f"[services all]\ns3 =\n    endpoint_url = {bird.url}\n"
    )
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": bird.url,
        "AWS_ENDPOINT_URL_S3": bird.url,
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{bird.url}/credentials",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": bird.url,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "config"),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/other",
        "HTTP_PROXY": bird.url,
        "http_proxy": bird.url,
        "HTTPS_PROXY": bird.url,
        "https_proxy": bird.url,
        "ALL_PROXY": bird.url,
        "NO_PROXY": "",
        "no_proxy": "",
    }.items():
        monkeypatch.setenv(name, value)
    yield bird
    bird.close()


@pytest.fixture
def contacted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every address a socket of this process connects to, and every name it looks up."""
    seen: set[str] = set()
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def connecting(self: socket.socket, address: Any) -> None:
        seen.add(f"{address[0]}:{address[1]}")
        connect(self, address)

    def looking(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        seen.add(f"{host}:{port}")
        return look_up(host, port, *arguments, **named)

    monkeypatch.setattr(socket.socket, "connect", connecting)
    monkeypatch.setattr(socket, "getaddrinfo", looking)
    return seen


def everything(config: S3Config) -> None:
    """Each request the service ever makes."""
    session = S3Session(config)
    store, tiles = S3BlobStore(session), S3Tiles(session)
    try:
        store.check()
        store.put(BLOB, DATA)
        reader = store.open(BLOB, size=len(DATA))
        assert reader.read(0, 4) == DATA[:4]
        reader.close()
        assert list(store.iterate()) == [BLOB]
        storage_id = store.begin(BLOB)
        assert [each.storage_id for each in store.unfinished()] == [storage_id]
        assert store.parts(BLOB, storage_id) == {}
        store.write(BLOB, iter([DATA]), size=len(DATA))
        store.abandon(BLOB, storage_id)
        tiles.write([("tile/0/000.p/1", b"x" * 32)])
        assert tiles.read("tile/0/000.p/1") == b"x" * 32
    finally:
        session.close()


def test_only_the_configured_endpoint_is_contacted(s3_bucket: Bucket, canary: Canary, contacted: set[str]) -> None:
    everything(s3_bucket.config())
    assert contacted == {s3_bucket.server.endpoint.partition("://")[2]}
    assert canary.visits == 0


def test_credentials_are_never_fetched(
    s3_bucket: Bucket, canary: Canary, contacted: set[str], monkeypatch: Any
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingError, match="no credentials"):
        S3Session(s3_bucket.config())
    assert contacted == set() and canary.visits == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "PermanentRedirect"),
        (302, "PermanentRedirect"),
        (303, "PermanentRedirect"),
        (307, "TemporaryRedirect"),
        (308, "PermanentRedirect"),
        (400, "AuthorizationHeaderMalformed"),
    ],
)
def test_no_answer_leads_elsewhere(
    s3_bucket: Bucket, canary: Canary, contacted: set[str], status: int, code: str
) -> None:
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>go there</Message><Region>us-west-2</Region>"
        f"<Endpoint>{canary.url}</Endpoint><Bucket>{s3_bucket.name}</Bucket></Error>"
    ).encode()
    there = Answer(status, headers={"Location": f"{canary.url}/x", "x-amz-bucket-region": "us-west-2"}, body=body)
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        session = S3Session(s3_bucket.config(s3_endpoint=proxy.url))
        store, tiles = S3BlobStore(session), S3Tiles(session)
        assert session.capabilities.conditional_put
        attempts = [
            lambda: tiles.read("tile/0/000"),
            lambda: store.check(),
            lambda: store.put(BLOB, DATA),
            lambda: store.open(BLOB),
            lambda: store.begin(BLOB),
            lambda: store.finish(BLOB, "id", {0: StoredPart(1, '"e"')}),
            lambda: tiles.write([("tile/0/000", b"x")]),
        ]
        # botocore stumbles over a 303 and forgets to close the socket; it goes nowhere all the same.
        for attempt in attempts[:1] if status == 303 else attempts:
            proxy.inject(there, times=50)
            before = len(proxy.requests)
            with pytest.raises(StorageError) as refused:
                attempt()
            assert canary.url not in str(refused.value) + str(refused.value.hint)
            assert len(proxy.requests) <= before + limits.S3_ATTEMPTS
            assert not [each for each in proxy.requests if "us-west-2" in str(each.headers) + each.query]
            proxy.heal()
        session.close()
        assert contacted <= {proxy.url.partition("://")[2], s3_bucket.server.endpoint.partition("://")[2]}
    assert canary.visits == 0
