# SPDX-License-Identifier: Apache-2.0
"""A publisher who seals, a registry that keeps what it is sent, and nodes with recipient keys."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pq_registry import limits
from pq_registry.client.pull import PullResult, pull
from pq_registry.client.push import PushOptions
from pq_registry.client.resolve import Resolved, resolve
from pq_registry.client.sealedpush import SealedPushResult, push_sealed
from pq_registry.client.seengrants import SeenGrants
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.client.unsealing import Unsealed, fetch_grant, unseal
from pq_registry.client.unsealplace import UnsealedDirectory
from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient
from pq_registry.crypto.suites import Profile
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference
from pq_registry.format.release import Release
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from pqreg_keys.custody import SecretIdentity
from pqreg_keys.custody import generate_recipient as generate
from tests.samples import YEAR, namespace_trust, publisher, trusted
from tests.sealed_registry import SealedRegistry
from tests.tensors import safetensors_bytes

SHARD = limits.SHARD_BYTES
NAME = "acme/secret"
REFERENCE = Reference.parse(f"{NAME}:v1")


@cache
def recipient(name: str = "node1", profile: Profile = Profile.LEVEL_5) -> SecretRecipient:
    """A recipient; the same name is the same key."""
    del name
    return generate(profile)


@cache
def model_files(seed: int = 1) -> dict[str, bytes]:
    """Files that nobody could guess, with an empty one, small ones, and weights of several shards."""
    source = random.Random(seed)
    weights, _ = safetensors_bytes({"w": ("F32", (5 * SHARD // 4 + 1000,)), "b": ("F16", (77,))}, seed)
    return {
        "config.json": json.dumps({"secret": source.randbytes(40).hex()}).encode(),
        "empty.txt": b"",
        "model.safetensors": weights,
        "sub/exact.txt": source.randbytes(SHARD).hex().encode(),
        "sub/vocab.txt": source.randbytes(35_000).hex().encode(),
    }


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` below ``directory``."""
    for name, content in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return directory


def sealed_trust(*identities: SecretIdentity, enrolment: SecretIdentity | None = None) -> TrustFile:
    """A trust file of now that believes ``identities`` as publishers, and one identity that enrols."""
    now = utc_now()
    entry: NamespaceTrust = namespace_trust(*(identities or (publisher(),)))
    if enrolment is not None:
        entry = replace(entry, identities=(*entry.identities, trusted(enrolment)), enrolment=(enrolment.identity.id,))
    return TrustFile(version=1, created=now, expires=now + YEAR, namespaces={entry.namespace.key: entry})


@dataclass
class SealingSite:
    """One registry, one publisher, any nodes."""

    registry: SealedRegistry
    home: Path
    trust: TrustFile = field(default_factory=sealed_trust)
    clients: list[RegistryClient] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return utc_now()

    def client(self) -> RegistryClient:
        client = RegistryClient(self.registry.url, "token", timeout=20, sleep=lambda _seconds: None)
        self.clients.append(client)
        return client

    def publisher(self, **changes: Any) -> Publisher:
        fields: dict[str, Any] = {
            "client": self.client(), "signer": publisher(), "state_dir": self.home / "state", "now": self.now,
            "trust": self.trust, **changes,
        }  # fmt: skip
        return Publisher(**fields)

    def push(
        self, directory: Path, *to: PublicRecipient, who: Publisher | None = None, **options: Any
    ) -> SealedPushResult:
        expires = options.pop("expires", None)
        return push_sealed(
            directory, REFERENCE, publisher=who or self.publisher(), recipients=to, expires=expires,
            options=PushOptions(connections=2, **options),
        )  # fmt: skip

    def verifier(self, *, online: bool = False, now: datetime | None = None) -> Verifier:
        return Verifier(self.trust.encode(), now or self.now, online=online)

    def resolve(self, what: Reference = REFERENCE) -> Resolved:
        return resolve(what, self.client(), self.verifier(online=True), SeenTags(self.home / "node-state"))

    def release(self, digest: Digest | None = None) -> Release:
        reference = REFERENCE if digest is None else Reference(REFERENCE.repository, None, digest)
        return self.resolve(reference).verified.release

    def unseal(self, key: SecretRecipient, resolved: Resolved | None = None, grant: bytes | None = None) -> Unsealed:
        """With the registry's grant, which is remembered, or the one given, which is not."""
        found = resolved or self.resolve()
        client = self.client()
        recording = grant is None
        with RemoteSource(client) as source:
            grant = grant or fetch_grant(client, found.verified.release, key.public.id)
            return unseal(
                found.verified, grant, key=key, source=source, verifier=self.verifier(online=True),
                seen=SeenGrants(self.home / "node-state", recording=recording),
            )  # fmt: skip

    def pull(self, key: SecretRecipient, out: Path, what: Reference = REFERENCE) -> PullResult:
        """Pull and unseal."""
        resolved = self.resolve(what)
        with self.unseal(key, resolved) as unsealed, unsealed.source(RemoteSource(self.client())) as source:
            place = UnsealedDirectory(out, unsealed)
            return pull(resolved, source, place, connections=2, files=unsealed.inner.files)

    def pull_sealed(self, out: Path, what: Reference = REFERENCE) -> PullResult:
        """Pull ciphertext."""
        with RemoteSource(self.client()) as source:
            return pull(self.resolve(what), source, out, connections=2)

    def close(self) -> None:
        for client in self.clients:
            client.close()


def windows(content: bytes, width: int = 32, step: int = 1) -> Callable[[bytes], bool]:
    """Whether stored bytes hold any ``width``-byte window of ``content``."""
    wanted = {content[start : start + width] for start in range(0, len(content) - width + 1, step)}

    def found(stored: bytes) -> bool:
        # A window of the plaintext at any offset of the stored bytes, by one pass over them.
        return any(stored[start : start + width] in wanted for start in range(len(stored) - width + 1))

    return found


def contents_of(directory: Path) -> dict[str, bytes]:
    """The publisher's files in an unsealed directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "model.sig" and ".pqreg" not in path.parts
    }
