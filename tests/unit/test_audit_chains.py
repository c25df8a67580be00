# SPDX-License-Identifier: Apache-2.0
"""What only shows when leaves are held against one another: chains, targets, certificates, revocations."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.report import make_report
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind
from pq_registry.format.status import Revocation, RevocationKind, StatusStatement
from tests import samples
from tests.auditing import ALICE, ENROLMENT, MALLORY, NOW, REVOKER, AuditSite, roles
from tests.auditing import recipient as public
from tests.logsamples import TIME

SINCE = from_unix(TIME)


# -- tags --------------------------------------------------------------------------------------------------------------


def test_a_tag_moved_back(tmp_path: Path) -> None:
    site = roles()
    old, new = site.release(), site.release()
    site.tag(new)
    assert site.codes(tmp_path) == []
    site.tag(old)
    assert site.codes(tmp_path) == ["tag-moved-back"]


def test_withdrawn_and_set_again_is_no_way_back_unseen(tmp_path: Path) -> None:
    site = roles()
    old, new = site.release(), site.release()
    site.tag(new)
    site.tag(None)
    site.tag(old)
    assert site.codes(tmp_path) == ["tag-moved-back"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"previous": Digest.of(b"x")}, ["tag-chain-broken"]),
        ({"sequence": 3}, ["tag-chain-broken"]),
        ({"sequence": 1, "previous": None}, ["tag-equivocation"]),
    ],
    ids=["another-before", "gap", "same-sequence"],
)
def test_a_chain_that_does_not_continue(tmp_path: Path, fields: dict[str, Any], found: list[str]) -> None:
    site = roles()
    site.tag(site.release())
    site.tag(site.release(), **fields)
    assert site.codes(tmp_path) == found


def test_a_chain_logged_out_of_order_is_fine(tmp_path: Path) -> None:
    site = roles()
    release = site.release()
    first = samples.tag_statement(release)
    second = samples.tag_statement(release, sequence=2, previous=Digest.of(first.encode()))
    for statement in (second, first):
        site.add(sign_envelope(statement.encode(), ALICE), kind=Kind.TAG, name="acme/minilm",
                 identity=ALICE.identity.id)  # fmt: skip
    assert site.codes(tmp_path) == []


def test_a_chain_without_its_start(tmp_path: Path) -> None:
    site = roles()
    site.tag(site.release(), sequence=5, previous=Digest.of(b"x"))
    assert site.codes(tmp_path) == ["tag-chain-broken"]


def test_a_stranger_cannot_break_a_chain(tmp_path: Path) -> None:
    site = roles()
    site.tag(site.release())
    forged = samples.tag_statement(Digest.of(b"evil"))
    site.add(sign_envelope(forged.encode(), MALLORY), kind=Kind.TAG, name="acme/minilm", identity=ALICE.identity.id)
    assert set(site.codes(tmp_path)) == {"signature-invalid"}


def test_a_tag_to_nowhere(tmp_path: Path) -> None:
    site = roles()
    site.tag(Digest.of(b"never logged"))
    assert site.codes(tmp_path) == ["tag-target-unlogged"]


# -- statuses ----------------------------------------------------------------------------------------------------------


def test_a_status_that_shrank(tmp_path: Path) -> None:
    site = roles()
    gone = Revocation(RevocationKind.RELEASE, str(Digest.of(b"x")), SINCE)
    site.status(gone)
    site.status(gone, Revocation(RevocationKind.RECIPIENT, "0" * 64, SINCE))
    assert site.codes(tmp_path) == []
    site.status(Revocation(RevocationKind.RECIPIENT, "0" * 64, SINCE))
    assert site.codes(tmp_path) == ["status-shrank"]


@pytest.mark.parametrize(("seconds", "found"), [(-1, []), (0, []), (1, ["status-shrank"])])
def test_a_revocation_may_move_to_an_earlier_time_only(tmp_path: Path, seconds: int, found: list[str]) -> None:
    site = roles()
    for moved in (0, seconds):
        since = SINCE + timedelta(seconds=moved)
        site.status(Revocation(RevocationKind.RELEASE, str(Digest.of(b"x")), since))
    assert site.codes(tmp_path) == found


def test_two_statuses_of_one_sequence(tmp_path: Path) -> None:
    site = roles()
    for days in (1, 2):
        statement = StatusStatement(
            namespace=samples.REPOSITORY.namespace, signer=REVOKER.identity.id, sequence=1, previous=None, revoked=(),
            issued=samples.NOW, expires=samples.NOW + timedelta(days=days),
        )  # fmt: skip
        site.add(sign_envelope(statement.encode(), REVOKER), kind=Kind.STATUS, name="acme",
                 identity=REVOKER.identity.id)  # fmt: skip
    assert site.codes(tmp_path) == ["status-equivocation"]


# -- grants ------------------------------------------------------------------------------------------------------------


def test_a_grant_to_a_recipient_nobody_certified(tmp_path: Path) -> None:
    site = roles()
    release = site.release()
    site.certify(public("node1"), ENROLMENT)
    site.grant(release, public("node1"))
    assert site.codes(tmp_path) == []
    site.grant(release, public("node2"))
    assert site.codes(tmp_path) == ["recipient-uncertified"]


def test_a_publishers_own_recipient_can_be_named(tmp_path: Path) -> None:
    site = roles()
    site.grant(site.release(), public("node1"))
    assert site.codes(tmp_path, known_recipients={public("node1").id}) == []


def test_certified_afterwards_lapsed_or_by_somebody_else_is_not_certified(tmp_path: Path) -> None:
    site = roles()
    release = site.release()
    site.grant(release, public("node1"))
    site.certify(public("node1"), ENROLMENT)
    site.certify(public("node2"), ENROLMENT, not_after=SINCE)
    site.grant(release, public("node2"))
    site.certify(public("node3"), ALICE)
    site.grant(release, public("node3"))
    site.certify(public("node4"), ENROLMENT, not_after=SINCE + timedelta(seconds=1))
    site.grant(release, public("node4"))
    assert site.codes(tmp_path) == [*["recipient-uncertified"] * 3, "role-missing"]


def test_without_enrolment_identities_certificates_are_not_asked_for_and_that_is_said(tmp_path: Path) -> None:
    site = AuditSite()
    site.grant(site.release(), public("node1"))
    with site.audited(tmp_path) as (report, _):
        assert report.well
        assert any("certified was not checked" in note for note in report.notes)


# -- revocations that come to light later ------------------------------------------------------------------------------


def test_a_tag_to_a_revoked_release_and_a_grant_to_a_revoked_recipient(tmp_path: Path) -> None:
    site = roles()
    release = site.release()
    site.certify(public("node1"), ENROLMENT)
    site.log.time += 10
    site.tag(release)
    site.grant(release, public("node1"))
    assert site.codes(tmp_path) == []
    site.status(
        Revocation(RevocationKind.RELEASE, str(release), from_unix(TIME + 10)),
        Revocation(RevocationKind.RECIPIENT, public("node1").id, from_unix(TIME + 10)),
    )
    assert site.codes(tmp_path) == ["recipient-revoked", "tag-target-revoked"]


@pytest.mark.parametrize(("seconds", "found"), [(10, ["identity-revoked"]), (11, [])])
def test_the_time_of_a_revocation_belongs_to_it(tmp_path: Path, seconds: int, found: list[str]) -> None:
    site = roles()
    site.log.time += 10
    site.release()
    site.status(Revocation(RevocationKind.IDENTITY, ALICE.identity.id, from_unix(TIME + seconds)))
    assert site.codes(tmp_path) == found


def test_a_status_by_somebody_who_is_no_revoker_revokes_nothing(tmp_path: Path) -> None:
    site = roles()
    site.release()
    site.status(Revocation(RevocationKind.IDENTITY, ALICE.identity.id, SINCE), signer=ENROLMENT)
    assert site.codes(tmp_path) == ["role-missing"]


# -- findings over time ------------------------------------------------------------------------------------------------


def test_findings_stay_open_are_not_made_twice_and_can_be_closed(tmp_path: Path) -> None:
    from pq_registry.client.audit.report import acknowledge, open_findings
    from pq_registry.errors import UsageError

    site = roles()
    site.release(signer=MALLORY)
    assert site.codes(tmp_path) == site.codes(tmp_path) == ["unknown-key"]
    with AuditIndex(tmp_path) as index:
        index.forget_judgements()
        outcome = site.audit(index)
        assert outcome.statements == 1
        [kept] = open_findings(index, limit=10)
        for numbers, note in (([99], "x"), ([kept.number, 99], "x"), ([kept.number], "")):
            with pytest.raises(UsageError):
                acknowledge(index, numbers, note=note, now=NOW)
        assert len(list(open_findings(index, limit=10))) == 1
        acknowledge(index, [kept.number], note="a test", now=NOW)
        assert make_report(index, site.trust, outcome).well
        index.forget_judgements()
        site.audit(index)
        assert make_report(index, site.trust, outcome).well


def test_a_new_trust_file_judges_old_leaves_only_when_asked(tmp_path: Path) -> None:
    from dataclasses import replace

    site = AuditSite()
    site.release(signer=MALLORY)
    assert site.codes(tmp_path) == ["unknown-key"]
    site.trust = replace(samples.trust_file(samples.namespace_trust(MALLORY)), log=site.trust.log)
    site.release(signer=MALLORY)
    with site.audited(tmp_path) as (report, _):
        assert any("earlier trust file" in note for note in report.notes)


def test_a_tag_to_a_release_of_another_repository(tmp_path: Path) -> None:
    site = roles()
    site.tag(site.release(name="acme/other"))
    assert site.codes(tmp_path) == ["tag-target-unlogged"]


def test_a_release_by_a_stranger_is_no_target(tmp_path: Path) -> None:
    site = roles()
    release = site.release(signer=MALLORY)
    site.tag(release)
    assert site.codes(tmp_path) == ["unknown-key"]  # the tag is alice's; what it points at is the finding
