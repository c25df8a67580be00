# SPDX-License-Identifier: Apache-2.0
"""An audit of a log in memory: what is well, and each thing that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.audit.finding import Code
from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.digest import Digest
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind
from pq_registry.format.status import Revocation, RevocationKind
from tests import samples
from tests.auditing import ALICE, MALLORY, NOW, REVOKER, AuditSite, roles
from tests.auditing import found as found_in
from tests.logsamples import TIME


def test_all_is_well(tmp_path: Path) -> None:
    site = roles()
    first = site.release()
    site.tag(first)
    site.tag(site.release())
    site.status()
    with site.audited(tmp_path) as (report, outcome):
        assert report.well and outcome.leaves == outcome.statements == 5
        [namespace] = report.namespaces
        assert namespace["namespace"] == "acme"
        [alice, revoker] = sorted(namespace["signers"], key=lambda one: one["roles"])  # type: ignore[call-overload]
        assert alice["statements"] == {"release": 2, "tag": 2} and alice["roles"] == ["publisher"]
        assert revoker["statements"] == {"status": 1} and revoker["roles"] == ["revoker"]
    with site.audited(tmp_path) as (report, outcome):
        assert report.well and outcome.leaves == outcome.statements == 0


@pytest.mark.parametrize("witnesses", [0, 2])
def test_with_and_without_witnesses(tmp_path: Path, witnesses: int) -> None:
    site = AuditSite(witnesses=witnesses)
    site.release()
    with site.audited(tmp_path) as (report, _):
        assert report.well
        assert any("no independent witness" in note for note in report.notes) is (witnesses == 0)


def test_unknown_key(tmp_path: Path) -> None:
    site = AuditSite()
    site.release(signer=MALLORY)
    assert site.codes(tmp_path) == ["unknown-key"]


def test_role_missing(tmp_path: Path) -> None:
    site = roles()
    site.release(signer=REVOKER)
    assert site.codes(tmp_path) == ["role-missing"]


def test_another_key_signs_in_alices_name(tmp_path: Path) -> None:
    site = AuditSite()
    site.tag(site.release(), by=MALLORY)
    assert site.codes(tmp_path) == ["signature-invalid", "signature-invalid"]


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_one_half_is_not_enough(tmp_path: Path, half: str) -> None:
    site = AuditSite()
    genuine = sign_envelope(samples.tag_statement(Digest.of(b"")).encode(), ALICE)
    other = sign_envelope(samples.tag_statement(Digest.of(b"1")).encode(), ALICE)
    bent = replace(genuine, **{f"{half}_signature": getattr(other, f"{half}_signature")})
    site.add(bent, kind=Kind.TAG, name="acme/minilm", identity=ALICE.identity.id)
    with site.audited(tmp_path) as (report, _):
        [finding] = found_in(report)
        assert finding["code"] == "signature-invalid" and half.upper() in finding["message"]


def test_profile_too_low(tmp_path: Path) -> None:
    low = samples.publisher("low", 3)
    site = AuditSite(trust=samples.trust_file(replace(samples.namespace_trust(low), min_profile=5)))
    site.release(signer=low)
    assert site.codes(tmp_path) == ["profile-too-low"]


@pytest.mark.parametrize(("seconds", "found"), [(0, ["validity-lapsed"]), (1, [])])
@pytest.mark.parametrize("witnesses", [0, 1])
def test_validity_is_judged_at_the_attested_time(
    tmp_path: Path, seconds: int, found: list[str], witnesses: int
) -> None:
    entry = samples.trusted(ALICE, not_after=from_unix(TIME + seconds))
    namespace = replace(samples.namespace_trust(ALICE), identities=(entry,))
    site = AuditSite(trust=samples.trust_file(namespace), witnesses=witnesses)
    site.release()
    assert site.codes(tmp_path, now=NOW + timedelta(hours=3)) == found


def test_a_pinned_release_outlives_its_signer(tmp_path: Path) -> None:
    site = AuditSite()
    release = site.release()
    entry = samples.trusted(ALICE, not_after=from_unix(TIME))
    namespace = replace(samples.namespace_trust(ALICE), identities=(entry,), pinned=frozenset({release}))
    site.trust = replace(samples.trust_file(namespace), log=site.trust.log)
    assert site.codes(tmp_path) == []


def test_a_namespace_the_trust_file_does_not_list_is_counted_and_not_blamed(tmp_path: Path) -> None:
    site = AuditSite()
    site.release(signer=MALLORY, name="other/model")
    with site.audited(tmp_path) as (report, _):
        assert report.well
        [namespace] = report.namespaces
        assert namespace["in_trust_file"] is False
        assert any("other" in note for note in report.notes)


# -- the registry ------------------------------------------------------------------------------------------------------


def withhold(site: AuditSite, payload: Digest) -> None:
    del site.envelopes[payload]


def swap(site: AuditSite, payload: Digest) -> None:
    site.envelopes[payload] = next(data for digest, data in site.envelopes.items() if digest != payload)


def sign_again(site: AuditSite, payload: Digest) -> None:
    from pq_registry.format.dsse import Envelope

    site.envelopes[payload] = sign_envelope(Envelope.parse(site.envelopes[payload]).payload, ALICE).encode()


def junk(site: AuditSite, payload: Digest) -> None:
    site.envelopes[payload] = b"{}"


def no_receipt(site: AuditSite, payload: Digest) -> None:
    del site.receipts[payload]


def other_receipt(site: AuditSite, payload: Digest) -> None:
    site.receipts[payload] = next(data for digest, data in site.receipts.items() if digest != payload)


def lose_manifest(site: AuditSite, _payload: Digest) -> None:
    site.manifests.clear()


def bend_manifest(site: AuditSite, _payload: Digest) -> None:
    site.manifests = {digest: data + b" " for digest, data in site.manifests.items()}


@pytest.mark.parametrize(
    ("bend", "found"),
    [
        (withhold, ["statement-withheld"]),
        (swap, ["statement-altered"]),
        (sign_again, ["receipt-invalid", "statement-altered"]),
        (junk, ["statement-altered"]),
        (no_receipt, ["receipt-missing"]),
        (other_receipt, ["receipt-invalid"]),
        (lose_manifest, ["manifest-missing"]),
        (bend_manifest, ["manifest-altered"]),
    ],
)
def test_what_a_registry_can_do_wrong(
    tmp_path: Path, bend: Callable[[AuditSite, Digest], None], found: list[str]
) -> None:
    site = AuditSite()
    site.status(signer=ALICE)
    site.trust = replace(samples.trust_file(replace(samples.namespace_trust(ALICE), revokers=(ALICE.identity.id,))),
                         log=site.trust.log)  # fmt: skip
    bend(site, site.release())
    assert site.codes(tmp_path) == found


def test_entries_that_are_no_leaves(tmp_path: Path) -> None:
    site = AuditSite()
    site.log.append_raw(b"", b"{}", b"\xff" * 65535)
    site.release()
    assert site.codes(tmp_path) == ["leaf-unreadable"] * 3


def test_a_leaf_that_lies_about_its_statement(tmp_path: Path) -> None:
    site = AuditSite()
    envelope = sign_envelope(samples.tag_statement(Digest.of(b"")).encode(), ALICE)
    site.add(envelope, kind=Kind.TAG, name="acme/other", identity=ALICE.identity.id)
    assert site.codes(tmp_path) == ["leaf-mismatch"]


def test_a_leaf_of_another_kind(tmp_path: Path) -> None:
    site = AuditSite()
    envelope = sign_envelope(samples.tag_statement(Digest.of(b"")).encode(), ALICE)
    site.add(envelope, kind=Kind.GRANT, name="acme/minilm", identity=ALICE.identity.id)
    assert site.codes(tmp_path) == ["statement-unreadable"]


def test_an_attestation_is_said_to_be_unknown(tmp_path: Path) -> None:
    site = AuditSite()
    envelope = sign_envelope(b'{"_type":"x"}', ALICE)
    site.add(envelope, kind=Kind.ATTESTATION, name="acme/minilm", identity=ALICE.identity.id)
    assert site.codes(tmp_path) == ["statement-unreadable"]


def test_the_same_statement_twice_with_other_signatures(tmp_path: Path) -> None:
    site = AuditSite()
    payload = samples.tag_statement(site.release()).encode()
    for _ in range(2):
        site.add(sign_envelope(payload, ALICE), kind=Kind.TAG, name="acme/minilm", identity=ALICE.identity.id)
    assert "leaf-duplicate" in site.codes(tmp_path)


def test_the_same_envelope_twice_is_what_an_outage_of_witnesses_leaves(tmp_path: Path) -> None:
    site = AuditSite()
    envelope = sign_envelope(samples.tag_statement(site.release()).encode(), ALICE)
    for _ in range(2):
        site.add(envelope, kind=Kind.TAG, name="acme/minilm", identity=ALICE.identity.id)
    assert site.codes(tmp_path) == []


def test_the_receipt_of_one_leaf_lends_no_time_to_another_of_the_same_statement(tmp_path: Path) -> None:
    entry = samples.trusted(ALICE, not_after=from_unix(TIME + 100))
    namespace = replace(samples.namespace_trust(ALICE), identities=(entry,))
    site = AuditSite(trust=samples.trust_file(namespace))
    envelope = sign_envelope(samples.tag_statement(site.release()).encode(), ALICE)
    for seconds in (0, 1000):
        site.log.time += seconds
        site.add(envelope, kind=Kind.TAG, name="acme/minilm", identity=ALICE.identity.id)
    with site.audited(tmp_path, now=from_unix(site.log.time)) as (report, _):
        [finding] = found_in(report)
        assert (finding["code"], finding["index"]) == ("validity-lapsed", 2)


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hours", "found"), [(24, []), (25, ["checkpoint-stale"])])
def test_b10_a_frozen_log_is_noticed_and_forgotten_when_it_goes_on(
    tmp_path: Path, hours: int, found: list[str]
) -> None:
    site = AuditSite()
    site.release()
    now = from_unix(TIME) + timedelta(hours=hours)
    assert site.codes(tmp_path, now=now) == found
    site.log.publish(now)
    assert site.codes(tmp_path, now=now) == []


def test_a_revoked_identity_used_before_and_after(tmp_path: Path) -> None:
    site = roles()
    site.release()
    site.log.time += 100
    late = site.release()
    site.log.time += 100
    assert site.codes(tmp_path) == []
    site.status(Revocation(RevocationKind.IDENTITY, ALICE.identity.id, from_unix(TIME + 100)))
    with site.audited(tmp_path, now=from_unix(site.log.time)) as (report, _):
        [finding] = found_in(report)
        assert finding["code"] == "identity-revoked" and finding["statement"] == str(late)


def test_every_code_is_in_the_handbook_and_no_other() -> None:
    handbook = (Path(__file__).resolve().parents[2] / "docs" / "operations" / "audit.md").read_text()
    table = handbook.partition("## Findings")[2].partition("### ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([a-z-]+)`", " ".join(rows))) == {code.value for code in Code}
    assert all(code.meaning for code in Code)
