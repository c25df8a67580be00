# SPDX-License-Identifier: Apache-2.0
"""What the service keeps of sealed releases: the releases, their grants, and certificates of recipients' keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    FormatError,
    GrantExpired,
    GrantMismatch,
    ManifestMismatch,
    NotFound,
    PqregError,
    RecipientUncertified,
    SequenceUsed,
    SignatureInvalid,
    StatementMismatch,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.format.recipientfile import Kem
from pq_registry.format.release import statement_of
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.service.registry import Registry
from pq_registry.storage.fsck import check_registry
from tests.logsetup import log_setup
from tests.samples import FILES, YEAR, manifest, publisher
from tests.sealing_samples import SECRET, Sealed, seal
from tests.sealing_service import ACME, CALLER, certificate, certify, commit, store
from tests.stack import store_config


@pytest.fixture(scope="module")
def sealed() -> Sealed:
    return seal()


@pytest.fixture(scope="module")
def node() -> SecretRecipient:
    return SecretRecipient.generate(Kem.MLKEM768_X25519)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    found = Registry.open(store_config(tmp_path / "registry"), utc_now, log=log_setup())
    found.identities.register(CALLER, ACME, publisher().identity)
    yield found
    assert check_registry(found.catalogue, found.blobs) == []
    found.close()


@dataclass(frozen=True)
class Granted:
    """A registry with one sealed release, and somebody to grant it to."""

    registry: Registry
    sealed: Sealed
    node: SecretRecipient

    def statement(self, **fields: Any) -> GrantStatement:
        now = utc_now()
        return replace(self.sealed.grant(self.node), **{"issued": now, "expires": now + YEAR, **fields})

    def put(self, statement: GrantStatement, by: str = "alice") -> Digest:
        return self.put_envelope(sign_envelope(statement.encode(), publisher(by)))

    def put_envelope(self, envelope: Envelope | bytes) -> Digest:
        body = envelope if isinstance(envelope, bytes) else envelope.encode()
        return self.registry.granting.put(CALLER, SECRET, self.sealed.release, self.node.public.id, body)[0]

    def current(self) -> tuple[Digest, bytes]:
        return self.registry.granting.envelope(SECRET, self.sealed.release, self.node.public.id)


@pytest.fixture
def granted(registry: Registry, sealed: Sealed, node: SecretRecipient) -> Granted:
    assert commit(registry, sealed) == sealed.release
    return Granted(registry, sealed, node)


# -- sealed releases ---------------------------------------------------------------------------------------------------


def test_listings_say_which_releases_are_sealed(registry: Registry, sealed: Sealed) -> None:
    digest = commit(registry, sealed)
    assert registry.resolving.release(SECRET, digest).sealed
    plain = manifest(FILES, name=SECRET)
    for content in FILES.values():
        store(registry, content, limits.SHARD_BYTES)
    store(registry, plain.encode(), limits.SHARD_BYTES)
    envelope = sign_envelope(statement_of(plain, plain.encode()).encode(), publisher())
    registry.publishing.commit(CALLER, SECRET, envelope.encode())
    view = registry.resolving.repository(SECRET, after=None, limit=10)
    assert [item.sealed for item in view.releases] == [False, True]


def test_stored_files_must_have_arrived_in_slices_of_a_shard_and_its_tag(registry: Registry, sealed: Sealed) -> None:
    data = sealed.manifest_bytes
    for content in (*sealed.stored.values(), data):
        store(registry, content, limits.SHARD_BYTES)
    envelope = sealed.envelope()
    with pytest.raises(Conflict, match=r"sealed/\d+ has not been uploaded"):
        registry.publishing.commit(CALLER, SECRET, envelope.encode())


def test_who_stores_bytes_first_does_not_decide_how_they_are_sliced(registry: Registry, sealed: Sealed) -> None:
    [large] = [content for content in sealed.stored.values() if len(content) > SLICE_BYTES]
    digest = Digest.of(large)
    other = RepositoryName.parse("lab/first")
    store(registry, large, limits.SHARD_BYTES, other)
    assert registry.resolving.missing(CALLER, [digest]) == []
    assert registry.resolving.missing(CALLER, [digest], slice_size=SLICE_BYTES) == [digest]
    commit(registry, sealed)
    assert registry.resolving.missing(CALLER, [digest]) == []
    assert registry.resolving.missing(CALLER, [digest], slice_size=SLICE_BYTES) == []
    plain = manifest({"copy.bin": large}, name=SECRET)
    store(registry, plain.encode(), limits.SHARD_BYTES)
    envelope = sign_envelope(statement_of(plain, plain.encode()).encode(), publisher())
    assert registry.publishing.commit(CALLER, SECRET, envelope.encode())[1]
    with pytest.raises(FormatError, match="slice size"):
        registry.resolving.missing(CALLER, [digest], slice_size=1)


def test_an_empty_file_has_no_slices_to_disagree_about(registry: Registry, sealed: Sealed) -> None:
    assert b"" in sealed.stored.values()
    store(registry, b"", limits.SHARD_BYTES)
    assert commit(registry, sealed) == sealed.release


def test_a_sealed_file_with_other_shards_is_refused(registry: Registry, sealed: Sealed) -> None:
    first, *others = sealed.manifest.files
    lying = replace(first, shards=bytes(len(first.shards)))
    with pytest.raises(ManifestMismatch):
        commit(registry, sealed, replace(sealed.manifest, files=(lying, *others)))


# -- grants ------------------------------------------------------------------------------------------------------------


def test_a_grant_comes_back_as_it_was_sent(granted: Granted) -> None:
    statement = granted.statement()
    envelope = sign_envelope(statement.encode(), publisher())
    digest = granted.put_envelope(envelope)
    assert digest == envelope.payload_digest
    assert granted.current() == (digest, envelope.encode())
    assert granted.registry.resolving.statement_envelope(CALLER, digest) == envelope.encode()
    [item], following = granted.registry.granting.list(SECRET, release=None, recipient=None, after=None, limit=10)
    assert (item.release, item.recipient, item.statement) == (granted.sealed.release, granted.node.public.id, digest)
    assert (item.sequence, item.withdrawn, item.expires) == (1, False, statement.expires)
    assert following is None


def test_the_same_payload_again_changes_nothing(granted: Granted) -> None:
    statement = granted.statement()
    first = granted.put(statement)
    _, kept = granted.current()
    assert granted.put(statement) == first  # hedged signatures: another envelope around the same payload
    assert granted.current() == (first, kept)


def test_withdrawn_and_granted_again(granted: Granted) -> None:
    first = granted.put(granted.statement())
    away = granted.put(granted.statement(sequence=2, previous=first, wrapped=None, expires=None))
    [item], _ = granted.registry.granting.list(SECRET, release=None, recipient=None, after=None, limit=10)
    assert (item.withdrawn, item.sequence, item.expires) == (True, 2, None)
    again = granted.put(granted.statement(sequence=3, previous=away, expires=None))
    [item], _ = granted.registry.granting.list(SECRET, release=None, recipient=None, after=None, limit=10)
    assert (item.withdrawn, item.sequence, item.statement) == (False, 3, again)


def test_the_chain_must_not_fork(granted: Granted) -> None:
    first = granted.put(granted.statement())
    for sequence, previous in ((1, None), (2, granted.sealed.release), (3, first)):
        with pytest.raises(SequenceUsed):
            granted.put(granted.statement(sequence=sequence, previous=previous, expires=None))
    assert granted.current()[0] == first


def test_an_earlier_statement_sent_again_does_not_come_back_into_force(granted: Granted) -> None:
    statement = granted.statement()
    first = granted.put(statement)
    away = granted.put(granted.statement(sequence=2, previous=first, wrapped=None, expires=None))
    assert granted.put(statement) == first
    assert granted.current()[0] == away


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"sequence": 2, "previous": Digest("0" * 64)}, SequenceUsed),
        ({"sequence": 2, "previous": Digest("0" * 64), "wrapped": None, "expires": None}, SequenceUsed),
        ({"issued": utc_now() - YEAR, "expires": utc_now() - timedelta(seconds=1)}, GrantExpired),
        ({"issued": utc_now() + timedelta(hours=1)}, Conflict),
        ({"repository": RepositoryName.parse("acme/other")}, GrantMismatch),
        ({"repository": RepositoryName.parse("acme/Secret")}, GrantMismatch),
        ({"release": Digest("0" * 64)}, GrantMismatch),
        ({"recipient": "0" * 64}, GrantMismatch),
        ({"signer": "0" * 64}, AccessDenied),
    ],
    ids=["sequence", "withdrawal", "expired", "future", "repository", "spelling", "release", "recipient", "signer"],
)
def test_refused_grants(granted: Granted, fields: dict[str, object], error: type[PqregError]) -> None:
    with pytest.raises(error):
        granted.put(granted.statement(**fields))
    with pytest.raises(NotFound):
        granted.current()


def test_a_grant_by_someone_else(granted: Granted) -> None:
    with pytest.raises(AccessDenied):
        granted.put(granted.statement(), "mallory")
    granted.registry.identities.register(CALLER, ACME, publisher("mallory").identity)
    with pytest.raises(AccessDenied, match="another signer"):
        granted.put(granted.statement(), "mallory")
    granted.put(granted.statement(signer=publisher("mallory").identity.id), "mallory")


def test_a_grant_with_half_a_signature(granted: Granted) -> None:
    genuine = sign_envelope(granted.statement().encode(), publisher())
    other = sign_envelope(genuine.payload, publisher("mallory"))
    with pytest.raises(SignatureInvalid):
        granted.put_envelope(replace(genuine, pq_signature=other.pq_signature))
    with pytest.raises(SignatureInvalid):
        granted.put_envelope(replace(genuine, ec_signature=other.ec_signature))


def test_only_sealed_releases_are_granted(granted: Granted) -> None:
    plain = manifest(FILES, name=SECRET)
    for content in (*FILES.values(), plain.encode()):
        store(granted.registry, content, limits.SHARD_BYTES)
    envelope = sign_envelope(statement_of(plain, plain.encode()).encode(), publisher())
    digest, _ = granted.registry.publishing.commit(CALLER, SECRET, envelope.encode())
    recipient = granted.node.public.id

    def put(release: Digest) -> None:
        body = sign_envelope(granted.statement(release=release).encode(), publisher()).encode()
        granted.registry.granting.put(CALLER, SECRET, release, recipient, body)

    with pytest.raises(Conflict, match="not sealed"):
        put(digest)
    with pytest.raises(NotFound, match="no release"):
        put(Digest("0" * 64))


def test_a_release_of_another_repository_cannot_be_granted_here(granted: Granted) -> None:
    other = RepositoryName.parse("acme/other")
    elsewhere = seal(name=other)
    commit(granted.registry, elsewhere)
    statement = replace(elsewhere.grant(granted.node), repository=SECRET, issued=utc_now(), expires=None)
    body = sign_envelope(statement.encode(), publisher()).encode()
    with pytest.raises(NotFound, match="no release"):
        granted.registry.granting.put(CALLER, SECRET, elsewhere.release, granted.node.public.id, body)


def test_grants_are_listed_in_pages(granted: Granted) -> None:
    other = seal(release_id="5f" * 16)
    commit(granted.registry, other)
    nodes = [SecretRecipient.generate(Kem.MLKEM768_X25519) for _ in range(3)]
    expected = []
    for release in (granted.sealed, other):
        for node in nodes:
            statement = release.grant(node, issued=utc_now(), expires=None)
            body = sign_envelope(statement.encode(), publisher()).encode()
            granted.registry.granting.put(CALLER, SECRET, release.release, node.public.id, body)
            expected.append((release.release.hex, node.public.id))
    found: list[tuple[str, str]] = []
    after: str | None = None
    while True:
        items, after = granted.registry.granting.list(SECRET, release=None, recipient=None, after=after, limit=2)
        found += [(item.release.hex, item.recipient) for item in items]
        if after is None:
            break
    assert found == sorted(expected)
    of_one, _ = granted.registry.granting.list(
        SECRET, release=other.release, recipient=nodes[1].public.id, after=None, limit=10
    )
    assert [(item.release, item.recipient) for item in of_one] == [(other.release, nodes[1].public.id)]
    for wrong in ("x", "0" * 64, f"{'0' * 64}.x"):
        with pytest.raises(PqregError):
            granted.registry.granting.list(SECRET, release=None, recipient=None, after=wrong, limit=2)


# -- key statements ----------------------------------------------------------------------------------------------------


def listed(registry: Registry) -> list[tuple[str, str, datetime | None]]:
    items, following = registry.keys.list(ACME, after=None, limit=100)
    assert following is None
    return [(item.recipient, item.node, item.not_after) for item in items]


def test_a_key_statement_comes_back_as_it_was_sent(registry: Registry, node: SecretRecipient) -> None:
    envelope = sign_envelope(certificate(node).encode(), publisher())
    assert registry.keys.put(CALLER, ACME, node.public.id, envelope.encode()) == (envelope.payload_digest, True)
    assert registry.keys.put(CALLER, ACME, node.public.id, envelope.encode()) == (envelope.payload_digest, False)
    assert registry.keys.envelope(ACME, node.public.id) == (envelope.payload_digest, envelope.encode())
    assert registry.resolving.statement_envelope(CALLER, envelope.payload_digest) == envelope.encode()
    assert listed(registry) == [(node.public.id, "node1.example", None)]
    assert registry.keys.list(Namespace("lab"), after=None, limit=10) == ([], None)
    for namespace in ("lab", "ACME"):
        with pytest.raises(NotFound):
            registry.keys.envelope(Namespace(namespace), node.public.id)


def test_a_newer_key_statement_takes_the_place_of_an_older(registry: Registry, node: SecretRecipient) -> None:
    now = utc_now()
    old = certificate(node, issued=now - timedelta(days=2))
    certify(registry, old)
    certify(registry, certificate(node, issued=now, not_after=now + YEAR, node="moved"))
    assert listed(registry) == [(node.public.id, "moved", now + YEAR)]
    certify(registry, old)  # recorded already: fine, and without effect
    with pytest.raises(Conflict, match="newer"):
        certify(registry, certificate(node, issued=now - timedelta(days=1)))
    assert listed(registry) == [(node.public.id, "moved", now + YEAR)]


@pytest.mark.parametrize(
    ("fields", "where", "error"),
    [
        ({"issued": utc_now() + timedelta(hours=1)}, {}, Conflict),
        ({"issued": utc_now() - YEAR, "not_after": utc_now() - timedelta(seconds=1)}, {}, RecipientUncertified),
        ({"namespace": Namespace("lab")}, {}, StatementMismatch),
        ({"namespace": Namespace("Acme")}, {}, StatementMismatch),
        ({}, {"recipient": "0" * 64}, StatementMismatch),
        ({"signer": "0" * 64}, {}, AccessDenied),
        ({}, {"namespace": Namespace("lab")}, AccessDenied),
        ({"public_key": bytes(1184) + bytes([0] * 32)}, {}, FormatError),
    ],
    ids=["future", "lapsed", "namespace", "spelling", "recipient", "signer", "elsewhere", "no key"],
)
def test_refused_key_statements(
    registry: Registry,
    node: SecretRecipient,
    fields: dict[str, object],
    where: dict[str, object],
    error: type[PqregError],
) -> None:
    with pytest.raises(error):
        certify(registry, certificate(node, **fields), **where)
    assert listed(registry) == []


def test_keys_are_listed_in_pages(registry: Registry) -> None:
    nodes = [SecretRecipient.generate(Kem.MLKEM768_X25519) for _ in range(5)]
    for one in nodes:
        certify(registry, certificate(one))
    found: list[str] = []
    after: str | None = None
    while True:
        items, after = registry.keys.list(ACME, after=after, limit=2)
        found += [item.recipient for item in items]
        if after is None:
            break
    assert found == sorted(one.public.id for one in nodes)
