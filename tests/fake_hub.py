# SPDX-License-Identifier: Apache-2.0
"""A Hub of a few lines, for what ours never does: files that git keeps, lies, excess, refusals at the n-th request.

It holds models by name and answers what ``huggingface_hub`` asks when it downloads. ``lies`` are bytes sent instead of
a file's; ``stated`` replaces members of an entry of the tree; ``refusals`` are answers given before any other;
``watch`` is told of each request, by its number, before it is answered.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 64
"""Bytes from which a file counts as large here, and is stated by its SHA-256."""
_API = re.compile(r"/api/models/([^/]+/[^/]+)/(revision|tree|commits)/([^/?]+)")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class FakeHub:
    """Models by name, and how it misbehaves."""

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything but where it listens."""
        self.models: dict[str, dict[str, bytes]] = {}
        self.lies: dict[str, bytes] = {}
        self.stated: dict[str, dict[str, Any]] = {}
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.commits: dict[str, Any] = {}
        self.asked: list[str] = []
        self.watch: Callable[[int], None] = lambda _count: None
        self.tokens: set[str | None] = set()

    def add(self, files: Mapping[str, bytes], name: str = "org/model") -> str:
        """Hold a model; answers its commit."""
        self.models[name] = dict(files)
        return self.commit(name)

    def commit(self, name: str) -> str:
        """The commit of a model: another for every content."""
        content = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in self.models[name].items()})
        return hashlib.sha1(content.encode()).hexdigest()

    def tree(self, name: str) -> list[dict[str, Any]]:
        """What it says of the files."""
        return [{**entry(path, data), **self.stated.get(path, {})} for path, data in self.models[name].items()]


def entry(path: str, data: bytes) -> dict[str, Any]:
    """What a Hub says of a file."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    item: dict[str, Any] = {"type": "file", "path": path, "oid": git, "size": len(data)}
    if len(data) >= LARGE:
        item["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return item


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        self.hub.watch(len(self.hub.asked))
        if self.hub.refusals:
            status, headers = self.hub.refusals.pop(0)
            self._send(status, headers, b"", with_body=with_body)
        elif (match := _API.fullmatch(path)) and match[1] in self.hub.models:
            self._describe(match[1], match[2])
        elif (match := _RESOLVE.fullmatch(path)) and match[3] in self.hub.models.get(match[1], {}):
            self._file(match[1], match[3], with_body=with_body)
        else:
            self._send(404, {"X-Error-Code": "RepoNotFound"}, b"{}", with_body=with_body)

    def _describe(self, name: str, what: str) -> None:
        commit = self.hub.commits.get(name, self.hub.commit(name))
        headers = {"Content-Type": "application/json"}
        value: Any = {"id": name, "sha": commit} if what == "revision" else self.hub.tree(name)
        if what == "commits":  # without end
            value = [{"id": commit, "title": "a title", "message": "a message", "date": "", "authors": []}]
            headers["Link"] = f'<{self.hub.url}{self.path}>; rel="next"'
        self._send(200, headers, json.dumps(value).encode(), with_body=True)

    def _file(self, name: str, path: str, *, with_body: bool) -> None:
        data = self.hub.models[name][path]
        stated = entry(path, data)
        etag = stated["lfs"]["oid"] if "lfs" in stated else stated["oid"]
        headers = {"X-Repo-Commit": self.hub.commit(name), "ETag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        self._send(200, headers, self.hub.lies.get(path, data) if with_body else data, with_body=with_body)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, *, with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """One that runs."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        from huggingface_hub.utils import close_session

        close_session()  # its connections lead to a server that is gone
