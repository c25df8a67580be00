# SPDX-License-Identifier: Apache-2.0
"""A real registry behind a TLS terminator: the key exchange is post-quantum, and nothing weaker than promised is used.

The terminator is ``tests.tls_front``: OpenSSL of the ``cryptography`` wheel, which offers X25519MLKEM768 as the reverse
proxies under ``deploy/`` do.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from pq_registry.client.ranges import RangeReader
from pq_registry.client.transport import RegistryClient, blob_path
from pq_registry.errors import ConnectionFailed, PqregError
from pq_registry.format.digest import Digest
from tests import engines
from tests.e2e.shell import Shell
from tests.fake_registry import Handler, serving
from tests.publishing import make_model
from tests.tls_front import POST_QUANTUM_GROUP, tls_front
from tests.tls_server import Authority

MODEL_BYTES = 5_000_000
LARGE_BYTES = 20_000_000
"""More than one part, so that weights go straight to an object store."""

pytestmark = pytest.mark.directory_only("the suite's object store has no TLS; one test here puts it behind some")


class Desk:
    """A publisher's shell whose registry is reached by TLS only."""

    def __init__(self, root: Path, registry: str, token: str, authority: Authority) -> None:
        self.root, self.registry, self.authority = root, registry, authority
        self.shell = Shell(root, "desk", PQREG_TOKEN=token, PQREG_TRUST="trust.json")
        self.shell.run("key", "generate", "alice", "--no-passphrase")
        self.shell.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")

    def at(self, url: str) -> Shell:
        self.shell.export(PQREG_REGISTRY=url, PQREG_TLS_CA=str(self.authority.ca))
        return self.shell


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    root = tmp_path_factory.mktemp("tls")
    with Shell(root, "operator").serving("data") as (url, _log):
        token = (root / "data" / "admin.token").read_text().strip()
        yield Desk(root, url, token, Authority(root / "authority"))


def test_push_pull_and_audit_negotiate_the_post_quantum_group(desk: Desk) -> None:
    make_model(desk.root / "model", 1, size=MODEL_BYTES)
    with tls_front(desk.authority.issue("127.0.0.1"), desk.registry) as front:
        shell = desk.at(front.url)
        shell.run("trust", "log", "add", "trust.json", "--tofu")
        shell.run("push", "model", "acme/tls:v1", "--key", "alice.pqkey")
        pushed = len(front.negotiated)
        shell.run("pull", "acme/tls:v1", "out")
        shell.run("audit", "--state", "audit")
    assert (desk.root / "out/model.safetensors").read_bytes() == (desk.root / "model/model.safetensors").read_bytes()
    assert 0 < pushed < len(front.negotiated)
    assert {(made.version, made.group) for made in front.negotiated} == {("TLSv1.3", POST_QUANTUM_GROUP)}
    assert {made.cipher for made in front.negotiated} <= {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
    assert not front.refused


def test_weights_go_to_and_from_the_object_store_by_the_post_quantum_group(
    tmp_path: Path, s3_bucket: engines.Bucket
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate = authority.issue("127.0.0.1")
    with tls_front(certificate, s3_bucket.server.endpoint) as storage:
        operator = Shell(
            tmp_path, "operator", **{f"PQREG_{name.upper()}": value for name, value in s3_bucket.settings.items()},
            **s3_bucket.server.credentials.variables, PQREG_S3_PUBLIC_ENDPOINT=storage.url,
        )  # fmt: skip
        with operator.serving("data") as (url, _log), tls_front(certificate, url) as front:
            token = (tmp_path / "data" / "admin.token").read_text().strip()
            desk = Desk(tmp_path, url, token, authority)
            make_model(tmp_path / "model", 2, size=LARGE_BYTES)
            shell = desk.at(front.url)
            shell.run("trust", "log", "add", "trust.json", "--tofu")
            shell.run("push", "model", "acme/tls:v1", "--key", "alice.pqkey")
            pushed = len(storage.negotiated)
            shell.run("pull", "acme/tls:v1", "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "model/model.safetensors").read_bytes()
    assert 0 < pushed < len(storage.negotiated)
    for made in (*front.negotiated, *storage.negotiated):
        assert (made.version, made.group) == ("TLSv1.3", POST_QUANTUM_GROUP)


def test_a_front_that_speaks_tls_1_1_at_most_is_refused(desk: Desk) -> None:
    with tls_front(desk.authority.issue("127.0.0.1"), desk.registry, newest=SSL.TLS1_1_VERSION) as front:
        ended = desk.at(front.url).run("whoami", expect=3)
        assert not front.negotiated
        assert front.refused
        assert greeted(front.url) == "TLSv1.1"  # the front is sound: who accepts the old version gets through
    assert "Traceback" not in ended.err


def greeted(url: str) -> str:
    """The version that a client without standards agrees on with the front."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(SSL.TLS1_VERSION)
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        connection.do_handshake()
        version = connection.get_protocol_version_name()
        connection.shutdown()
    return version


@pytest.mark.parametrize("which", ["another host", "another authority", "the system's authorities"])
def test_a_certificate_that_does_not_fit_is_refused_before_the_token_is_sent(
    desk: Desk, tmp_path: Path, which: str
) -> None:
    authority = Authority(tmp_path / "other") if which == "another authority" else desk.authority
    certificate = authority.issue("models.example.org" if which == "another host" else "127.0.0.1")
    with tls_front(certificate, desk.registry) as front:
        shell = desk.at(front.url)
        if which == "the system's authorities":
            shell.export(PQREG_TLS_CA=None)
        assert "certificate" in shell.run("whoami", expect=3).err


def test_storage_without_tls_is_refused_behind_a_registry_with_tls(desk: Desk) -> None:
    """The registry's answer is a redirect to http: nothing is asked there, on no path that reads blobs."""
    content = b"weights" * 1000
    with serving() as storage, serving() as registry:
        storage.add_blob(content)
        registry.add_blob(content)

        def elsewhere(handler: Handler) -> bool:
            handler.send_response(307)
            handler.send_header("Location", f"{storage.url}{handler.path}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        registry.rules["/v1/blobs/"] = elsewhere
        with (
            tls_front(desk.authority.issue("127.0.0.1"), registry.url) as front,
            RegistryClient(front.url, "canary", ca=desk.authority.ca, sleep=lambda _: None) as client,
        ):
            with pytest.raises(PqregError) as whole:
                client.blob_bytes(Digest.of(content), len(content))
            reader = RangeReader(client.exchanger)
            with pytest.raises(PqregError) as part:
                reader.read_into(
                    blob_path(Digest.of(content)), 0, memoryview(bytearray(len(content))), size=len(content)
                )
            reader.close()
        assert registry.seen and front.negotiated
        assert not storage.seen
    for refusal in (whole, part):
        assert not isinstance(refusal.value, ConnectionFailed)
        assert "TLS" in str(refusal.value) or "https" in str(refusal.value), refusal.value
