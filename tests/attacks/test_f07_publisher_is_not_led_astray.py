# SPDX-License-Identifier: Apache-2.0
"""F7 for publishers: a registry that lies about a tag's last statement gets no further signature out of a publisher.

Rolled back, a publisher would sign a sequence number twice, which readers take for equivocation; led to a sequence far
ahead (fast-forward), a publisher could never move the tag again; handed somebody else's release as their own, a
publisher would tag it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.loganswers import Logged
from pq_registry.client.published import read_release
from pq_registry.client.tagging import Publisher, move_tag
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    DigestMismatch,
    PqregError,
    SignatureInvalid,
    StatementMismatch,
    TagEquivocation,
    TagRollback,
    TrustMissing,
    UntrustedSigner,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.tag import TagStatement
from tests import samples
from tests.publishing import Registry, make_model, publisher_at, push_as, running_registry, tag_of

YEAR = timedelta(days=365)
REFERENCE = "acme/astray:v1"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class Lying:
    """A publisher's view of a registry that answers with ``envelope`` for a tag and records what is put."""

    def __init__(self, publisher: Publisher, envelope: bytes | None) -> None:
        self.put: list[bytes] = []
        self.envelope = envelope
        publisher.client.tag_envelope = lambda _name, _tag: self.envelope  # type: ignore[method-assign, assignment]
        publisher.client.put_tag = self.record  # type: ignore[method-assign, assignment]

    def record(self, _name: RepositoryName, _tag: Tag, envelope: bytes) -> Logged:
        """Take a statement."""
        self.put.append(envelope)
        return Logged(None, None, quorum=False)


@pytest.fixture
def moved(registry: Registry, tmp_path: Path) -> tuple[Publisher, list[TagStatement], Digest]:
    """A publisher who has set the tag twice."""
    publisher = publisher_at(registry, tmp_path)
    model = make_model(tmp_path / "model", str(tmp_path))
    first = push_as(publisher, model, REFERENCE)
    (model / "config.json").write_text("{}")
    push_as(publisher, model, REFERENCE)
    return publisher, registry.tag_chain(REFERENCE), first.release


def signed(statement: TagStatement, name: str = "alice") -> bytes:
    return sign_envelope(statement.encode(), samples.publisher(name)).encode()


def refused(publisher: Publisher, target: Digest, envelope: bytes | None) -> PqregError:
    """What the publisher answers to a registry that shows ``envelope``; nothing may have been signed and sent."""
    lying = Lying(publisher, envelope)
    with pytest.raises(PqregError) as caught:
        move_tag(publisher, *tag_of(REFERENCE), target, lifetime=YEAR)
    assert lying.put == []
    return caught.value


def test_f7_a_publisher_who_has_seen_more_is_not_rolled_back(moved: Any) -> None:
    publisher, chain, target = moved
    assert isinstance(refused(publisher, target, signed(chain[-2])), TagRollback)
    error = refused(publisher, target, None)
    assert isinstance(error, TagRollback)
    assert "before you sign again" in (error.hint or "")


def test_f7_a_second_statement_of_a_sequence_is_noticed(moved: Any) -> None:
    publisher, chain, target = moved
    other = replace(chain[-1], expires=chain[-1].expires + YEAR)
    assert isinstance(refused(publisher, target, signed(other)), TagEquivocation)


def test_f7_a_forged_statement_does_not_fast_forward(moved: Any) -> None:
    publisher, chain, target = moved
    far = replace(chain[-1], sequence=limits.JSON_INTEGER - 1, previous=Digest("00" * 32))
    genuine = Envelope.parse(signed(far))
    assert isinstance(refused(publisher, target, signed(far, "mallory")), TrustMissing)
    stripped = Envelope(genuine.payload, genuine.ec_signature, Envelope.parse(signed(far, "mallory")).pq_signature)
    assert isinstance(refused(publisher, target, stripped.encode()), SignatureInvalid)
    by_mallory = replace(far, signer=samples.publisher("mallory").identity.id)
    assert isinstance(refused(publisher, target, signed(by_mallory, "mallory")), TrustMissing)
    trusting = replace(publisher, trust=samples.trust_file(samples.namespace_trust(samples.publisher("alice"))))
    assert isinstance(refused(trusting, target, signed(by_mallory, "mallory")), UntrustedSigner)


def test_f7_the_statement_of_another_tag_does_not_count(moved: Any) -> None:
    publisher, chain, target = moved
    other = replace(chain[-1], repository=RepositoryName.parse("acme/other"), sequence=9, previous=target)
    assert isinstance(refused(publisher, target, signed(other)), StatementMismatch)


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff" * 100, b"[" * 100_000])
def test_f7_junk_is_refused(moved: Any, junk: bytes) -> None:
    publisher, _chain, target = moved
    refused(publisher, target, junk)


def test_f7_a_colleague_of_the_trust_file_may_have_moved_the_tag(
    registry: Registry, moved: Any, tmp_path: Path
) -> None:
    alice, chain, target = moved
    both = samples.trust_file(samples.namespace_trust(samples.publisher("alice"), samples.publisher("bob")))
    bob = publisher_at(registry, tmp_path / "bob", "bob", trust=both)
    push_as(bob, make_model(tmp_path / "bobs", "bobs"), "acme/astray:bobs")
    assert move_tag(bob, *tag_of(REFERENCE), target, lifetime=YEAR).statement.sequence == chain[-1].sequence + 1
    with pytest.raises(TrustMissing, match="another identity"):
        move_tag(alice, *tag_of(REFERENCE), chain[-1].target, lifetime=YEAR)
    again = move_tag(replace(alice, trust=both), *tag_of(REFERENCE), chain[-1].target, lifetime=YEAR)
    assert again.statement.sequence == chain[-1].sequence + 2
    only_revoker = replace(both.namespaces["acme"], publishers=(), revokers=(samples.publisher("bob").identity.id,))
    bobs = registry.tag_chain("acme/astray:bobs")[0].target
    assert bobs is not None
    with pytest.raises(UntrustedSigner):
        read_release(
            alice.client, RepositoryName.parse("acme/astray"), bobs, own=alice.signer.identity,
            trust=replace(both, namespaces={"acme": only_revoker}),
        )  # fmt: skip


def test_f7_unchanged_content_is_not_taken_from_the_registrys_word(registry: Registry, tmp_path: Path) -> None:
    """The registry claims that somebody else's release of the same files is the publisher's own."""
    model = make_model(tmp_path / "model", "claimed")
    bobs = push_as(publisher_at(registry, tmp_path / "bob", "bob"), model, "acme/claimed")
    alice = publisher_at(registry, tmp_path / "alice", "alice")
    honest = alice.client.releases_with_content

    def claimed(name: RepositoryName, content: Digest) -> tuple:
        return tuple(replace(item, signer=alice.signer.identity.id) for item in honest(name, content))

    alice.client.releases_with_content = claimed  # type: ignore[method-assign]
    result = push_as(alice, model, "acme/claimed:alice")
    assert result.minted
    assert result.release != bobs.release


def test_f7_a_release_is_read_back_by_its_digest(registry: Registry, tmp_path: Path) -> None:
    publisher = publisher_at(registry, tmp_path)
    one = push_as(publisher, make_model(tmp_path / "one", "one"), "acme/back").release
    two = push_as(publisher, make_model(tmp_path / "two", "two"), "acme/back").release
    answered = publisher.client.statement(two)
    publisher.client.statement = lambda _digest: answered  # type: ignore[method-assign, assignment]
    with pytest.raises(DigestMismatch):
        read_release(
            publisher.client, RepositoryName.parse("acme/back"), one, own=publisher.signer.identity, trust=None
        )
