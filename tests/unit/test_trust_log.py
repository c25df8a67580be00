# SPDX-License-Identifier: Apache-2.0
"""Step 4 of the verifier: receipts demanded, attested time, validity windows at T, and what holds without T."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.attested import EXEMPT_NOTE
from pq_registry.client.trust import VerifiedRelease, Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import (
    CheckpointInvalid,
    FormatError,
    IdentityLapsed,
    QuorumNotMet,
    ReceiptInvalid,
    ReceiptMissing,
)
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Reference
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.trustfile import TrustFile
from tests import samples
from tests.logged_site import ACME, SECOND, acme
from tests.logsamples import MemoryLog
from tests.samples import NOW, REPOSITORY, YEAR, publisher, trust_file
from tests.sealing_site import recipient
from tests.unit.test_trust import refused

V1 = Reference.parse("acme/minilm:v1")
LATER = NOW + YEAR / 2
ENVELOPE, MANIFEST = samples.release()
HOUR = timedelta(seconds=limits.ATTESTATION_SECONDS)


def receipt_in(log: MemoryLog, envelope: Envelope = ENVELOPE, kind: Kind = Kind.RELEASE, name: str = "") -> bytes:
    return log.log(envelope, kind=kind, name=name or str(REPOSITORY), identity=publisher().identity.id)


def trust_of(
    log: MemoryLog, *, window: tuple[datetime | None, datetime | None] = (None, None), **more: Any
) -> TrustFile:
    return trust_file(acme(window=window, revoker=False), log=log.policies(), **more)


def verified(trust: TrustFile, receipt: bytes | None, *, now: datetime = NOW, online: bool = True) -> VerifiedRelease:
    judge = Verifier(trust.encode(), now, online=online)
    return judge.release(ENVELOPE.encode(), MANIFEST, expected_name=REPOSITORY, expected_digest=None, receipt=receipt)


def test_a_receipt_is_demanded_and_what_it_attests_is_said() -> None:
    log = MemoryLog(witnesses=2)
    receipt = receipt_in(log)
    with refused(ReceiptMissing, 4) as caught:
        verified(trust_of(log), None)
    assert log.origin in (caught.value.expected or "")
    found = verified(trust_of(log), receipt)
    assert found.receipt is not None
    assert found.receipt.attested == NOW
    assert f"leaf 0 of {log.origin}, attested 2026-11-21T12:00:00Z by 2 witnesses" in found.notes[0]
    assert found.unchecked == found.notes[1:]  # no revoker


def test_exempt_is_announced_each_time_and_no_receipt_is_looked_at() -> None:
    for receipt in (None, b"not a receipt at all"):
        found = verified(trust_file(acme(revoker=False)), receipt)
        assert found.notes[0] == EXEMPT_NOTE
        assert EXEMPT_NOTE in found.unchecked
        assert found.receipt is None


@pytest.mark.parametrize("data", [b"", b"\xff", b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v1\nindex 0\n\n\n"])
def test_junk_for_a_receipt_is_step_4(data: bytes) -> None:
    with refused(FormatError, 4):
        verified(trust_of(MemoryLog(witnesses=1)), data)


@pytest.mark.parametrize(
    ("start", "end", "valid"),
    [
        (0, 1, True),  # not_before <= T < not_after
        (1, 2, False),
        (-1, 0, False),
        (-1, 1, True),
        (None, 0, False),
        (None, 1, True),
        (0, None, True),
        (1, None, False),
    ],
)
def test_the_window_is_judged_at_t_whatever_the_clock_says(start: int | None, end: int | None, valid: bool) -> None:
    log = MemoryLog(witnesses=1)
    receipt = receipt_in(log)
    window = tuple(None if side is None else NOW + side * SECOND for side in (start, end))
    trust = trust_of(log, window=(window[0], window[1]))
    for now in (NOW, LATER):
        if valid:
            verified(trust, receipt, now=now)
        else:
            with refused(IdentityLapsed, 4) as caught:
                verified(trust, receipt, now=now)
            assert "attested 2026-11-21T12:00:00Z" in (caught.value.found or "")


@pytest.mark.parametrize(("offset", "valid"), [(-1, False), (0, True), (1, False)])
def test_without_an_independent_witness_the_clock_decides(offset: int, valid: bool) -> None:
    log = MemoryLog()
    receipt = receipt_in(log)
    trust = trust_of(log, window=(NOW, NOW + SECOND))
    now = NOW + offset * SECOND
    if not valid:
        with refused(IdentityLapsed, 4) as caught:
            verified(trust, receipt, now=now)
        assert "no witness attests" in (caught.value.found or "")
    else:
        found = verified(trust, receipt, now=now)
        assert found.receipt is not None
        assert found.receipt.attested is None
        assert "no independent witness" in found.unchecked[0]


@pytest.mark.parametrize("witnesses", [0, 1])
def test_a_pinned_release_is_exempt_from_the_window(witnesses: int) -> None:
    log = MemoryLog(witnesses=witnesses)
    receipt = receipt_in(log)
    entry = replace(acme(window=(None, NOW), revoker=False), pinned=frozenset({ENVELOPE.payload_digest}))
    verified(trust_file(entry, log=log.policies()), receipt, now=LATER)
    with refused(ReceiptMissing, 4):  # from the window, not from the log
        verified(trust_file(entry, log=log.policies()), None, now=LATER)


@pytest.mark.parametrize(("delay", "valid"), [(-1, False), (0, True), (3600, True), (3601, False)])
def test_t_lies_between_the_leafs_time_and_an_hour_after_it(delay: int, valid: bool) -> None:
    log = MemoryLog(witnesses=1)
    index = log.append(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=publisher().identity.id)
    log.publish(NOW + delay * SECOND)
    receipt = log.receipt(index)
    if valid:
        assert verified(trust_of(log), receipt, now=LATER).receipt is not None
    else:
        with refused(ReceiptInvalid, 4):
            verified(trust_of(log), receipt, now=LATER)


@pytest.mark.parametrize(("start", "end", "valid"), [(0, 1, True), (1, 2, False), (-1, 0, False)])
def test_the_policys_own_window_contains_t(start: int, end: int, valid: bool) -> None:
    log = MemoryLog(witnesses=1)
    receipt = receipt_in(log)
    trust = trust_file(acme(revoker=False), log=log.policies(NOW + start * SECOND, NOW + end * SECOND))
    if valid:
        verified(trust, receipt, now=LATER)
    else:
        with refused(ReceiptInvalid, 4):
            verified(trust, receipt, now=LATER)


def test_a_log_is_followed_by_another_and_both_receipts_stay_good() -> None:
    old, new = MemoryLog("old.example/log", witnesses=1), MemoryLog("new.example/log", witnesses=1)
    change = NOW + timedelta(days=10)
    policies = (LogPolicy(old.policy(), None, change), LogPolicy(new.policy(), change, None))
    trust = trust_file(acme(revoker=False), log=policies)
    verified(trust, receipt_in(old), now=LATER)
    old.time = new.time = int((change - SECOND).timestamp())
    verified(trust, receipt_in(old), now=LATER)
    with refused(ReceiptInvalid, 4):
        verified(trust, receipt_in(new), now=LATER)
    old.time = new.time = int(change.timestamp())
    verified(trust, receipt_in(new), now=LATER)
    with refused(ReceiptInvalid, 4):
        verified(trust, receipt_in(old), now=LATER)


def test_a_log_nobody_named_and_witnesses_that_are_missing() -> None:
    log = MemoryLog(witnesses=1)
    other = MemoryLog("other.example/log", witnesses=1)
    with refused(CheckpointInvalid, 4):
        verified(trust_of(log), receipt_in(other))
    log.append(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=publisher().identity.id)
    log.publish(cosigned=False)
    with refused(QuorumNotMet, 4):
        verified(trust_of(log), log.receipt(0))


def test_tags_grants_and_certificates_need_theirs_too() -> None:
    log = MemoryLog(witnesses=1)
    alice = publisher()
    entry = acme(revoker=False)
    entry = replace(entry, enrolment=entry.publishers)
    judge = Verifier(trust_file(entry, log=log.policies()).encode(), NOW, online=True)
    tag = sign_envelope(samples.tag_statement(ENVELOPE.payload_digest).encode(), alice)
    with refused(ReceiptMissing, 4):
        judge.tag(tag.encode(), V1, None)
    judge.tag(tag.encode(), V1, None, receipt=receipt_in(log, tag, Kind.TAG))
    public = recipient().public
    grant = sign_envelope(
        GrantStatement(
            repository=REPOSITORY, release=ENVELOPE.payload_digest, signer=alice.identity.id, recipient=public.id,
            sequence=1, previous=None, wrapped=bytes(public.kem.wrapped_bytes), issued=NOW, expires=None,
        ).encode(),
        alice,
    )  # fmt: skip
    with refused(ReceiptMissing, 4):
        judge.grant(grant.encode())
    judge.grant(grant.encode(), receipt=receipt_in(log, grant, Kind.GRANT))
    key = sign_envelope(
        KeyStatement(
            signer=alice.identity.id, namespace=ACME, node="node1", kem=public.kem, public_key=public.public_key,
            issued=NOW, not_after=None,
        ).encode(),
        alice,
    )  # fmt: skip
    with refused(ReceiptMissing, 4):
        judge.certificate(key.encode(), ACME)
    judge.certificate(key.encode(), ACME, receipt=receipt_in(log, key, Kind.KEY, "acme"))


def test_samples_and_log_agree_about_now() -> None:
    assert datetime.fromtimestamp(MemoryLog().time, UTC) == NOW
