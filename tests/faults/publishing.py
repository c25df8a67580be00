# SPDX-License-Identifier: Apache-2.0
"""A whole publication through the use cases, without HTTP, and the judge of what a fault in it left behind."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import Conflict
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.fsck import check_registry
from tests.logsetup import log_setup
from tests.samples import REPOSITORY, YEAR, publisher, release, tag_statement
from tests.stack import store_config

FILES = {"weights.json": b"[" + b"1," * 1500 + b"1]"}


@cache
def documents() -> tuple[Envelope, bytes, Envelope]:
    """Release envelope, manifest, and the envelope of the tag that points to it."""
    envelope, manifest = release(FILES)
    now = utc_now()
    tag = tag_statement(envelope.payload_digest, issued=now, expires=now + YEAR)
    return envelope, manifest, sign_envelope(tag.encode(), publisher())


def upload(registry: Registry, content: bytes) -> None:
    """Upload one blob as a client does that resumes what is there."""
    caller, digest = host_caller(), Digest.of(content)
    if not registry.resolving.missing(caller, [digest]):
        return
    state, _ = registry.uploads.open(
        caller, REPOSITORY, digest=digest, size=len(content), slice_size=limits.SHARD_BYTES
    )
    if content and 0 not in state.parts:
        writer = registry.uploads.begin_part(
            caller, REPOSITORY, state.id, number=0, length=len(content), shards=shard_digests(content)
        )
        if writer is not None:
            try:
                writer.write(content)
                writer.finish()
            finally:
                writer.close()
    assert registry.uploads.complete(caller, REPOSITORY, state.id) == digest


def publish(registry: Registry) -> None:
    """Identity, blobs, release and tag; whatever is there already is fine."""
    envelope, manifest, tag = documents()
    caller = host_caller()
    registry.identities.register(caller, REPOSITORY.namespace, publisher().identity)
    for content in (*FILES.values(), manifest):
        upload(registry, content)
    registry.publishing.commit(caller, REPOSITORY, envelope.encode())
    registry.tagging.put(caller, REPOSITORY, tag_statement(envelope.payload_digest).tag, tag.encode())


def check(registry: Registry) -> None:
    """No damage, whatever happened; files nobody refers to are allowed."""
    assert [finding for finding in check_registry(registry.catalogue, registry.blobs) if not finding.note] == []


def recover(root: Path) -> None:
    """What must hold after any fault: a fresh start finds no damage, and the same publication goes through."""
    registry = Registry.open(store_config(root), utc_now, log=log_setup())
    try:
        check(registry)
        publish(registry)
        check(registry)
        envelope, _, tag = documents()
        _, stored = registry.resolving.tag_envelope(REPOSITORY, tag_statement(envelope.payload_digest).tag)
        assert Envelope.parse(stored).payload == tag.payload
        for content in FILES.values():
            reader = registry.resolving.open_blob(host_caller(), Digest.of(content))
            assert reader.read(0, reader.size) == content
            reader.close()
    finally:
        registry.close()


__all__ = ["FILES", "Conflict", "check", "documents", "publish", "recover", "upload"]
