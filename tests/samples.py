# SPDX-License-Identifier: Apache-2.0
"""Genuine documents made in memory: publishers, trust files, releases and tags for tests to bend and break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from pq_registry.crypto.shards import ShardHasher
from pq_registry.crypto.signing import sign_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import SAFETENSORS_SUFFIX, FileEntry, Manifest
from pq_registry.format.name import Reference, RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys.custody import SecretIdentity, generate

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
YEAR = timedelta(days=365)
REPOSITORY = RepositoryName.parse("acme/minilm")
FILES: dict[str, bytes] = {"config.json": b"{}", "sub/notes.txt": b"hello\n", "empty": b""}


def publisher(name: str = "alice", level: int = 5) -> SecretIdentity:
    """A publisher's identity; the same one for the same name within a process."""
    return _identity(name, level)


@cache
def _identity(_name: str, level: int) -> SecretIdentity:
    return generate(Profile.LEVEL_5 if level == 5 else Profile.LEVEL_3)


def trusted(
    signer: SecretIdentity, not_before: datetime | None = None, not_after: datetime | None = None
) -> TrustedIdentity:
    """A trust file's entry for ``signer``."""
    return TrustedIdentity(signer.identity.id, signer.identity.to_pem().decode(), not_before, not_after)


def namespace_trust(*signers: SecretIdentity, name: str = "acme") -> NamespaceTrust:
    """All ``signers`` as publishers of a namespace."""
    entries = tuple(trusted(signer) for signer in signers)
    return NamespaceTrust(
        RepositoryName.parse(f"{name}/x").namespace, entries, tuple(entry.id for entry in entries), min_profile=3
    )


def trust_file(*namespaces: NamespaceTrust, **fields: object) -> TrustFile:
    """A trust file made at NOW that is good for a year."""
    chosen = namespaces or (namespace_trust(publisher()),)
    trust = TrustFile(
        version=1,
        created=NOW,
        expires=NOW + YEAR,
        namespaces={entry.namespace.key: entry for entry in chosen},
    )
    return replace(trust, **fields)  # type: ignore[arg-type]


def file_entry(path: str, content: bytes) -> FileEntry:
    """The manifest's entry of a file."""
    hasher = ShardHasher()
    hasher.update(content)
    digests = hasher.result()
    table = None
    if path.endswith(SAFETENSORS_SUFFIX):
        table = parse_header(content[: header_size(content[:8], len(content))], len(content))
    return FileEntry(ReleasePath(path), digests.size, digests.sha256, digests.shards, table)


def manifest(
    files: Mapping[str, bytes] = FILES, *, name: RepositoryName = REPOSITORY, signer: SecretIdentity | None = None
) -> Manifest:
    """A manifest of ``files``."""
    entries = tuple(file_entry(path, files[path]) for path in sorted(files))
    return Manifest(name, (signer or publisher()).identity.id, "00" * 16, NOW, entries)


def release(
    files: Mapping[str, bytes] = FILES, *, name: RepositoryName = REPOSITORY, signer: SecretIdentity | None = None
) -> tuple[Envelope, bytes]:
    """A signed release: its envelope and the bytes of its manifest."""
    signer = signer or publisher()
    made = manifest(files, name=name, signer=signer)
    data = made.encode()
    return sign_envelope(statement_of(made, data).encode(), signer), data


def tag_statement(target: Digest | None, **fields: object) -> TagStatement:
    """The statement that sets acme/minilm:v1 for the first time."""
    reference = Reference.parse("acme/minilm:v1")
    assert reference.tag is not None
    statement = TagStatement(
        repository=reference.repository,
        tag=reference.tag,
        signer=publisher().identity.id,
        sequence=1,
        previous=None,
        target=target if target is not None else Digest("0" * 64),
        issued=NOW,
        expires=NOW + YEAR,
    )
    changes = dict(fields) if target is not None else {**fields, "target": None}
    return replace(statement, **changes)  # type: ignore[arg-type]
