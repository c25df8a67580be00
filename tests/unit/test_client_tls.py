# SPDX-License-Identifier: Apache-2.0
"""TLS of the client: always verified, by either OpenSSL, and post-quantum wherever it can be."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import OpenSSL.SSL
import pytest

from pq_registry.client import tls
from pq_registry.client.origin import parse_registry
from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import ConnectionFailed, SettingError
from pq_registry.format.digest import Digest
from tests.tls_server import Authority, serving_tls


@pytest.fixture(params=["standard", "pyopenssl"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to speak TLS, whichever this interpreter would choose."""
    for module in ("tls", "wire"):
        monkeypatch.setattr(f"pq_registry.client.{module}.interpreter_is_current", lambda: request.param == "standard")
    return str(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_a_certificate_of_the_given_authority_is_accepted(library: str, authority: Authority) -> None:
    content = os.urandom(3_000_000)
    with serving_tls(authority.issue("127.0.0.1")) as registry:
        registry.add_blob(content)
        with RegistryClient(registry.url, "token", ca=authority.ca) as client:
            assert client.whoami().role == "reader"
            assert client.blob_bytes(Digest.of(content), len(content)) == content
            reader = RangeReader(client.exchanger)
            buffer = bytearray(1_500_000)
            reader.read_into(blob_path(Digest.of(content)), 1_000_001, memoryview(buffer), size=len(content))
            reader.read_into(blob_path(Digest.of(content)), 5, memoryview(buffer)[:1], size=len(content))
            reader.close()
    assert bytes(buffer[1:]) == content[1_000_002:2_500_001]


def test_one_context_serves_many_connections(library: str, authority: Authority) -> None:
    with (
        serving_tls(authority.issue("127.0.0.1")) as registry,
        RegistryClient(registry.url, ca=authority.ca) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        assert {future.role for future in pool.map(lambda _: client.whoami(), range(24))} == {"reader"}


@pytest.mark.parametrize("host", ["localhost", "example.org", "127.0.0.2"])
def test_a_certificate_for_another_host_is_refused(library: str, authority: Authority, host: str) -> None:
    refused_at_once(authority.issue(host), authority.ca)


def test_a_certificate_of_another_authority_is_refused(library: str, authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    refused_at_once(other.issue("127.0.0.1"), authority.ca)


def test_without_a_given_authority_the_systems_do_not_know_ours(library: str, authority: Authority) -> None:
    refused_at_once(authority.issue("127.0.0.1"), None)


def refused_at_once(certificate: Path, ca: Path | None) -> None:
    pauses: list[float] = []
    with serving_tls(certificate) as registry:
        client = RegistryClient(registry.url, "canary", ca=ca, sleep=pauses.append)
        with client, pytest.raises(ConnectionFailed, match="certificate"):
            client.whoami()
    assert not registry.seen
    assert not pauses


@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_an_unusable_authority_file_is_a_setting_error(library: str, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with RegistryClient("https://127.0.0.1:1", ca=path) as client, pytest.raises(SettingError):
        client.whoami()


def test_plain_http_behind_an_https_url_is_a_connection_failure(library: str) -> None:
    from tests.fake_registry import serving

    with serving() as registry:
        url = registry.url.replace("http:", "https:")
        with RegistryClient(url, "canary", sleep=lambda _: None) as client, pytest.raises(ConnectionFailed):
            client.whoami()
    assert not any("canary" in str(seen) for seen in registry.seen)


def test_verification_cannot_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "interpreter_is_current", lambda: False)
    context = tls.client_context(None)
    with pytest.raises(ssl.SSLError):
        context.verify_mode = ssl.CERT_NONE
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_the_client_offers_the_post_quantum_group_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the ClientHello itself: supported_groups (10) begins with X25519MLKEM768 (0x11ec), key_share has it."""
    if tls.interpreter_is_current():
        pytest.skip("the interpreter's own OpenSSL is tested by OpenSSL")
    listener = socket.create_server(("127.0.0.1", 0))
    hello = bytearray()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            while len(hello) < 5 or len(hello) < 5 + int.from_bytes(hello[3:5], "big"):
                hello.extend(connection.recv(65536))

    thread = threading.Thread(target=receive)
    thread.start()
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    with RegistryClient(url, sleep=lambda _: listener.close()) as client, pytest.raises(ConnectionFailed):
        client.whoami()
    thread.join()
    listener.close()
    groups = extension(bytes(hello), 10)
    assert groups[2:4] == b"\x11\xec"
    assert extension(bytes(hello), 51)[2:4] == b"\x11\xec"


def extension(hello: bytes, kind: int) -> bytes:
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher suites
    at += 1 + hello[at] + 2  # compression methods, length of the extensions
    while at < len(hello):
        length = int.from_bytes(hello[at + 2 : at + 4], "big")
        if int.from_bytes(hello[at : at + 2], "big") == kind:
            return hello[at + 4 : at + 4 + length]
        at += 4 + length
    raise AssertionError(f"no extension {kind}")


def test_pyopenssl_errors_do_not_leak(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    """A connection that ends in the middle of a record, by pyOpenSSL."""
    monkeypatch.setattr(tls, "interpreter_is_current", lambda: False)
    monkeypatch.setattr("pq_registry.client.wire.interpreter_is_current", lambda: False)
    with serving_tls(authority.issue("127.0.0.1")) as registry:

        def cut(handler) -> bool:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            handler.wfile.flush()
            socket.socket.shutdown(handler.request, socket.SHUT_RDWR)
            handler.close_connection = True
            return True

        registry.rules["whoami"] = cut
        client = RegistryClient(registry.url, ca=authority.ca, sleep=lambda _: None)
        with client, pytest.raises(ConnectionFailed):
            client.whoami()
    assert OpenSSL.SSL.OPENSSL_VERSION_NUMBER >= 0x30500000


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://models.example.org", True),
        ("http://127.0.0.1:8470", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8470", True),
        ("http://localhost", True),
        ("http://models.example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://10.0.0.1", False),
    ],
)
def test_which_registries_may_see_a_token_in_the_clear(url: str, private: bool) -> None:
    assert parse_registry(url)[0].private is private
