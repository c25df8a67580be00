# SPDX-License-Identifier: Apache-2.0
"""B1 for evidence: a dishonest auditor lists a statement as a leaf, at a time or in a size that no receipt proves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.audit.check import check_bundle
from pq_registry.client.audit.export import Scope
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import FormatError, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.evidence import EvidenceFile, EvidenceIndex
from pq_registry.format.instant import from_unix
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace
from pq_registry.format.status import Revocation, RevocationKind
from tests import samples
from tests.auditing import ALICE, AuditSite, roles
from tests.logsamples import TIME
from tests.unit.test_audit_evidence import bundle_of, resign


def changed(document: EvidenceIndex, number: int, **fields: object) -> EvidenceIndex:
    """The index as a dishonest auditor would write it."""
    statements = [replace(one, **fields) if one.index == number else one for one in document.statements]  # type: ignore[arg-type]
    return replace(document, statements=tuple(sorted(statements, key=lambda one: one.index)))


@pytest.mark.parametrize("days", [-3, 0, 3])
def test_a_statement_listed_as_a_leaf_that_its_receipt_does_not_prove(tmp_path: Path, days: int) -> None:
    # The identity is valid for two days; listed as another leaf, its time would be whatever the auditor says.
    site = AuditSite()
    entry = samples.trusted(samples.publisher(), not_before=from_unix(TIME - 86400), not_after=from_unix(TIME + 86400))
    namespace = replace(samples.namespace_trust(samples.publisher()), identities=(entry,))
    site.trust = replace(samples.trust_file(namespace), log=site.trust.log)
    site.release()
    bundle = bundle_of(site, tmp_path)
    when = from_unix(TIME) + timedelta(days=days)
    resign(bundle, lambda index: changed(index, 0, index=9, time=when, attested=None))
    with pytest.raises(StatementMismatch, match="another leaf"):
        check_bundle(bundle, trust=site.trust.encode())


@pytest.mark.parametrize("days", [-3, 3])
def test_without_a_receipt_nothing_is_judged_by_a_time_the_auditor_states(tmp_path: Path, days: int) -> None:
    site = roles()
    entries = tuple(
        samples.trusted(one, not_before=from_unix(TIME - 86400), not_after=from_unix(TIME + 86400))
        for one in (ALICE, samples.publisher("revoker"))
    )
    namespace = replace(site.trust.namespaces["acme"], identities=entries, enrolment=())
    site.trust = replace(samples.trust_file(namespace), log=site.trust.log)
    release = site.release()
    site.status(Revocation(kind=RevocationKind.IDENTITY, subject=ALICE.identity.id, since=from_unix(TIME + 1)))
    del site.receipts[release]
    bundle = bundle_of(site, tmp_path)
    resign(bundle, lambda index: changed(index, 0, time=from_unix(TIME) + timedelta(days=days)))
    checked = check_bundle(bundle, trust=site.trust.encode())
    # Neither lapsed nor used after its revocation, which only the auditor says.
    assert [one.code.value for one in checked.findings] == ["receipt-missing"]
    assert [one.proved for one in checked.statements] == [False, True]


def test_what_was_logged_twice_is_listed_as_the_leaf_that_is_proved(tmp_path: Path) -> None:
    site = AuditSite()
    release = site.release()
    again = sign_envelope(Envelope.parse(site.envelopes[release]).payload, ALICE)
    site.add(again, kind=Kind.RELEASE, name="acme/minilm", identity=ALICE.identity.id)
    bundle = bundle_of(site, tmp_path)
    checked = check_bundle(bundle, trust=site.trust.encode())
    assert [one.entry.index for one in checked.statements] == [0]
    # That there are two is the auditor's word, and in the bundle.
    assert "leaf-duplicate" in [one.code for one in checked.index.findings]


def test_what_is_withheld_of_other_namespaces_is_nobodys_business(tmp_path: Path) -> None:
    site = AuditSite()
    site.release()
    other = site.release({"x": b""}, name="secret/project")
    del site.envelopes[other]
    bundle = bundle_of(site, tmp_path, Scope(namespaces=(Namespace("acme"),)))
    assert b"secret/project" not in (bundle / "evidence.json").read_bytes()


def test_what_is_withheld_counts_for_the_size_of_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Left out silently would be the leaf behind it.
    from pq_registry.errors import UsageError

    site = AuditSite()
    releases = [site.release() for _ in range(3)]
    del site.envelopes[releases[0]]
    monkeypatch.setattr(limits, "EVIDENCE_STATEMENTS", 2)
    with pytest.raises(UsageError, match="too much"):
        bundle_of(site, tmp_path)


@pytest.mark.parametrize("path", ["trust.json", "auditor.pqpub", "checkpoint.note", "statements", "receipts"])
def test_a_file_of_an_impossible_size_is_not_read(tmp_path: Path, path: str) -> None:
    site = AuditSite()
    site.release()
    bundle = bundle_of(site, tmp_path)
    target = bundle / path if (bundle / path).is_file() else min((bundle / path).iterdir())
    name, size = str(target.relative_to(bundle)), 2**40

    def grown(index: EvidenceIndex) -> EvidenceIndex:
        files = (EvidenceFile(one.path, Digest.of(b""), size) if one.path == name else one for one in index.files)
        document = replace(index)
        object.__setattr__(document, "files", tuple(files))
        return document

    from pq_registry.client.audit.export import _sign
    from pq_registry.crypto.openssl import OPENSSL

    data = grown(EvidenceIndex.parse((bundle / "evidence.json").read_bytes())).encode()
    (bundle / "evidence.json").write_bytes(data)
    (bundle / "evidence.json.sig").write_bytes(_sign(data, samples.publisher("auditor"), OPENSSL).encode())
    with target.open("r+b") as file:
        file.truncate(size)  # a sparse file: large to read, and cheap to send
    with pytest.raises(FormatError, match="impossible size"):
        check_bundle(bundle, trust=site.trust.encode(), auditor=samples.publisher("auditor").identity)


def test_the_attested_time_of_the_proved_leaf_counts(tmp_path: Path) -> None:
    site = AuditSite()
    site.release()
    checked = check_bundle(bundle_of(site, tmp_path), trust=site.trust.encode())
    found: list[datetime | None] = [one.attested for one in checked.statements]
    assert found == [from_unix(TIME)] and all(one.proved for one in checked.statements)
