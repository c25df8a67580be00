# SPDX-License-Identifier: Apache-2.0
"""Step 5 of the verifier: what a status statement revokes, for whom, and how new it must be."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from pq_registry.client.status import SeenStatus
from pq_registry.client.trust import VerifiedRelease, Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    IdentityLapsed,
    ReceiptMissing,
    Revoked,
    StatementMismatch,
    StatusEquivocation,
    StatusExpired,
    StatusRollback,
    StatusUnavailable,
    UntrustedSigner,
)
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace, Reference
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustFile
from tests import samples
from tests.logged_site import ACME, REVOKER, SECOND, acme, next_status, sign_status, status_statement
from tests.logsamples import MemoryLog
from tests.samples import NOW, REPOSITORY, YEAR, publisher, trust_file, trusted
from tests.sealing_site import recipient
from tests.unit.test_trust import refused

ALICE = publisher().identity.id
ENVELOPE, MANIFEST = samples.release()
DIGEST = ENVELOPE.payload_digest
OTHER = Digest("ab" * 32)
SOON = NOW + timedelta(days=1)


def identity_revoked(since: datetime) -> Revocation:
    return Revocation(RevocationKind.IDENTITY, ALICE, since)


class Node:
    """A node whose trust file names a revoker, and a log with or without a witness."""

    def __init__(self, *, witnesses: int = 1, entry: NamespaceTrust | None = None, **fields: Any) -> None:
        self.log = MemoryLog(witnesses=witnesses)
        self.entry = entry or acme()
        self.fields = fields

    @property
    def trust(self) -> TrustFile:
        return trust_file(self.entry, **{"log": self.log.policies(), **self.fields})

    def verifier(
        self, *statuses: StatusStatement, now: datetime = NOW, online: bool = True, seen: SeenStatus | None = None
    ) -> Verifier:
        judge = Verifier(self.trust.encode(), now, online=online)
        for statement in statuses:
            envelope = sign_status(statement)
            judge.status(envelope.encode(), ACME, seen, receipt=self.receipt(envelope, Kind.STATUS, "acme", REVOKER))
        return judge

    def receipt(self, envelope: Envelope, kind: Kind, name: str, signer: str = "alice") -> bytes:
        return self.log.log(envelope, kind=kind, name=name, identity=publisher(signer).identity.id)

    def release(self, judge: Verifier) -> VerifiedRelease:
        receipt = self.receipt(ENVELOPE, Kind.RELEASE, str(REPOSITORY))
        return judge.release(ENVELOPE.encode(), MANIFEST, expected_name=None, expected_digest=None, receipt=receipt)


def seen(statement: StatusStatement) -> SeenStatus:
    return SeenStatus.of(sign_status(statement).encode(), None)


def test_nothing_revoked_is_said_with_how_long_that_is_news() -> None:
    found = Node().release(Node().verifier(status_statement()))
    assert found.notes[1] == "revocation: checked against status 1 of acme, good until 2026-12-21T12:00:00Z"
    assert not found.unchecked
    assert found.status is not None
    assert found.status.statement == status_statement()


# -- revoked identities: from, T and the clock -------------------------------------------------------------------------
@pytest.mark.parametrize(("since", "valid"), [(-1, False), (0, False), (1, True)])
def test_an_identity_is_revoked_for_what_was_signed_from_then_on(since: int, valid: bool) -> None:
    node = Node()
    judge = node.verifier(status_statement(identity_revoked(NOW + since * SECOND)), now=SOON)
    if valid:
        node.release(judge)
    else:
        with refused(Revoked, 5) as caught:
            node.release(judge)
        assert "as its log attests" in (caught.value.found or "")


@pytest.mark.parametrize("exempt", [False, True])
@pytest.mark.parametrize(("offset", "valid"), [(-1, True), (0, False), (1, False)])
def test_without_t_a_revoked_identity_is_refused_once_the_time_has_come(exempt: bool, offset: int, valid: bool) -> None:
    node = Node(witnesses=0, log="exempt") if exempt else Node(witnesses=0)
    judge = node.verifier(status_statement(identity_revoked(SOON)), now=SOON + offset * SECOND)
    if valid:
        node.release(judge)
    else:
        with refused(Revoked, 5):
            node.release(judge)


def test_a_pin_stands_in_for_a_missing_t_and_for_nothing_else() -> None:
    pinned = replace(acme(), pinned=frozenset({DIGEST}))
    early = status_statement(identity_revoked(NOW - YEAR))
    without = Node(witnesses=0, entry=pinned)
    without.release(without.verifier(early))
    attested = Node(entry=pinned)
    with refused(Revoked, 5):  # it was signed after the revocation, as a witness attests
        attested.release(attested.verifier(early))
    release = status_statement(Revocation(RevocationKind.RELEASE, str(DIGEST), NOW))
    with refused(Revoked, 5):
        without.release(without.verifier(release))


def test_other_identities_go_on() -> None:
    node = Node()
    stranger = Revocation(RevocationKind.IDENTITY, publisher("bob").identity.id, NOW - YEAR)
    node.release(node.verifier(status_statement(stranger)))


def test_a_tag_by_a_revoked_identity() -> None:
    node = Node()
    judge = node.verifier(status_statement(identity_revoked(NOW)))
    tag = sign_envelope(samples.tag_statement(DIGEST).encode(), publisher())
    with refused(Revoked, 5):
        judge.tag(
            tag.encode(), Reference.parse("acme/minilm:v1"), None, receipt=node.receipt(tag, Kind.TAG, "acme/minilm")
        )


# -- releases, recipients, grants: whatever T --------------------------------------------------------------------------
@pytest.mark.parametrize("since", [NOW - YEAR, NOW + YEAR])
def test_a_revoked_release_is_refused_whenever_it_was_signed(since: datetime) -> None:
    node = Node()
    with refused(Revoked, 5):
        node.release(node.verifier(status_statement(Revocation(RevocationKind.RELEASE, str(DIGEST), since))))
    node.release(node.verifier(status_statement(Revocation(RevocationKind.RELEASE, str(OTHER), since))))


@pytest.mark.parametrize("what", ["recipient", "grant", "release", "identity", None])
def test_a_grant_is_refused_for_each_thing_it_names(what: str | None) -> None:
    public = recipient().public
    grant = sign_envelope(
        GrantStatement(
            repository=REPOSITORY, release=DIGEST, signer=ALICE, recipient=public.id, sequence=1, previous=None,
            wrapped=bytes(public.kem.wrapped_bytes), issued=NOW, expires=None,
        ).encode(),
        publisher(),
    )  # fmt: skip
    subjects = {
        "recipient": public.id, "grant": str(grant.payload_digest), "release": str(DIGEST), "identity": ALICE,
    }  # fmt: skip
    node = Node()
    revoked = () if what is None else (Revocation(RevocationKind(what), subjects[what], NOW),)
    judge = node.verifier(status_statement(*revoked))
    receipt = node.receipt(grant, Kind.GRANT, str(REPOSITORY))
    if what is None:
        judge.grant(grant.encode(), receipt=receipt)
    else:
        with refused(Revoked, 5):
            judge.grant(grant.encode(), receipt=receipt)


# -- how new it must be ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("online", "status"), [(True, "warn"), (True, "require"), (False, "require")])
def test_none_is_a_refusal_online_and_where_it_is_required(online: bool, status: str) -> None:
    node = Node(offline_status=status)
    with refused(StatusUnavailable, 5) as caught:
        node.release(node.verifier(online=online))
    assert "pqreg" in (caught.value.hint or "")


def test_offline_none_is_said_if_that_will_do() -> None:
    node = Node()
    found = node.release(node.verifier(online=False))
    assert found.unchecked == ("revocation: not checked, there is no status statement for acme",)


@pytest.mark.parametrize(("offset", "valid"), [(-1, True), (0, False), (1, False)])
@pytest.mark.parametrize(("online", "status"), [(True, "warn"), (False, "require")])
def test_an_expired_one_counts_as_news_no_longer(online: bool, status: str, offset: int, valid: bool) -> None:
    node = Node(offline_status=status)
    statement = status_statement()
    now = statement.expires + offset * SECOND
    if valid:
        node.release(node.verifier(statement, now=now, online=online))
    else:
        with refused(StatusExpired, 5):
            node.verifier(statement, now=now, online=online)


def test_offline_an_expired_one_still_revokes_and_the_rest_is_said() -> None:
    node = Node()
    late = NOW + timedelta(days=60)
    found = node.release(node.verifier(status_statement(), now=late, online=False))
    assert "which expired on 2026-12-21T12:00:00Z" in found.unchecked[0]
    with refused(Revoked, 5):
        node.release(
            node.verifier(
                status_statement(Revocation(RevocationKind.RELEASE, str(DIGEST), NOW)), now=late, online=False
            )
        )


def test_grace_is_for_those_who_are_offline() -> None:
    node = Node(grace_days=7, offline_status="require")
    end = status_statement().expires + timedelta(days=7)
    node.release(node.verifier(status_statement(), now=end - SECOND, online=False))
    with refused(StatusExpired, 5):
        node.verifier(status_statement(), now=end, online=False)
    with refused(StatusExpired, 5):
        node.verifier(status_statement(), now=end - SECOND, online=True)


@pytest.mark.parametrize(("ahead", "valid"), [(300, True), (301, False)])
def test_it_does_not_come_from_the_future(ahead: int, valid: bool) -> None:
    statement = status_statement(issued=NOW + ahead * SECOND)
    if valid:
        Node().verifier(statement)
    else:
        with refused(StatementMismatch, 3):
            Node().verifier(statement)


# -- its own signature, receipt and succession -------------------------------------------------------------------------
def test_only_revokers_issue_it_and_only_for_their_namespace() -> None:
    node = Node()
    judge = node.verifier()
    forged = sign_status(status_statement(signer=ALICE), "alice")
    with refused(UntrustedSigner, 2):
        judge.status(forged.encode(), ACME, None, receipt=node.receipt(forged, Kind.STATUS, "acme"))
    genuine = sign_status(status_statement())
    receipt = node.receipt(genuine, Kind.STATUS, "acme", REVOKER)
    with refused(StatementMismatch, 3):
        judge.status(genuine.encode(), Namespace("rival"), None, receipt=receipt)
    with refused(ReceiptMissing, 4):
        judge.status(genuine.encode(), ACME, None)
    assert judge.adopted(ACME) is None
    judge.status(genuine.encode(), None, None, receipt=receipt)
    assert judge.adopted(ACME) is not None


def test_a_revoker_that_lapsed_before_t() -> None:
    entry = acme()
    lapsed = trusted(publisher(REVOKER), None, NOW)
    entry = replace(entry, identities=(*entry.identities[:-1], lapsed))
    with refused(IdentityLapsed, 4):
        Node(entry=entry).verifier(status_statement())


def test_older_and_second_statements_are_refused() -> None:
    first = status_statement()
    second = next_status(first)
    with refused(StatusRollback, 5):
        Node().verifier(first, seen=seen(second))
    with refused(StatusEquivocation, 5):
        Node().verifier(next_status(first, expires=NOW + timedelta(days=5)), seen=seen(second))
    Node().verifier(second, seen=seen(second))
    Node().verifier(second, seen=seen(first))


@pytest.mark.parametrize(
    ("entries", "valid"),
    [
        ([], False),
        ([identity_revoked(NOW + SECOND)], False),  # later than before: some of it is taken back
        ([identity_revoked(NOW)], True),
        ([identity_revoked(NOW - SECOND)], True),
        ([identity_revoked(NOW), Revocation(RevocationKind.RELEASE, str(OTHER), NOW)], True),
    ],
)
def test_the_list_only_grows(entries: list[Revocation], valid: bool) -> None:
    first = status_statement(identity_revoked(NOW))
    following = next_status(first, *entries)
    if valid:
        Node().verifier(following, seen=seen(first))
    else:
        with refused(StatusRollback, 5):
            Node().verifier(following, seen=seen(first))


def test_a_revoked_revoker_issues_nothing_more() -> None:
    stolen = Revocation(RevocationKind.IDENTITY, publisher(REVOKER).identity.id, NOW)
    first = status_statement(stolen)
    Node().verifier(first, seen=seen(first))
    with refused(Revoked, 5):
        Node().verifier(next_status(first, stolen), seen=seen(first))


def test_of_two_the_newer_one_counts_in_whatever_order_they_come() -> None:
    first = status_statement()
    second = next_status(first, Revocation(RevocationKind.RELEASE, str(DIGEST), NOW))
    for order in ((first, second), (second, first)):
        node = Node()
        with refused(Revoked, 5):
            node.release(node.verifier(*order, online=False))
    with refused(StatusEquivocation, 5):
        Node().verifier(second, next_status(first), online=False)


def test_without_a_revoker_the_step_is_skipped_and_that_is_said() -> None:
    node = Node(entry=acme(revoker=False))
    found = node.release(node.verifier())
    assert found.unchecked == ("revocation: not checked, the trust file names no revoker for acme",)
