# SPDX-License-Identifier: Apache-2.0
"""The proxies under deploy/: their configurations are accepted, and a real Caddy with ours does what it promises.

With Caddy installed, two instances on PostgreSQL and an object store are served through it as ``deploy/compose`` does,
but as processes of this machine: what the compose file puts together is at least tried in its parts.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests import engines
from tests.deploy.tooling import DEPLOY, find, needs, run
from tests.e2e.shell import Shell
from tests.publishing import make_model
from tests.server_harness import RegistryProcess
from tests.tls_front import POST_QUANTUM_GROUP
from tests.tls_server import Authority

CADDYFILE = DEPLOY / "proxy" / "Caddyfile"
NGINX = DEPLOY / "proxy" / "nginx.conf"
HOST, STORAGE_HOST = "localhost", "127.0.0.1"
MODEL_BYTES = 20_000_000
"""More than one part, so that weights go straight to the store."""


def test_both_proxies_ask_for_what_the_documentation_promises() -> None:
    caddy, nginx = CADDYFILE.read_text(), NGINX.read_text()
    assert "protocols tls1.3" in caddy and "ssl_protocols       TLSv1.3;" in nginx
    assert "curves x25519mlkem768 x25519 secp384r1" in caddy
    assert "ssl_ecdh_curve      X25519MLKEM768:X25519:secp384r1;" in nginx
    for path in ("/metrics", "/readyz", "/startupz"):
        assert path in caddy and f"location = {path}" in nginx
    assert re.search(r"proxy_set_header Host \$host;", nginx)
    assert "$request_uri" not in nginx and "$args" not in nginx  # in a log, a presigned query is a leak


@needs("nginx")
def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    pem = Authority(tmp_path).issue("models.example.org")
    text = NGINX.read_text().replace("/etc/pqreg/tls/tls.crt", str(pem)).replace("/etc/pqreg/tls/tls.key", str(pem))
    text = text.replace("/var/log/nginx", str(tmp_path))
    version = run("nginx", "-V").stderr
    running = re.search(r"OpenSSL (\d+)\.(\d+)", version.rpartition("running with")[2] or version)
    assert running is not None
    current = (int(running[1]), int(running[2])) >= (3, 5)
    if not current:
        # An older OpenSSL does not know the group and must not start with it; the rest is checked without.
        assert "X25519MLKEM768" in nginx_says(tmp_path, text, status=1)
        text = text.replace("X25519MLKEM768:", "")
    nginx_says(tmp_path, text, status=0)


def nginx_says(directory: Path, text: str, *, status: int) -> str:
    config = directory / "nginx.conf"
    config.write_text(f"pid {directory}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n")
    done = run("nginx", "-t", "-p", directory, "-e", directory / "error.log", "-c", config, status=status)
    return done.stderr + (directory / "error.log").read_text()


# -- Caddy ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Front:
    """A Caddy that runs."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def storage(self) -> str:
        return f"https://{STORAGE_HOST}:{self.port}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def caddy(root: Path, authority: Authority, upstreams: str, storage: str, port: int) -> Iterator[Front]:
    """Our Caddyfile, for HOST and STORAGE_HOST."""
    tls = root / "tls"
    tls.mkdir()
    pem = authority.issue(HOST, STORAGE_HOST).read_bytes()
    for name in ("tls.crt", "tls.key"):
        (tls / name).write_bytes(pem)
    program = find("caddy")
    assert program is not None
    log = root / "caddy.log"
    environment = {
        **os.environ, "HOME": str(root), "XDG_DATA_HOME": str(root), "XDG_CONFIG_HOME": str(root),
        "PQREG_HOST": HOST, "PQREG_STORAGE_HOST": STORAGE_HOST, "PQREG_PORT": str(port), "PQREG_UPSTREAMS": upstreams,
        "PQREG_STORAGE_UPSTREAM": storage, "TLS_DIRECTORY": str(tls),
    }  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"],
            stdout=output, stderr=output, env=environment,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)  # between two looks; the deadline above decides
        yield Front(port, log)
    finally:
        process.terminate()
        process.wait(30)


def handshake(host: str, port: int, *, newest: int | None = None) -> tuple[str, str]:
    """Version and group that a client with OpenSSL's own preferences gets."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if newest is not None:
        context.set_max_proto_version(newest)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(context, plain)
        connection.set_tlsext_host_name(host.encode())
        connection.set_connect_state()
        connection.do_handshake()
        return connection.get_protocol_version_name(), str(connection.get_group_name())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@needs("caddy")
def test_caddy_terminates_post_quantum_tls_and_shows_nothing_internal(tmp_path: Path, authority: Authority) -> None:
    operator = Shell(tmp_path, "operator")
    with (
        operator.serving("data") as (url, _log),
        caddy(tmp_path, authority, url.removeprefix("http://"), "127.0.0.1:1", free_port()) as front,
    ):
        for host in (HOST, STORAGE_HOST):
            assert handshake(host, front.port) == ("TLSv1.3", POST_QUANTUM_GROUP)
        with pytest.raises(SSL.Error):
            handshake(HOST, front.port, newest=SSL.TLS1_2_VERSION)
        token = (tmp_path / "data" / "admin.token").read_text().strip()
        words: list[str | Path] = [
            "--silent",
            "--cacert",
            authority.ca,
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]
        asked = {
            path: run("curl", *words, "--header", f"Authorization: Bearer {token}", f"{front.url}{path}").stdout
            for path in ("/v1/whoami", "/livez", "/metrics", "/readyz", "/startupz")
        }
        assert asked == {"/v1/whoami": "200", "/livez": "200", "/metrics": "404", "/readyz": "404", "/startupz": "404"}
        unsigned = {
            (method, query): run("curl", *words, "--request", method, f"{front.storage}/models/x{query}").stdout
            for method, query in [("GET", ""), ("PUT", ""), ("DELETE", "?X-Amz-Signature=1")]
        }
        assert list(unsigned.values()) == ["403", "403", "405"]
        assert run("curl", *words, f"{front.storage}/models/x?X-Amz-Signature=CANARY").stdout == "502"
    text = front.log.read_text()
    assert token not in text and "CANARY" not in text
    assert "/models/x" in text


@needs("caddy")
@pytest.mark.slow
@pytest.mark.directory_only("it brings stores of its own")
def test_a_whole_site_works_through_it_and_outlives_an_instance(
    tmp_path: Path, authority: Authority, s3_bucket: engines.Bucket, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    settings = {
        **{f"PQREG_{name.upper()}": value for name, value in s3_bucket.settings.items()},
        **s3_bucket.server.credentials.variables,
        "PQREG_DATABASE": postgres_url,
        "PQREG_S3_PUBLIC_ENDPOINT": f"https://{STORAGE_HOST}:{port}",
        "PQREG_LOG_KEY": str(tmp_path / "one" / "log.key"),
        "PQREG_HOSTS": f"{HOST},127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    one, two = RegistryProcess(tmp_path / "one"), RegistryProcess(tmp_path / "two")
    try:
        one.start()
        two.start()
        upstreams = " ".join(service.url.removeprefix("http://") for service in (one, two))
        with caddy(tmp_path, authority, upstreams, s3_bucket.server.endpoint.removeprefix("http://"), port) as front:
            for name in settings:
                monkeypatch.delenv(name)
            publish_and_pull(tmp_path, front, one, authority)
    finally:
        one.close()
        two.close()
    text = front.log.read_text()
    assert f'"host":"{STORAGE_HOST}:{port}"' in text  # weights went straight to the store
    assert not re.search(r"X-Amz-(Signature|Credential)=", text)


def publish_and_pull(root: Path, front: Front, one: RegistryProcess, authority: Authority) -> None:
    desk = Shell(
        root, "desk", PQREG_REGISTRY=front.url, PQREG_TOKEN=one.admin_token, PQREG_TRUST="trust.json",
        PQREG_TLS_CA=str(authority.ca), PQREG_STORAGE_ORIGINS=front.storage,
    )  # fmt: skip
    desk.run("key", "generate", "alice", "--no-passphrase")
    desk.run("trust", "init", "trust.json", "--publisher", "acme=alice.pqpub")
    desk.run("trust", "log", "add", "trust.json", "--tofu")
    for number in (1, 2):
        make_model(root / f"model{number}", number, size=MODEL_BYTES)
        desk.run("push", f"model{number}", f"acme/site:v{number}", "--key", "alice.pqkey")
        desk.run("pull", f"acme/site:v{number}", f"out{number}")
        ours, theirs = (root / f"{kind}{number}" / "model.safetensors" for kind in ("model", "out"))
        assert ours.read_bytes() == theirs.read_bytes()
        if number == 1:
            one.kill()  # the other instance takes the log over and goes on
    desk.run("audit", "--state", "audit")
