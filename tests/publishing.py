# SPDX-License-Identifier: Apache-2.0
"""A registry that runs, publishers who push to it in this process, and small models for them to push."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pq_registry.client.push import PushOptions, PushResult, push
from pq_registry.client.rate import TokenBucket
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests import samples
from tests.e2e.shell import Shell

Hook = Callable[[str, str], None]
"""Called with method and path of a request."""
_PART = re.compile(r"^/v1/repos/[^/]+/[^/]+/uploads/([^/]+)/parts/(\d+)$")


@dataclass(frozen=True)
class Registry:
    """A registry service in a process of its own."""

    url: str
    token: str
    data: Path
    log: Path
    clients: list[RegistryClient] = field(default_factory=list)

    def client(self, token: str | None = None, **options: Any) -> RegistryClient:
        """A client that is closed when the registry ends, at the latest."""
        client = RegistryClient(self.url, token or self.token, **options)
        self.clients.append(client)
        return client

    def releases(self, name: str) -> list[Digest]:
        """What the repository shows, newest first; nothing if it does not exist."""
        with self.client() as client:
            try:
                return [item.digest for item in client.repository(RepositoryName.parse(name)).releases]
            except NotFound:
                return []

    def tag_chain(self, reference: str) -> list[TagStatement]:
        """The statements of a tag, oldest first; each is checked to name its predecessor."""
        wanted = Reference.parse(reference)
        assert wanted.tag is not None
        with self.client() as client:
            data = client.tag_envelope(wanted.repository, wanted.tag)
            chain: list[TagStatement] = []
            while data is not None:
                statement = TagStatement.parse(Envelope.parse(data).payload)
                chain.append(statement)
                data = None
                if statement.previous is not None:
                    data = client.statement(statement.previous)[0]
                    assert Envelope.parse(data).payload_digest == statement.previous
        return chain[::-1]

    def requests(self) -> list[dict[str, Any]]:
        """The service's log of requests."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if "path" in line and "status" in line]

    def acknowledged_parts(self) -> Counter[tuple[str, str]]:
        """How often each part of each upload was acknowledged."""
        found = [
            _PART.match(line["path"]) for line in self.requests() if line["method"] == "PUT" and line["status"] == 204
        ]
        return Counter((match[1], match[2]) for match in found if match)


@contextmanager
def running_registry(root: Path, *words: str, name: str = "data") -> Iterator[Registry]:
    """Serve ``root/name`` on a free port."""
    shell = Shell(root, "operator")
    with shell.serving(name, *words) as (url, log):
        registry = Registry(url, (root / name / "admin.token").read_text().strip(), root / name, log)
        try:
            yield registry
        finally:
            for client in registry.clients:
                client.close()


def observed(client: RegistryClient, *, before: Hook | None = None, after: Hook | None = None) -> RegistryClient:
    """``client``, with hooks around every request it makes; a hook may raise."""
    original = client.exchanger.request

    def request(method: str, path: str, **options: Any) -> Any:
        if before is not None:
            before(method, path)
        answer = original(method, path, **options)
        if after is not None:
            after(method, path)
        return answer

    client.exchanger.request = request  # type: ignore[method-assign]
    return client


def publisher_at(
    registry: Registry,
    state_dir: Path,
    name: str = "alice",
    *,
    client: RegistryClient | None = None,
    trust: TrustFile | None = None,
) -> Publisher:
    """A publisher with an admin's token; the same name is the same identity."""
    return Publisher(
        client=client or registry.client(sleep=lambda _seconds: None),
        signer=samples.publisher(name),
        state_dir=state_dir,
        now=utc_now(),
        trust=trust,
    )


def push_as(
    publisher: Publisher, directory: Path, reference: str, *, progress: Any = None, **options: Any
) -> PushResult:
    """Push with ``options`` of PushOptions."""
    return push(
        directory, Reference.parse(reference), publisher=publisher, options=PushOptions(**options), progress=progress
    )


def make_model(directory: Path, seed: int | str, *, size: int = 100_000) -> Path:
    """A small model whose weights nobody else has: ``size`` bytes of tensor, a configuration, an empty file."""
    source = random.Random(seed)
    header = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    (directory / "sub").mkdir(parents=True, exist_ok=True)
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + source.randbytes(size))
    (directory / "config.json").write_text(json.dumps({"seed": seed}))
    (directory / "sub" / "empty.txt").write_bytes(b"")
    return directory


def capped(bytes_per_second: int) -> tuple[TokenBucket, list[float]]:
    """A bandwidth cap on a clock that only sleeping moves, and the list of sleeps."""
    slept: list[float] = []
    return TokenBucket(bytes_per_second, clock=lambda: sum(slept), sleep=slept.append), slept


def tag_of(reference: str) -> tuple[RepositoryName, Tag]:
    """The two halves of a reference with a tag."""
    wanted = Reference.parse(reference)
    assert wanted.tag is not None
    return wanted.repository, wanted.tag
