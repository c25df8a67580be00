# SPDX-License-Identifier: Apache-2.0
"""A11, windows that disagree (TOB-PYPI26-1): every validity window is half open and judged by the same rule.

``not_before <= t < not_after`` and expired means ``t >= expires``, for the trust file, for an identity and for a tag,
tried one second before, at and after the boundary with an injected clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pq_registry import limits
from pq_registry.client.trust import Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import IdentityLapsed, StatementMismatch, TagExpired, TrustExpired
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import in_window, is_expired
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace, Reference
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile
from pqreg_keys import custody
from tests.sealing_site import recipient

ALICE = custody.generate()
T = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
FAR = timedelta(days=1000)
SECOND = timedelta(seconds=1)
REFERENCE = Reference.parse("acme/model:v1")
assert REFERENCE.tag is not None


def trust_bytes(
    *,
    expires: datetime = T + FAR,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    grace_days: int = 0,
) -> bytes:
    trusted = TrustedIdentity(ALICE.identity.id, ALICE.identity.to_pem().decode(), not_before, not_after)
    entry = NamespaceTrust(Namespace("acme"), (trusted,), (trusted.id,), 5)
    return TrustFile(
        version=1, created=T - FAR, expires=expires, namespaces={"acme": entry}, grace_days=grace_days
    ).encode()


def tag_bytes(*, issued: datetime = T - FAR, expires: datetime = T + FAR) -> bytes:
    assert REFERENCE.tag is not None
    statement = TagStatement(
        repository=REFERENCE.repository,
        tag=REFERENCE.tag,
        signer=ALICE.identity.id,
        sequence=1,
        previous=None,
        target=Digest.of(b"release"),
        issued=issued,
        expires=expires,
    )
    return sign_envelope(statement.encode(), ALICE).encode()


FOREVER = tag_bytes()


def accept(trust: bytes, tag: bytes, now: datetime, *, online: bool = True) -> None:
    Verifier(trust, now, online=online).tag(tag, REFERENCE, None)


def test_a11_inside_all_windows_it_is_accepted() -> None:
    accept(trust_bytes(not_before=T - FAR, not_after=T + FAR), FOREVER, T)


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, False), (1, False)])
def test_a11_the_trust_file_expires_at_its_instant(offset: int, good: bool) -> None:
    trust, now = trust_bytes(expires=T), T + offset * SECOND
    if good:
        accept(trust, FOREVER, now)
    else:
        with pytest.raises(TrustExpired) as caught:
            accept(trust, FOREVER, now)
        assert caught.value.step == 0


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, False), (1, False)])
def test_a11_a_tag_expires_at_its_instant(offset: int, good: bool) -> None:
    tag, now = tag_bytes(expires=T), T + offset * SECOND
    if good:
        accept(trust_bytes(), tag, now)
    else:
        with pytest.raises(TagExpired) as caught:
            accept(trust_bytes(), tag, now)
        assert caught.value.step == 1


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, False), (1, False)])
def test_a11_an_identity_ends_at_its_instant(offset: int, good: bool) -> None:
    trust, now = trust_bytes(not_after=T), T + offset * SECOND
    if good:
        accept(trust, FOREVER, now)
    else:
        with pytest.raises(IdentityLapsed) as caught:
            accept(trust, FOREVER, now)
        assert caught.value.step == 4


@pytest.mark.parametrize(("offset", "good"), [(-1, False), (0, True), (1, True)])
def test_a11_an_identity_begins_at_its_instant(offset: int, good: bool) -> None:
    trust, now = trust_bytes(not_before=T), T + offset * SECOND
    if good:
        accept(trust, FOREVER, now)
    else:
        with pytest.raises(IdentityLapsed):
            accept(trust, FOREVER, now)


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_a11_the_three_windows_never_disagree(offset: int) -> None:
    """All end at T: either every one of them still holds, or none does."""
    now = T + offset * SECOND
    cases = (
        (trust_bytes(expires=T), FOREVER, TrustExpired),
        (trust_bytes(), tag_bytes(expires=T), TagExpired),
        (trust_bytes(not_after=T), FOREVER, IdentityLapsed),
    )
    held = []
    for trust, tag, refusal in cases:
        try:
            accept(trust, tag, now)
            held.append(True)
        except refusal:
            held.append(False)
    assert held == [offset < 0] * 3


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, False), (1, False)])
def test_a11_grace_moves_trust_file_and_tag_by_the_same_and_only_offline(offset: int, good: bool) -> None:
    now = T + timedelta(days=3) + offset * SECOND
    cases = (
        (trust_bytes(expires=T, grace_days=3), FOREVER, TrustExpired),
        (trust_bytes(grace_days=3), tag_bytes(expires=T), TagExpired),
    )
    for trust, tag, refusal in cases:
        if good:
            accept(trust, tag, now, online=False)
        else:
            with pytest.raises(refusal):
                accept(trust, tag, now, online=False)
        with pytest.raises(refusal):
            accept(trust, tag, now, online=True)


@pytest.mark.parametrize("online", [True, False])
def test_a11_grace_does_not_prolong_an_identity(online: bool) -> None:
    with pytest.raises(IdentityLapsed):
        accept(trust_bytes(not_after=T, grace_days=3), FOREVER, T, online=online)


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, True), (1, False)])
def test_a11_a_tag_from_the_future_has_one_tolerance(offset: int, good: bool) -> None:
    issued = T + timedelta(seconds=limits.CLOCK_SKEW_SECONDS + offset)
    if good:
        accept(trust_bytes(), tag_bytes(issued=issued), T)
    else:
        with pytest.raises(StatementMismatch):
            accept(trust_bytes(), tag_bytes(issued=issued), T)


@pytest.mark.parametrize(("offset", "good"), [(-1, True), (0, True), (1, False)])
@pytest.mark.parametrize("kind", ["certificate", "grant", "status"])
def test_a11_the_other_statements_have_the_same_tolerance(kind: str, offset: int, good: bool) -> None:
    issued = T + timedelta(seconds=limits.CLOCK_SKEW_SECONDS + offset)
    if good:
        accept_other(kind, issued)
    else:
        with pytest.raises(StatementMismatch, match="comes from the future"):
            accept_other(kind, issued)


def accept_other(kind: str, issued: datetime) -> None:
    """A certificate, a grant or a status by an identity in all roles, judged at T."""
    me, node, name = ALICE.identity.id, recipient().public, REFERENCE.repository
    trust = TrustFile.parse(trust_bytes())
    roles = replace(trust.namespaces["acme"], enrolment=(me,), revokers=() if kind != "status" else (me,))
    verifier = Verifier(replace(trust, namespaces={"acme": roles}).encode(), T, online=True)
    if kind == "certificate":
        certificate = KeyStatement(
            signer=me, namespace=name.namespace, node="node1", kem=node.kem, public_key=node.public_key,
            issued=issued, not_after=None,
        )  # fmt: skip
        verifier.certificate(sign_envelope(certificate.encode(), ALICE).encode(), name.namespace)
    elif kind == "grant":
        grant = GrantStatement(
            repository=name, release=Digest.of(b"release"), signer=me, recipient=node.id, sequence=1, previous=None,
            wrapped=bytes(node.kem.wrapped_bytes), issued=issued, expires=None,
        )  # fmt: skip
        verifier.grant(sign_envelope(grant.encode(), ALICE).encode())
    else:
        status = StatusStatement(
            namespace=name.namespace, signer=me, sequence=1, previous=None, revoked=(), issued=issued, expires=T + FAR
        )
        verifier.status(sign_envelope(status.encode(), ALICE).encode(), name.namespace, None)


def test_a11_the_two_forms_of_the_rule_agree() -> None:
    for offset in (-1, 0, 1):
        assert in_window(T + offset * SECOND, None, T) is not is_expired(T + offset * SECOND, T)
