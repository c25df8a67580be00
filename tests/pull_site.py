# SPDX-License-Identifier: Apache-2.0
"""A node with a registry of a few lines, and a release worth pulling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pq_registry import limits
from pq_registry.client.destination import Destination
from pq_registry.client.pull import PullResult, pull
from pq_registry.client.resolve import Resolved, resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference
from tests.fake_registry import FakeRegistry
from tests.samples import NOW, release, trust_file
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
TENSORS, _ = safetensors_bytes({"w": ("F32", (5 * SHARD // 4 + 1000,)), "b": ("F16", (77,))}, 1)
FILES: dict[str, bytes] = {
    "config.json": b'{"a": 1}',
    "empty": b"",
    "sub/dir/config.json": b'{"a": 1}',
    "sub/model.safetensors": TENSORS,
    "vocab.txt": bytes(range(256)) * 20_000,
}


def no_pause(_seconds: float) -> None:
    """Retries do not wait in tests."""


class Site:
    """A node that trusts acme's publisher, beside a registry that holds what ``add`` gives it."""

    def __init__(self, registry: FakeRegistry, home: Path) -> None:
        self.registry = registry
        self.home = home
        self.out = home / "out"
        self.verifier = Verifier(trust_file().encode(), NOW, online=True)
        self.offline = Verifier(trust_file().encode(), NOW, online=False)
        self.seen = SeenTags(home / "state")

    def add(self, files: Mapping[str, bytes] = FILES) -> Digest:
        """Publish a release; answers its digest."""
        envelope, manifest = release(files)
        return self.registry.add_release(envelope, manifest, files)

    def client(
        self, token: str | None = None, *, timeout: float = 20, sleep: Callable[[float], None] = no_pause
    ) -> RegistryClient:
        """A client of the registry."""
        return RegistryClient(self.registry.url, token, timeout=timeout, sleep=sleep)

    def resolve(self, what: Digest | str) -> Resolved:
        """Resolve a release digest or a tag of acme/minilm."""
        mark = "@" if isinstance(what, Digest) else ":"
        with self.client() as client:
            return resolve(Reference.parse(f"acme/minilm{mark}{what}"), client, self.verifier, self.seen)

    def pull(
        self,
        what: Digest | str | Resolved,
        destination: Destination | Path | None = None,
        *,
        connections: int = 3,
        timeout: float = 20,
    ) -> PullResult:
        """Pull it into ``out``, or wherever told."""
        resolved = what if isinstance(what, Resolved) else self.resolve(what)
        with self.client(timeout=timeout) as client, RemoteSource(client) as source:
            return pull(resolved, source, destination or self.out, connections=connections)


def content(directory: Path) -> dict[str, bytes]:
    """The files of a release directory, without its evidence."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("model.sig", "model.pq.sig", "pqreg.json")
    }


def final_names(directory: Path) -> set[str]:
    """Everything in a directory that is not being staged."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if not path.is_dir() and ".pqreg" not in path.parts
    }
