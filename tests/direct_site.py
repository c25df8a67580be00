# SPDX-License-Identifier: Apache-2.0
"""A registry that has its clients send parts straight to storage, and the storage: two servers a test can spoil.

``registry.rules`` and ``storage.rules`` go before what is honest here (``tests.fake_registry``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from pq_registry import limits
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.transport import RegistryClient
from pq_registry.client.upload import Blob, Sent, upload_missing
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import SourceChanged
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from tests.fake_registry import FakeRegistry, Handler, Rule, serving

NAME = RepositoryName.parse("acme/minilm")
TOKEN = "canary-5e1f77"
SECRET = "X-Amz-Credential=AKIAVERYSECRET&X-Amz-Signature=0123456789abcdef"
PART = 2 * limits.SHARD_BYTES


@dataclass
class DirectSite:
    """What was sent, and how the registry answers to ``complete``."""

    registry: FakeRegistry
    storage: FakeRegistry
    parts: dict[int, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"x-amz-checksum-sha256": "c2lnbmVk"})
    verifying: list[int] = field(default_factory=list)
    finished: set[Digest] = field(default_factory=set)
    signed: int = 0
    size: int = 0

    def client(self, **options: object) -> RegistryClient:
        return RegistryClient(self.registry.url, TOKEN, sleep=lambda _: None, **options)  # type: ignore[arg-type]

    def push(self, content: bytes, progress: Progress | None = None, **options: object) -> Sent:
        """Pass 2 of a push of one file."""
        with self.client(**options) as client:
            return upload_missing(client, NAME, [blob(content)], connections=3, progress=progress or NullProgress())

    def strangers(self) -> list[dict[str, str]]:
        """The headers of every request at the storage."""
        return [seen.headers for seen in self.storage.seen]


def blob(content: bytes) -> Blob:
    def read(view: memoryview, offset: int) -> None:
        view[:] = content[offset : offset + len(view)]

    return Blob(Digest.of(content), len(content), shard_digests(content), read, lambda how: SourceChanged(f"x: {how}"))


@contextmanager
def direct_site(storage_host: str = "127.0.0.1") -> Iterator[DirectSite]:
    """The two servers, while the block runs."""
    with serving() as registry, serving(host=storage_host) as storage:
        site = DirectSite(registry, storage)
        registry.rules["/v1/repos/"] = lambda handler: _registry(site, handler)
        storage.rules["PUT /bucket/"] = lambda handler: _storage(site, handler)
        yield site


def spoil(server: FakeRegistry, part: str, rule: Rule) -> None:
    """Have ``rule`` go before what is honest, which goes on where it answers nothing."""
    kept = dict(server.rules)

    def first(handler: Handler) -> bool:
        return rule(handler) or (part in kept and kept[part](handler))

    server.rules = {part: first, **{name: honest for name, honest in kept.items() if name != part}}


def _registry(site: DirectSite, handler: Handler) -> bool:
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    asked = json.loads(body) if body else {}
    path = handler.path.partition("?")[0]
    if path.endswith("/missing"):
        found = [digest for digest in asked["digests"] if Digest.parse(digest) not in site.finished]
        return handler.json({"missing": found})
    if path.endswith("/urls"):
        site.signed += 1
        return handler.json({"parts": [_signed(site, part["number"]) for part in asked["parts"]]})
    if path.endswith("/complete"):
        if site.verifying:
            return handler.json({"verified": site.verifying.pop(0), "size": site.size}, 202)
        content = b"".join(site.parts[number] for number in sorted(site.parts))
        site.finished.add(Digest.of(content))
        return handler.json({"digest": str(Digest.of(content))}, 201)
    if handler.command == "POST":
        site.size = asked["size"]
    state = {"id": "u", "part_size": PART, "parts": sorted(site.parts), "transfer": "direct"}
    return handler.json(state, 201)


def _signed(site: DirectSite, number: int) -> dict[str, object]:
    url = f"{site.storage.url}/bucket/key?partNumber={number}&{SECRET}&try={site.signed}"
    return {"number": number, "url": url, "headers": site.headers, "expires": "2026-11-22T00:00:00Z"}


def _storage(site: DirectSite, handler: Handler) -> bool:
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    match = re.search(r"\?(.*)", handler.path)
    assert match is not None
    site.parts[int(parse_qs(match[1])["partNumber"][0])] = body
    return handler.send(200, b"", "application/xml", {"ETag": '"etag"'})
