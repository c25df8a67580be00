# SPDX-License-Identifier: Apache-2.0
"""Real registry services for tests: in a thread (to look and reach inside) or in a process (to be killed), and a small
HTTP client that says exactly what it is told to say.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from fastapi import FastAPI

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE, Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.strict_json import encode_base64
from pq_registry.server.app import create_app
from pq_registry.server.config import LOOPBACK_HOSTS, ServerConfig
from pq_registry.server.serve import Server, bind, make_server, url_of
from pq_registry.service.ledger import LogSetup
from pq_registry.service.registry import Registry
from pq_registry.storage.stores import StoreConfig
from pqreg_keys.custody import SecretIdentity
from tests.logsetup import log_setup
from tests.samples import FILES, REPOSITORY, YEAR, publisher, release, tag_statement
from tests.stack import store_config, variables_for

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"pqreg: serving on (http://\S+) data (.+)")
OCTETS = {"Content-Type": "application/octet-stream"}
ENVELOPE = {"Content-Type": MEDIA_TYPE}
JSON = {"Content-Type": "application/json"}
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Answer:
    """A response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The last part of a problem's type; checks that it is a problem of the one shape, or of that and the Hub's."""
        problem = self.json
        kind = "application/json" if "x-error-message" in self.headers else "application/problem+json"
        assert self.headers["content-type"] == kind, self
        assert problem["status"] == self.status, self
        assert problem["instance"] == self.headers["x-request-id"], self
        assert set(problem) >= {"type", "title", "detail"}, self
        assert "Traceback" not in self.body.decode(), self
        return str(problem["type"]).removeprefix("/problems/")


class Api:
    """Speaks HTTP to a registry with one token."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token

    def with_token(self, token: str | None) -> Api:
        return Api(self.url, token)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request. ``body`` is bytes as they are, or a value sent as JSON.

        A registry whose blobs are in an object store answers a GET of one with where it is there; what is answered then
        is what is there, asked for without our token.
        """
        answer = self.request_once(method, path, body, headers)
        if answer.status != 307 or not path.startswith("/v1/blobs/"):
            return answer
        return send_signed(method, answer.headers["location"], headers=headers)

    def request_once(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request, whatever its answer says."""
        sent = dict(headers or {})
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and not isinstance(body, bytes | memoryview | Iterator):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = self.connect()
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            data = response.read()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("POST", path, body, headers)

    # -- what clients do ---------------------------------------------------------------------------------------------

    def open_upload(self, content: bytes, repository: RepositoryName = REPOSITORY, **changes: Any) -> Answer:
        body = {"digest": str(Digest.of(content)), "size": len(content), "slice_size": limits.SHARD_BYTES, **changes}
        return self.post(f"/v1/repos/{repository}/uploads", body)

    def put_part(
        self, upload: str, number: int, data: Any, repository: RepositoryName = REPOSITORY, **headers: str
    ) -> Answer:
        shards = encode_base64(shard_digests(data)) if isinstance(data, bytes) else ""
        sent = {**OCTETS, "Pqreg-Shards": shards, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.request("PUT", f"/v1/repos/{repository}/uploads/{upload}/parts/{number}", data, sent)

    def put_direct(self, upload: str, number: int, data: bytes, repository: RepositoryName = REPOSITORY) -> Answer:
        """Send a part to the object store, by a request that the registry signed."""
        wanted = {"parts": [{"number": number, "sha256": str(Digest.of(data))}]}
        answer = self.post(f"/v1/repos/{repository}/uploads/{upload}/urls", wanted)
        assert answer.status == 200, answer
        signed = answer.json["parts"][0]
        return send_signed("PUT", signed["url"], data, signed["headers"])

    def complete(self, upload: str, repository: RepositoryName = REPOSITORY) -> Answer:
        """The end of an upload, asked for until it is there: the registry may take its time to read what it stores."""
        while (answer := self.post(f"/v1/repos/{repository}/uploads/{upload}/complete")).status == 202:
            time.sleep(min(1, int(answer.headers["retry-after"])))
        return answer

    def upload(
        self, content: bytes, repository: RepositoryName = REPOSITORY, *, slice_size: int = limits.SHARD_BYTES
    ) -> Digest:
        """Upload a blob as a client does."""
        opened = self.open_upload(content, repository, slice_size=slice_size).json
        size = opened["part_size"]
        for number in range(-(-len(content) // size)):
            if number not in opened["parts"]:
                part = content[number * size : (number + 1) * size]
                if opened["transfer"] == "direct":
                    answer = self.put_direct(opened["id"], number, part, repository)
                else:
                    shards = encode_base64(shard_digests(part, slice_size))
                    answer = self.put_part(opened["id"], number, part, repository, Pqreg_Shards=shards)
                assert answer.status in (200, 204), answer
        answer = self.complete(opened["id"], repository)
        assert answer.status == 201, answer
        return Digest.parse(answer.json["digest"])

    def register(self, signer: SecretIdentity, namespace: str = "acme") -> Answer:
        body = {"public": signer.identity.to_pem().decode()}
        return self.post(f"/v1/namespaces/{namespace}/identities", body)

    def post_release(self, envelope: Envelope | bytes, repository: RepositoryName = REPOSITORY) -> Answer:
        body = envelope if isinstance(envelope, bytes) else envelope.encode()
        return self.post(f"/v1/repos/{repository}/releases", body, ENVELOPE)

    def publish(
        self,
        files: Mapping[str, bytes] = FILES,
        repository: RepositoryName = REPOSITORY,
        signer: SecretIdentity | None = None,
    ) -> Digest:
        """Everything a push does but the tag."""
        signer = signer or publisher()
        assert self.register(signer, str(repository.namespace)).status in (200, 201)
        envelope, manifest = release(files, name=repository, signer=signer)
        for content in {*files.values(), manifest}:
            self.upload(content, repository)
        answer = self.post_release(envelope, repository)
        assert answer.status in (200, 201), answer
        return Digest.parse(answer.json["digest"])

    def put_tag(self, target: Digest | None, signer: SecretIdentity | None = None, **fields: Any) -> Answer:
        """Set (or withdraw) a tag by a statement issued now."""
        signer = signer or publisher()
        now = utc_now()
        defaults = {"issued": now, "expires": now + YEAR, "signer": signer.identity.id}
        statement = tag_statement(target, **{**defaults, **fields})
        return self.put_envelope(sign_envelope(statement.encode(), signer), statement.repository, statement.tag)

    def put_envelope(self, envelope: Envelope, repository: RepositoryName, tag: Tag) -> Answer:
        return self.request("PUT", f"/v1/repos/{repository}/tags/{tag}", envelope.encode(), ENVELOPE)

    def make_token(self, role: str, *namespaces: str, days: int = 30) -> str:
        body = {"role": role, "namespaces": list(namespaces), "expires_days": days}
        answer = self.post("/v1/tokens", body)
        assert answer.status == 201, answer
        return str(answer.json["token"])

    def as_role(self, role: str, *namespaces: str) -> Api:
        return self.with_token(self.make_token(role, *(namespaces or ("acme",))))


def send_signed(method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """A request to an object store as somebody signed it, without any token of ours."""
    place = urlsplit(url)
    return Api(f"{place.scheme}://{place.netloc}", None).request_once(
        method, f"{place.path}?{place.query}", body, headers
    )


@dataclass
class MovableClock:
    """The real clock, moved by ``offset``."""

    offset: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return utc_now() + self.offset


class RunningRegistry(Api):
    """A service in a thread of this process."""

    def __init__(self, url: str, data: Path, registry: Registry, server: Server, clock: MovableClock) -> None:
        super().__init__(url, (data / "admin.token").read_text().strip())
        self.data = data
        self.server = server
        self.registry = registry
        self.app: FastAPI = server.config.app  # type: ignore[assignment]
        self.clock = clock

    def stop(self) -> None:
        """Have it drain and end, as a signal does."""
        self.server.should_exit = True

    @property
    def admin_token(self) -> str:
        assert self.token is not None
        return self.token


@contextmanager
def running(
    data: Path, *, log: LogSetup | None = None, stores: StoreConfig | None = None, **changes: Any
) -> Iterator[RunningRegistry]:
    """Serve ``data`` while the block runs; ``changes`` are fields of the ServerConfig.

    It is kept where the stack of the suite says (``tests.stack``), unless ``stores`` say otherwise.
    """
    settings: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "public_read": False, "hosts": LOOPBACK_HOSTS, "log_level": "info", **changes,
    }  # fmt: skip
    config = ServerConfig(stores=stores or store_config(data), **settings)
    clock = MovableClock()
    registry = Registry.open(config.stores, clock, log=log or log_setup())
    listener = bind(config.host, config.port)
    ready = threading.Event()
    server = make_server(create_app(registry, config), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield RunningRegistry(url_of(listener), data, registry, server, clock)
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


class RegistryProcess:
    """``pqreg serve`` in a process of its own; restarted on the same port with the same data."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.url = ""
        self.errors = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        listen = self.url.removeprefix("http://") or "127.0.0.1:0"
        path = os.pathsep.join(str(ROOT / part) for part in (".", "cli", "keys"))
        log = self.data.with_suffix(".log")
        with log.open("a") as output:
            words = ["serve", "--data", str(self.data), "--listen", listen, *self.options]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pqreg_cli", *words],
                stdout=output, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **variables_for(words, Path.cwd()), "PYTHONPATH": path},
            )  # fmt: skip
        assert self._process.stderr is not None
        self.errors = ""
        for line in self._process.stderr:
            self.errors += line
            match = READY.match(line)
            if match:
                self.url = match[1]
                return self
        raise AssertionError(f"the service did not start: {self.errors}")

    @property
    def api(self) -> Api:
        return Api(self.url, self.admin_token)

    @property
    def admin_token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    @property
    def log(self) -> str:
        return self.data.with_suffix(".log").read_text()

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit status of the process, which has been told to end."""
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        self.errors += process.stderr.read()
        process.stderr.close()
        return process.wait(60)

    def kill(self) -> None:
        """As a power cut does, as far as the process is concerned."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def close(self) -> None:
        if self._process is not None:
            self.kill()
