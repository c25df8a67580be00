# SPDX-License-Identifier: Apache-2.0
"""A registry of a few lines that serves what a test gives it, and misbehaves where a test says so.

``rules`` maps a substring of the request line (``"GET /v1/blobs"``) to a function that answers instead; it gets the
handler and returns True if it answered. ``seen`` records every request, ``ranges`` every range of a blob served.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope

Rule = Callable[["Handler"], bool]


@dataclass(frozen=True, slots=True)
class Seen:
    """One request."""

    line: str
    headers: dict[str, str]


@dataclass
class FakeRegistry:
    """What the server serves."""

    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    statements: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    receipts: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, bytes] = field(default_factory=dict)
    log_files: dict[str, bytes] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    ranges: list[tuple[str, int, int]] = field(default_factory=list)

    def add_release(self, envelope: Envelope, manifest: bytes, files: Mapping[str, bytes]) -> Digest:
        """Serve a release; answers its digest."""
        digest = envelope.payload_digest
        self.statements[digest.hex] = envelope.encode()
        self.manifests[digest.hex] = self.add_blob(manifest)
        for content in files.values():
            self.add_blob(content)
        return digest

    def add_blob(self, content: bytes) -> str:
        """Serve a blob; answers its digest in hex."""
        hex_digest = Digest.of(content).hex
        self.blobs[hex_digest] = content
        return hex_digest

    def bytes_served(self) -> int:
        """Bytes of blobs that were asked for by range."""
        return sum(length for _, _, length in self.ranges)


class Handler(BaseHTTPRequestHandler):
    """Answers from ``registry``."""

    protocol_version = "HTTP/1.1"
    registry: FakeRegistry
    timeout = 20

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        line = f"{self.command} {self.path}"
        self.registry.seen.append(Seen(line, {name.lower(): value for name, value in self.headers.items()}))
        for part, rule in list(self.registry.rules.items()):
            if part in line and rule(self):
                return
        self.route()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  # the base class names them

    def route(self) -> bool:
        """The honest answer."""
        registry = self.registry
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/v1/blobs/sha256/([0-9a-f]{64})", path):
            return self._blob(match[1])
        if match := re.fullmatch(r"/v1/statements/([0-9a-f]{64})", path):
            data = registry.statements.get(match[1])
            if data is None:
                return self.problem(404, "not-found")
            receipt = registry.receipts.get(match[1])
            proof = None if receipt is None else base64.b64encode(receipt).decode()
            return self.json({"envelope": base64.b64encode(data).decode(), "tlog_proof": proof})
        if match := re.fullmatch(r"/v1/repos/[^/]+/[^/]+/releases/([0-9a-f]{64})", path):
            if match[1] not in registry.manifests:
                return self.problem(404, "not-found")
            return self.json(
                {
                    "digest": f"sha256:{match[1]}",
                    "statement": match[1],
                    "manifest": f"sha256:{registry.manifests[match[1]]}",
                    "created": "2026-11-21T12:00:00Z",
                }
            )
        if match := re.fullmatch(r"/v1/repos/[^/]+/[^/]+/tags/(.+)", path):
            if match[1] not in registry.tags:
                return self.problem(404, "not-found")
            return self.send(200, registry.tags[match[1]], "application/vnd.dsse.envelope.v1+json")
        if path == "/v1/whoami":
            return self.json({"role": "reader", "namespaces": ["acme"], "expires": None})
        return self._log_or_status(path)

    def _log_or_status(self, path: str) -> bool:
        registry = self.registry
        if match := re.fullmatch(r"/v1/namespaces/([^/]+)/status", path):
            if match[1] not in registry.statuses:
                return self.problem(404, "not-found")
            return self.send(200, registry.statuses[match[1]], "application/vnd.dsse.envelope.v1+json")
        if path.startswith("/log/"):
            data = registry.log_files.get(path.removeprefix("/log/"))
            return self.problem(404, "not-found") if data is None else self.send(200, data, "text/plain; charset=utf-8")
        return self.problem(404, "not-found")

    def _blob(self, hex_digest: str) -> bool:
        data = self.registry.blobs.get(hex_digest)
        if data is None:
            return self.problem(404, "not-found")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            return self.send(200, data, "application/octet-stream")
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self.registry.ranges.append((hex_digest, first, last - first + 1))
        extent = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self.send(206, data[first : last + 1], "application/octet-stream", extent)

    def send(
        self, status: int, body: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
    ) -> bool:
        """An answer with its length; true, so that a rule can be this call alone."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def json(self, value: object, status: int = 200) -> bool:
        """A JSON answer."""
        return self.send(status, json.dumps(value).encode())

    def problem(self, status: int, code: str, **fields: object) -> bool:
        """A problem document."""
        body = {"type": f"/problems/{code}", "title": code, "status": status, **fields}
        return self.send(status, json.dumps(body).encode(), "application/problem+json")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(registry: FakeRegistry | None = None, host: str = "127.0.0.1") -> Iterator[FakeRegistry]:
    """Serve ``registry`` on a free port of ``host`` while the block runs."""
    registry = registry or FakeRegistry()
    handler = type("_Handler", (Handler,), {"registry": registry})
    server = _Server((host, 0), handler)
    registry.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
