# SPDX-License-Identifier: Apache-2.0
"""What the service refuses to commit: releases and tags that are not what they should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    FormatError,
    ManifestMismatch,
    NameMismatch,
    NotFound,
    PqregError,
    SequenceUsed,
    SignatureInvalid,
    TagExpired,
    TensorTableMismatch,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.release import statement_of
from pq_registry.service.access import Caller, Rights, Role
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.fsck import check_registry
from tests.faults.publishing import upload
from tests.logsetup import log_setup
from tests.samples import FILES, NOW, REPOSITORY, YEAR, manifest, publisher, release, tag_statement
from tests.stack import store_config
from tests.tensors import safetensors_bytes

CALLER = host_caller()
TENSORS = {"model.safetensors": safetensors_bytes({"a": ("F32", (2, 2)), "b": ("I8", (3,))}, seed=1)[0]}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    found = Registry.open(store_config(tmp_path / "registry"), utc_now, log=log_setup())
    found.identities.register(CALLER, REPOSITORY.namespace, publisher().identity)
    yield found
    assert check_registry(found.catalogue, found.blobs) == []
    found.close()


def uploaded(registry: Registry, made: Manifest, *contents: bytes) -> Envelope:
    """Upload everything and sign the manifest as it is."""
    data = made.encode()
    for content in (*contents, data):
        upload(registry, content)
    return sign_envelope(statement_of(made, data).encode(), publisher())


def refused(registry: Registry, envelope: Envelope | bytes, error: type[PqregError]) -> None:
    body = envelope if isinstance(envelope, bytes) else envelope.encode()
    with pytest.raises(error):
        registry.publishing.commit(CALLER, REPOSITORY, body)
    with pytest.raises(NotFound):
        registry.resolving.repository(REPOSITORY, after=None, limit=10)


def test_a_release_with_tensors_is_committed(registry: Registry) -> None:
    envelope = uploaded(registry, manifest(TENSORS), *TENSORS.values())
    assert registry.publishing.commit(CALLER, REPOSITORY, envelope.encode()) == (envelope.payload_digest, True)
    assert registry.publishing.commit(CALLER, REPOSITORY, envelope.encode()) == (envelope.payload_digest, False)


@pytest.mark.parametrize("absent", [*FILES, "pqreg.json"])
def test_every_file_must_have_been_uploaded(registry: Registry, absent: str) -> None:
    envelope, data = release()
    for name, content in {**FILES, "pqreg.json": data}.items():
        if name != absent:
            upload(registry, content)
    refused(registry, envelope, Conflict)
    upload(registry, {**FILES, "pqreg.json": data}[absent])
    assert registry.publishing.commit(CALLER, REPOSITORY, envelope.encode())[1]


def test_a_blob_of_a_repository_the_caller_may_not_read_is_not_there(registry: Registry) -> None:
    _, data = release()
    for content in (*FILES.values(), data):
        upload(registry, content)
    rights = Rights(role=Role.OWNER, namespaces=frozenset({"lab"}))
    stranger = Caller(token_id="", rights=rights, expires=None, public_read=False, request_id="x")
    lab = RepositoryName.parse("lab/minilm")
    registry.identities.register(stranger, lab.namespace, publisher().identity)
    made, _ = release(name=lab)
    with pytest.raises(Conflict, match="has not been uploaded"):
        registry.publishing.commit(stranger, lab, made.encode())


def test_the_signer_must_be_registered(registry: Registry) -> None:
    made = replace(manifest(), signer=publisher("mallory").identity.id)
    data = made.encode()
    for content in (*FILES.values(), data):
        upload(registry, content)
    envelope = sign_envelope(statement_of(made, data).encode(), publisher("mallory"))
    refused(registry, envelope, AccessDenied)
    registry.identities.register(CALLER, Namespace("lab"), publisher("mallory").identity)
    refused(registry, envelope, AccessDenied)


def test_someone_elses_signature(registry: Registry) -> None:
    envelope = uploaded(registry, manifest(), *FILES.values())
    mallory = sign_envelope(envelope.payload, publisher("mallory"))
    refused(registry, mallory, AccessDenied)
    refused(registry, replace(envelope, pq_signature=mallory.pq_signature), SignatureInvalid)
    refused(registry, replace(envelope, ec_signature=mallory.ec_signature), SignatureInvalid)
    refused(registry, replace(envelope, ec_signature=envelope.pq_signature), SignatureInvalid)


def test_a_stripped_half(registry: Registry) -> None:
    body = uploaded(registry, manifest(), *FILES.values()).encode()
    start = body.index(b',{"keyid"')
    refused(registry, body[:start] + b"]}", SignatureInvalid)


def test_another_repositorys_release(registry: Registry) -> None:
    envelope = uploaded(registry, replace(manifest(), name=RepositoryName.parse("acme/other")), *FILES.values())
    refused(registry, envelope, PqregError)
    envelope = uploaded(registry, replace(manifest(), name=RepositoryName.parse("lab/minilm")), *FILES.values())
    refused(registry, envelope, NameMismatch)


def test_shards_that_are_not_those_on_arrival(registry: Registry) -> None:
    made = manifest()
    entry = next(entry for entry in made.files if entry.size)
    lying = replace(entry, shards=bytes(32))
    made = replace(made, files=tuple(lying if item is entry else item for item in made.files))
    refused(registry, uploaded(registry, made, *FILES.values()), ManifestMismatch)


def test_a_tensor_table_that_is_not_the_files(registry: Registry) -> None:
    made = manifest(TENSORS)
    [entry] = made.files
    assert entry.tensors is not None
    [first, *rest] = entry.tensors.tensors
    lying = replace(entry, tensors=replace(entry.tensors, tensors=(replace(first, name="z"), *rest)))
    refused(registry, uploaded(registry, replace(made, files=(lying,)), *TENSORS.values()), TensorTableMismatch)


def test_a_safetensors_file_that_is_none(registry: Registry) -> None:
    made = manifest(TENSORS)
    [entry] = made.files
    junk = b"\x80\x04" + bytes(entry.size - 2)
    from pq_registry.crypto.shards import shard_digests

    lying = replace(entry, sha256=Digest.of(junk), shards=shard_digests(junk))
    refused(registry, uploaded(registry, replace(made, files=(lying,)), junk), FormatError)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"\xff", b'{"payload":"","payloadType":"x","signatures":[]}']
)
def test_junk(registry: Registry, body: bytes) -> None:
    refused(registry, body, PqregError)


# -- tags ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def committed(registry: Registry) -> Digest:
    envelope = uploaded(registry, manifest(), *FILES.values())
    return registry.publishing.commit(CALLER, REPOSITORY, envelope.encode())[0]


def put(registry: Registry, digest: Digest | None, by: str = "alice", /, **fields: object) -> Digest:
    now = utc_now()
    statement = tag_statement(digest, **{
        "issued": now, "expires": now + YEAR, "signer": publisher(by).identity.id, **fields})  # fmt: skip
    envelope = sign_envelope(statement.encode(), publisher(by))
    return registry.tagging.put(CALLER, REPOSITORY, tag_statement(digest or Digest("0" * 64)).tag, envelope.encode())[0]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"sequence": 2, "previous": Digest("0" * 64)}, SequenceUsed),
        ({"issued": NOW - YEAR, "expires": NOW - timedelta(seconds=1)}, TagExpired),
        ({"issued": utc_now() + timedelta(hours=1)}, Conflict),
        ({"repository": RepositoryName.parse("acme/other")}, NameMismatch),
        ({"repository": RepositoryName.parse("acme/MiniLM")}, NameMismatch),
        ({"signer": "0" * 64}, AccessDenied),
    ],
    ids=["sequence", "expired", "future", "repository", "spelling", "signer"],
)
def test_refused_tags(
    registry: Registry, committed: Digest, fields: dict[str, object], error: type[PqregError]
) -> None:
    with pytest.raises(error):
        put(registry, committed, **fields)
    assert registry.resolving.repository(REPOSITORY, after=None, limit=1).tags == []


def test_a_tag_to_a_release_of_another_repository(registry: Registry, committed: Digest) -> None:
    with pytest.raises(Conflict, match="not a release of acme/minilm"):
        put(registry, Digest("0" * 64))


def test_a_tag_by_someone_else(registry: Registry, committed: Digest) -> None:
    with pytest.raises(AccessDenied):
        put(registry, committed, "mallory")
    registry.identities.register(CALLER, REPOSITORY.namespace, publisher("mallory").identity)
    with pytest.raises((AccessDenied, SignatureInvalid)):
        put(registry, committed, "mallory", signer=publisher().identity.id)
    put(registry, committed, "mallory")


def test_the_chain_must_not_fork(registry: Registry, committed: Digest) -> None:
    first = put(registry, committed)
    for sequence, previous in ((1, None), (2, committed), (3, first)):
        with pytest.raises(SequenceUsed):
            put(registry, committed, sequence=sequence, previous=previous, expires=utc_now() + 2 * YEAR)
    second = put(registry, None, sequence=2, previous=first)
    assert put(registry, committed, sequence=3, previous=second) != second


def test_a_tag_before_any_release(registry: Registry) -> None:
    with pytest.raises(NotFound):
        put(registry, Digest("0" * 64))


def test_identities(registry: Registry) -> None:
    from pq_registry.crypto.identity import PublicIdentity

    alice, bob = publisher().identity, publisher("bob").identity
    assert not registry.identities.register(CALLER, Namespace("acme"), alice)
    assert registry.identities.register(CALLER, Namespace("lab"), alice)
    chimera = PublicIdentity.from_spki(bob.ec_spki, alice.pq_spki)
    with pytest.raises(Conflict, match="half"):
        registry.identities.register(CALLER, Namespace("lab"), chimera)
    with pytest.raises(Conflict, match="spelling"):
        registry.identities.register(CALLER, Namespace("ACME"), bob)
    assert [item.id for item in registry.identities.list(Namespace("lab"))] == [alice.id]
    assert registry.identities.list(Namespace("ACME")) == []
