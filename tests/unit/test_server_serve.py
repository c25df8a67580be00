# SPDX-License-Identifier: Apache-2.0
"""The service as a process: ready line, draining, the lock, its logs and its settings."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pq_registry import limits
from pq_registry.errors import SettingError
from pq_registry.format.digest import Digest
from pq_registry.server.config import parse_listen
from pq_registry.server.protocol import BoundedProtocol
from pq_registry.server.serve import bind, url_of
from tests.samples import FILES
from tests.server_harness import ROOT, Api, RegistryProcess, RunningRegistry, running

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))}


def pqreg(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pqreg_cli", *map(str, words)], capture_output=True, text=True, check=False, timeout=60,
        env=ENVIRONMENT,
    )  # fmt: skip


@pytest.mark.directory_only("an object store sends its blobs itself")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_finish(registry_process: RegistryProcess, number: int) -> None:
    content = os.urandom(48 << 20)
    digest = registry_process.api.upload(content)
    idle = registry_process.api.connect()
    idle.request("GET", "/livez")
    idle.getresponse().read()
    connection = registry_process.api.connect()
    token = registry_process.admin_token
    connection.request("GET", f"/v1/blobs/sha256/{digest.hex}", headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    beginning = response.read(1000)
    registry_process.send(number)
    assert beginning + response.read() == content
    connection.close()
    idle.close()
    assert registry_process.wait() == 0
    with pytest.raises(ConnectionError):
        registry_process.api.get("/livez")


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_a_second_signal_ends_it_at_once(registry_process: RegistryProcess) -> None:
    digest = registry_process.api.upload(bytes(64 << 20))
    connection = registry_process.api.connect()
    token = registry_process.admin_token
    connection.request("GET", f"/v1/blobs/sha256/{digest.hex}", headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    response.read(1000)
    registry_process.send(signal.SIGTERM)
    while True:  # draining has begun once nobody new is let in
        try:
            registry_process.api.get("/livez")
        except (ConnectionError, http.client.HTTPException):
            break
    registry_process.send(signal.SIGTERM)
    assert registry_process.wait() == 0
    connection.close()


def downloading(service: Api, digest: Digest) -> http.client.HTTPConnection:
    """A connection on which a blob is being sent, of which nobody takes anything."""
    connection = service.connect()
    connection.request("GET", f"/v1/blobs/sha256/{digest.hex}", headers={"Authorization": f"Bearer {service.token}"})
    return connection


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_a_client_that_takes_nothing_is_cut(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = threading.Event()

    def connection_lost(self: BoundedProtocol, exc: Exception | None) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # not one that ended well just before
            cut.set()
        original(self, exc)

    digest = registry.upload(bytes(64 << 20))
    original = BoundedProtocol.connection_lost
    monkeypatch.setattr(BoundedProtocol, "connection_lost", connection_lost)
    monkeypatch.setattr(limits, "SEND_SILENCE_SECONDS", 0.2)
    with contextlib.closing(downloading(registry, digest)) as connection:
        assert cut.wait(30)
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()


@pytest.mark.directory_only("an object store sends its blobs itself")
def test_a_client_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_SECONDS", 0.3)
    with running(tmp_path / "registry") as service:
        connection = downloading(service, service.upload(bytes(64 << 20)))
        response = connection.getresponse()
    with contextlib.closing(connection), pytest.raises(http.client.IncompleteRead):
        response.read()


def test_a_connection_that_was_not_told_of_the_end_is_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BoundedProtocol] = []

    def shutdown(self: BoundedProtocol) -> None:
        told.append(self)
        if len(told) > 1:
            HttpToolsProtocol.shutdown(self)

    with running(tmp_path / "registry") as service, contextlib.closing(service.connect()) as connection:
        connection.request("GET", "/livez")
        connection.getresponse().read()
        monkeypatch.setattr(BoundedProtocol, "shutdown", shutdown)
        service.stop()
        assert connection.sock.recv(1) == b""
    assert len(told) >= 2


def test_it_comes_back_with_everything(registry_process: RegistryProcess) -> None:
    digest = registry_process.api.publish(FILES)
    assert registry_process.stop() == 0
    registry_process.start()
    assert registry_process.api.get(f"/v1/repos/acme/minilm/releases/{digest.hex}").status == 200


@pytest.mark.directory_only("instances share other stores")
def test_two_services_do_not_share_a_directory(registry_process: RegistryProcess) -> None:
    done = pqreg("serve", "--data", registry_process.data, "--listen", "127.0.0.1:0")
    assert done.returncode == 3
    assert "another service uses this data directory" in done.stderr
    assert "Traceback" not in done.stderr
    registry_process.kill()
    registry_process.start()


def test_a_taken_port_is_an_error_and_touches_nothing(registry_process: RegistryProcess, tmp_path: Path) -> None:
    listen = registry_process.url.removeprefix("http://")
    done = pqreg("serve", "--data", tmp_path / "other", "--listen", listen)
    assert done.returncode == 2
    assert "cannot listen" in done.stderr
    assert not (tmp_path / "other").exists()


def test_check_shows_and_starts_nothing(tmp_path: Path) -> None:
    done = pqreg("serve", "--data", tmp_path / "data", "--listen", "0.0.0.0:80", "--public-read", "--check", "--json")
    assert done.returncode == 0
    shown = json.loads(done.stdout)
    assert shown | {
        "data": str(tmp_path / "data"), "listen": "0.0.0.0:80", "public_read": True, "hosts": None, "log_level": "info",
        "private_log": False, "log_key": str(tmp_path / "data" / "log.key"), "log_witnesses": None,
    } == shown  # fmt: skip
    assert not (tmp_path / "data").exists()
    assert pqreg("serve", "--data", tmp_path / "data", "--listen", "nowhere", "--check").returncode == 2


def test_logs_are_json_with_ids_and_without_secrets(registry_process: RegistryProcess) -> None:
    api = registry_process.api
    canary = api.make_token("reader", "acme")
    api.with_token(canary).get("/v1/repos?token=" + canary + "&signature=SECRETQUERY")
    api.get(f"/v1/repos/acme/{canary[:60]}")
    api.with_token("pqreg_" + "Z" * 43).get("/v1/whoami")
    api.get("/v1/whoami", {"Cookie": "session=SECRETCOOKIE"})
    api.post("/v1/tokens", {"role": "SECRETBODY"})
    answer = api.get("/v1/nothing")
    token = registry_process.admin_token
    assert registry_process.stop() == 0
    lines = [json.loads(line) for line in registry_process.log.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) >= 7
    for line in requests:
        assert set(line) >= {
            "time",
            "level",
            "request_id",
            "method",
            "route",
            "path",
            "status",
            "milliseconds",
            "client",
        }
    assert answer.headers["x-request-id"] in {line["request_id"] for line in requests}
    for secret in (canary, token, "ZZZZZZ", "SECRETQUERY", "SECRETCOOKIE", "SECRETBODY", "Bearer"):
        assert secret not in registry_process.log


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:8470", ("::1", 8470)), ("localhost:65535", ("localhost", 65535))],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "8470", "127.0.0.1", "127.0.0.1:", "::1:80", "host:65536", "a b:1", "http://a:1"]
)
def test_malformed_listen_addresses(text: str) -> None:
    with pytest.raises(SettingError):
        parse_listen(text)


def test_binding() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
    with pytest.raises(SettingError, match="cannot listen"):
        bind("192.0.2.1", 0)
    with pytest.raises(SettingError, match="cannot listen"):
        bind("no-such-host.invalid", 0)
