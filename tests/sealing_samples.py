# SPDX-License-Identifier: Apache-2.0
"""A sealed release in memory, with its key and its stored bytes, for tests to bend and break."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.sealing import SealingKey, new_content_key
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import ShardHasher
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.inner import Inner, plaintext_statement
from pq_registry.format.manifest import FileEntry, Manifest, Sealing
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, sealed_size, stored_path
from pqreg_keys.custody import SecretIdentity
from tests.samples import NOW, YEAR, file_entry, publisher

SECRET = RepositoryName.parse("acme/secret")
PLAINTEXT: dict[str, bytes] = {
    "config.json": b'{"secret":true}',
    "empty": b"",
    "weights.bin": hashlib.shake_256(b"weights").digest(2 * limits.SHARD_BYTES + 77),
}


def seal_file(key: SealingKey, path: ReleasePath, plaintext: bytes) -> bytes:
    """The stored bytes of a file."""
    sealer = key.file(path, len(plaintext))
    stored = bytearray(sealed_size(len(plaintext)))
    for index in range(sealer.shard_count):
        length = sealer.plaintext_length(index)
        piece = plaintext[index * limits.SHARD_BYTES : index * limits.SHARD_BYTES + length]
        start = index * SLICE_BYTES
        sealer.seal_into(index, piece, memoryview(stored)[start : start + length + limits.SEAL_TAG_BYTES])
    return bytes(stored)


def unseal_file(key: SealingKey, entry: FileEntry, stored: bytes) -> bytes:
    """The plaintext of a stored file."""
    sealer = key.file(entry.path, entry.plaintext_size)
    plaintext = bytearray(entry.plaintext_size)
    for index in range(entry.shard_count):
        offset, length = entry.shard_range(index)
        start, clear = entry.plaintext_range(index)
        sealer.unseal_into(index, stored[offset : offset + length], memoryview(plaintext)[start : start + clear])
    return bytes(plaintext)


def sealed_entry(path: ReleasePath, stored: bytes) -> FileEntry:
    """The manifest's entry of a stored file."""
    hasher = ShardHasher(SLICE_BYTES)
    hasher.update(stored)
    size, sha256, shards = hasher.result()
    return FileEntry(path, size, sha256, shards, sealed=True)


@dataclass(frozen=True)
class Sealed:
    """A sealed release and everything that is secret about it."""

    content_key: SecretBytes
    key: SealingKey
    inner: Inner
    stored: dict[str, bytes]
    manifest: Manifest

    @property
    def manifest_bytes(self) -> bytes:
        return self.manifest.encode()

    @property
    def payload(self) -> bytes:
        return statement_of(self.manifest, self.manifest_bytes).encode()

    @property
    def release(self) -> Digest:
        return Digest.of(self.payload)

    def envelope(self, signer: SecretIdentity | None = None) -> Envelope:
        return sign_envelope(self.payload, signer or publisher())

    def grant(self, recipient: SecretRecipient, **fields: Any) -> GrantStatement:
        """The first grant of this release to ``recipient``."""
        grant = GrantStatement(
            repository=self.manifest.name,
            release=self.release,
            signer=self.manifest.signer,
            recipient=recipient.public.id,
            sequence=1,
            previous=None,
            wrapped=recipient.public.wrap(self.content_key, self.release),
            issued=NOW,
            expires=NOW + YEAR,
        )
        return replace(grant, **fields)


def seal(
    plaintext: Mapping[str, bytes] = PLAINTEXT,
    *,
    content_key: SecretBytes | None = None,
    release_id: str = "5e" * 16,
    name: RepositoryName = SECRET,
    signer: SecretIdentity | None = None,
) -> Sealed:
    """Seal ``plaintext`` as a release of ``name``."""
    signer = signer or publisher()
    content_key = content_key or new_content_key()
    key = SealingKey(content_key, release_id)
    files = tuple(file_entry(path, plaintext[path]) for path in sorted(plaintext))
    signed = sign_envelope(plaintext_statement(name, files).encode(), signer)
    inner = Inner(blind=bytes(range(32)), files=files, oms=encode_bundle(signed, "ec", signer.identity.ec_pem))
    stored = {INNER_NAME: seal_file(key, ReleasePath(INNER_NAME), inner.encode())}
    for index, entry in enumerate(files):
        stored[stored_path(index).text] = seal_file(key, stored_path(index), plaintext[entry.path.text])
    manifest = Manifest(
        name,
        signer.identity.id,
        release_id,
        NOW,
        tuple(sealed_entry(ReleasePath(path), content) for path, content in stored.items()),
        sealing=Sealing(key.commitment, Digest.of(inner.encode())),
    )
    return Sealed(content_key, key, inner, stored, manifest)
