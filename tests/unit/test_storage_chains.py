# SPDX-License-Identifier: Apache-2.0
"""fsck on sealed releases, grants, keys and statuses: one altered row is found, and the finding names its object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from pq_registry import limits
from pq_registry.crypto.recipient import SecretRecipient
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName
from pq_registry.format.recipientfile import Kem
from pq_registry.format.status import RevocationKind
from pq_registry.service.registry import Registry
from pq_registry.storage.fsck import check_registry
from tests.logsetup import log_setup
from tests.revocations import revocation, status_statement
from tests.samples import YEAR, publisher
from tests.sealing_samples import SECRET, seal
from tests.sealing_service import CALLER, certificate, certify, commit, store
from tests.stack import store_config
from tests.stored import in_dialect

OTHER = revocation("cd" * 32, RevocationKind.RECIPIENT)


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[Registry]:
    """A sealed release with a file in slices of both sizes, a grant withdrawn and renewed, two keys, two statuses."""
    registry = Registry.open(store_config(tmp_path / "registry"), utc_now, log=log_setup())
    registry.identities.register(CALLER, SECRET.namespace, publisher().identity)
    sealed = seal()
    commit(registry, sealed)
    for content in sealed.stored.values():
        store(registry, content, limits.SHARD_BYTES, RepositoryName.parse("lab/copies"))
    node = SecretRecipient.generate(Kem.MLKEM768_X25519)
    statement = sealed.grant(node, issued=utc_now(), expires=utc_now() + YEAR)
    for wrapped in (statement.wrapped, None, statement.wrapped):
        now = replace(statement, wrapped=wrapped, expires=None)
        body = sign_envelope(now.encode(), publisher()).encode()
        digest, _ = registry.granting.put(CALLER, SECRET, sealed.release, node.public.id, body)
        statement = replace(statement, sequence=statement.sequence + 1, previous=digest)
    for issued, moved in ((utc_now() - YEAR, "old"), (utc_now(), "new")):
        certify(registry, certificate(node, issued=issued, node=moved))
    one = revocation()
    first = status_statement(one)
    for status in (first, replace(first, sequence=2, previous=Digest.of(first.encode()), revoked=(one, OTHER))):
        registry.statuses.put(CALLER, SECRET.namespace, sign_envelope(status.encode(), publisher()).encode())
    yield registry
    registry.close()


def findings(registry: Registry) -> list[str]:
    return [f"{item.subject}: {item.problem}" for item in check_registry(registry.catalogue, registry.blobs)]


def test_nothing_is_found_where_all_is_well(whole: Registry) -> None:
    with whole.catalogue.reading() as session:
        assert session.execute(text("SELECT count(*) FROM blob_slicings")).scalar_one() >= 1
    assert findings(whole) == []


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("UPDATE releases SET sealed = 0", "release "),
        ("UPDATE releases SET sealed = 0", "grant of "),
        ("UPDATE blob_slicings SET shards = zeroblob(length(shards))", "blob "),
        ("UPDATE blobs SET slice_size = 2097152 WHERE size > 2097168", "release "),
        ("UPDATE grants SET withdrawn = 1", "grant of "),
        ("UPDATE grants SET sequence = 2", "grant of "),
        ("UPDATE grants SET statement = (SELECT digest FROM statements WHERE kind = 'grant' AND sequence = 1)",
         "grant of "),
        ("UPDATE grants SET expires = 4000000000", "grant of "),
        ("UPDATE grants SET recipient = release_digest", "grant of "),
        ("DELETE FROM grants", "grant of "),
        ("UPDATE statements SET recipient = release_digest WHERE kind = 'grant' AND sequence = 2", "grant of "),
        ("UPDATE statements SET sequence = 4 WHERE kind = 'grant' AND sequence = 3", "grant of "),
        ("DELETE FROM statements WHERE kind = 'grant' AND sequence = 2", "grant of "),
        ("UPDATE keys SET node = 'mallory'", "key "),
        ("UPDATE keys SET not_after = 4000000000", "key "),
        ("UPDATE keys SET statement = (SELECT digest FROM statements WHERE kind = 'key' AND digest <> keys.statement)",
         "key "),
        ("UPDATE keys SET recipient = statement", "key "),
        ("DELETE FROM keys", "key "),
        ("UPDATE statements SET recipient = digest WHERE kind = 'key'", "key "),
        ("UPDATE namespaces SET name = 'Acme' WHERE key = 'acme'", "key "),
        ("UPDATE statements SET envelope = CAST(replace(envelope, '=', 'A') AS BLOB) WHERE kind = 'key'", "key "),
        ("UPDATE statements SET envelope = (SELECT envelope FROM statements WHERE kind = 'key')", "grant of "),
        ("UPDATE statements SET envelope = (SELECT envelope FROM statements WHERE kind = 'key')", "status of "),
        ("UPDATE statuses SET sequence = 1", "status of "),
        ("UPDATE statuses SET expires = 4000000000", "status of "),
        ("UPDATE statuses SET statement = (SELECT digest FROM statements WHERE kind = 'status' AND sequence = 1)",
         "status of "),
        ("DELETE FROM statuses", "status of "),
        ("DELETE FROM statements WHERE kind = 'status' AND sequence = 1", "status of "),
        ("UPDATE statements SET sequence = 3 WHERE kind = 'status' AND sequence = 2", "status of "),
        ("UPDATE namespaces SET name = 'Acme' WHERE key = 'acme'", "status of "),
    ],
)  # fmt: skip
def test_altered_rows(whole: Registry, change: str, subject: str) -> None:
    with whole.catalogue.writing() as session:
        assert session.execute(text(in_dialect(change))).rowcount  # type: ignore[attr-defined]
    assert any(line.startswith(subject) for line in findings(whole)), findings(whole)
