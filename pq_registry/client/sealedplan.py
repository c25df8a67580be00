# SPDX-License-Identifier: Apache-2.0
"""The plan of a sealed push: beside manifest and statement, the content key and the plaintext of pqreg.inner.

Why it holds the key: a shard's key and nonce come from the content key, the release id and the shard's place. A push
that is cut off has sent some shards; to send the others it must seal the same plaintext under the same key, and it
must never seal another plaintext under it, because two under one key and nonce betray both. So a rerun uses the plan
only if every file still has every digest in pqreg.inner, and each shard is compared once more in the memory it is
sealed from. Otherwise the plan is deleted, and the key with it: nobody was granted it.

The file is for its owner only (mode 0600), and deleted as soon as the release and its grants are published.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.client.plan import SCHEMA, Plan, PlanKey, PlanStore
from pq_registry.crypto.sealing import SealingKey, new_content_key
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.shards import ShardHasher
from pq_registry.crypto.signing import Signer, sign_envelope
from pq_registry.errors import FormatError, PqregError
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.inner import BLIND_BYTES, Inner, bind_inner, plaintext_statement
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.recipientfile import CONTENT_KEY_BYTES
from pq_registry.format.release import statement_of
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, Sealing
from pq_registry.format.strict_json import Fields, encode_base64, encode_canonical, parse_canonical


@dataclass(frozen=True, slots=True)
class FreshKey:
    """A content key and a release id that nothing was sealed under yet."""

    content_key: SecretBytes
    release_id: str

    @classmethod
    def draw(cls) -> FreshKey:
        """From the system's randomness."""
        return cls(new_content_key(), secrets.token_hex(16))

    def sealing_key(self) -> SealingKey:
        """What shards are sealed with; the caller wipes it."""
        return SealingKey(self.content_key, self.release_id)


@dataclass(frozen=True, slots=True)
class SealedPlan:
    """A sealed release that is decided and not yet published."""

    plan: Plan
    inner: Inner
    inner_bytes: bytes
    content_key: SecretBytes

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        return self.plan.manifest

    def sealing_key(self) -> SealingKey:
        """What shards are sealed with; the caller wipes it."""
        return SealingKey(self.content_key, self.manifest.release_id)

    def encode(self, key: PlanKey) -> bytes:
        """The plan file for ``key``."""
        return encode_canonical(
            {
                **key.fields(),
                "content_key": encode_base64(bytes(self.content_key)),
                "inner": encode_base64(self.inner_bytes),
                "manifest": encode_base64(self.plan.manifest_bytes),
                "schema": SCHEMA,
                "statement": encode_base64(self.plan.statement_bytes),
            }
        )

    @classmethod
    def parse(cls, data: bytes, key: PlanKey) -> SealedPlan:
        """Read a plan file, which must be for ``key``.

        Raises:
            PqregError: a FormatError or VerificationError if it is not a sound plan for ``key``.
        """
        fields = Fields(parse_canonical(data, what="the plan", limit=limits.SEALED_PLAN_BYTES), "plan")
        fields.literal("schema", SCHEMA)
        for name, value in key.fields().items():
            fields.literal(name, value)
        content_key = SecretBytes(fields.base64("content_key", limit=CONTENT_KEY_BYTES))
        inner_bytes = fields.base64("inner", limit=limits.INNER_BYTES)
        manifest_bytes = fields.base64("manifest", limit=limits.MANIFEST_BYTES)
        statement_bytes = fields.base64("statement", limit=limits.STATEMENT_BYTES)
        fields.done()
        plan = Plan.of(manifest_bytes, statement_bytes)
        if (plan.manifest.name, plan.manifest.signer) != (key.repository, parse_identity_id(key.signer)):
            raise FormatError("the plan's release is another repository's or another signer's")
        sealed = cls(plan, bind_inner(plan.manifest, inner_bytes), inner_bytes, content_key)
        assert plan.manifest.sealing is not None
        with sealed.sealing_key() as sealing_key:
            sealing_key.check(plan.manifest.sealing.commitment)
        return sealed


class SealedPlanStore:
    """The plans of sealed pushes in one state directory, locked and kept as others are."""

    def __init__(self, plans: PlanStore) -> None:
        self._plans = plans

    def load(self, key: PlanKey) -> SealedPlan | None:
        """The plan for ``key``, or None if there is none that is sound; one that is not is deleted.

        Raises:
            StorageError: if it cannot be read.
        """
        data = self._plans.read(key, limits.SEALED_PLAN_BYTES)
        if data is None:
            return None
        try:
            return SealedPlan.parse(data, key)
        except PqregError:
            self._plans.delete(key)
            return None

    def save(self, key: PlanKey, plan: SealedPlan) -> None:
        """Keep a new plan, durably.

        Raises:
            AlreadyExists: if there is one for ``key``; plans are never rewritten.
            StorageError: if it cannot be written.
        """
        self._plans.write(key, plan.encode(key))


def draft_sealed(
    fresh: FreshKey,
    files: Sequence[FileEntry],
    stored: Sequence[FileEntry],
    *,
    repository: RepositoryName,
    signer: Signer,
    now: datetime,
    license: str | None,  # noqa: A002  the manifest's word for it
    lineage: tuple[BaseRelease, ...],
) -> SealedPlan:
    """Decide a new sealed release: ``files`` in the clear and, sealed under ``fresh``, ``stored``.

    Raises:
        FormatError: if the license or the lineage is malformed, or the files cannot be a release.
    """
    payload = plaintext_statement(repository, tuple(files)).encode()
    # Only the EC half is kept: with both it would be a genuine envelope about files that have no manifest.
    oms = encode_bundle(sign_envelope(payload, signer), "ec", signer.identity.ec_pem)
    inner = Inner(blind=secrets.token_bytes(BLIND_BYTES), files=tuple(files), oms=oms, lineage=lineage, license=license)
    inner_bytes = inner.encode()
    with fresh.sealing_key() as key:
        sealing = Sealing(key.commitment, Digest.of(inner_bytes))
        entry = _inner_entry(key, inner_bytes)
    manifest = Manifest(
        name=repository,
        signer=signer.identity.id,
        release_id=fresh.release_id,
        created=now,
        files=(entry, *stored),
        sealing=sealing,
    )
    manifest_bytes = manifest.encode()
    plan = Plan.of(manifest_bytes, statement_of(manifest, manifest_bytes).encode())
    return SealedPlan(plan, bind_inner(manifest, inner_bytes), inner_bytes, fresh.content_key)


def _inner_entry(key: SealingKey, data: bytes) -> FileEntry:
    path = ReleasePath(INNER_NAME)
    sealer = key.file(path, len(data))
    hasher = ShardHasher(SLICE_BYTES)
    memory = bytearray(SLICE_BYTES)
    for index in range(sealer.shard_count):
        with memoryview(data) as clear, memoryview(memory) as view:
            start = index * limits.SHARD_BYTES
            length = sealer.plaintext_length(index)
            stored = view[: length + limits.SEAL_TAG_BYTES]
            sealer.seal_into(index, clear[start : start + length], stored)
            hasher.update(stored)
            stored.release()
    size, sha256, shards = hasher.result()
    return FileEntry(path, size, sha256, shards, sealed=True)
