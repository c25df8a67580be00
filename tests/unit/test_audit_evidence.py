# SPDX-License-Identifier: Apache-2.0
"""Evidence bundles: written from an audit, verified offline years later, and refused for every kind of tampering."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.audit.check import check_bundle
from pq_registry.client.audit.export import Making, Scope, export
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge
from pq_registry.errors import (
    AlreadyExists,
    DigestMismatch,
    FileDigestMismatch,
    FileSetMismatch,
    FormatError,
    LogEquivocation,
    PqregError,
    SignatureInvalid,
    StatementMismatch,
    UntrustedSigner,
    UsageError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.evidence import EvidenceIndex, EvidenceSignature
from pq_registry.format.instant import format_instant, from_unix
from pq_registry.format.name import Namespace, Reference
from tests import samples
from tests.auditing import NOW, AuditSite
from tests.logsamples import TIME

AUDITOR = samples.publisher("auditor")


def making(site: AuditSite) -> Making:
    return Making(
        signer=AUDITOR, trust=site.trust.encode(), registry="https://models.example", software={"pq-registry": "1"},
        now=NOW,
    )  # fmt: skip


def bundle_of(site: AuditSite, tmp_path: Path, scope: Scope | None = None, *, audit: bool = True) -> Path:
    out = tmp_path / "bundle"
    with AuditIndex(tmp_path / "state") as index:
        if audit:
            site.audit(index)
        export(index, Judge(site.trust), site, out, scope or Scope(), making(site))
    return out


@pytest.fixture
def site() -> AuditSite:
    site = AuditSite()
    site.tag(site.release())
    site.tag(site.release({"a.txt": b"2"}))
    site.release(name="acme/other")
    return site


def test_a_bundle_verifies_with_its_trust_file_named_by_digest_or_given(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    trust = site.trust.encode()
    for how in ({"trust": trust}, {"trust_sha256": Digest.of(trust)}):
        checked = check_bundle(bundle, auditor=AUDITOR.identity, **how)
        assert not checked.findings and not checked.misbehaviour and not checked.notes
        assert [one.attested for one in checked.statements] == [from_unix(TIME)] * 5
        assert checked.auditor_known
    checked = check_bundle(bundle, trust=trust)
    assert not checked.auditor_known and any(AUDITOR.identity.id in note for note in checked.notes)


def test_everything_is_judged_at_the_attested_time_not_at_that_of_the_check(site: AuditSite, tmp_path: Path) -> None:
    soon = from_unix(TIME) + timedelta(seconds=1)
    entry = samples.trusted(samples.publisher(), not_after=soon)
    namespace = replace(samples.namespace_trust(samples.publisher()), identities=(entry,))
    site.trust = replace(samples.trust_file(namespace, created=samples.NOW, expires=soon), log=site.trust.log)
    bundle = bundle_of(site, tmp_path)
    # The trust file and the identity have long lapsed; nothing here reads a clock.
    assert not check_bundle(bundle, trust_sha256=Digest.of(site.trust.encode())).findings


def test_a_finding_is_found_again(site: AuditSite, tmp_path: Path) -> None:
    site.release({"b": b""}, signer=samples.publisher("mallory"))
    bundle = bundle_of(site, tmp_path)
    checked = check_bundle(bundle, trust=site.trust.encode())
    assert [one.code.value for one in checked.findings] == ["unknown-key"]
    assert [one.code for one in checked.index.findings] == ["unknown-key"]


@pytest.mark.parametrize(
    ("scope", "count", "words"),
    [
        (Scope(), 5, "everything in the log"),
        (Scope(namespaces=(Namespace("ACME"),)), 5, "ACME"),
        (Scope(reference=Reference.parse("acme/minilm")), 4, "acme/minilm"),
        (Scope(reference=Reference.parse("acme/minilm:v1"), spelled_tag=True), 4, "acme/minilm:v1"),
        (Scope(reference=Reference.parse("acme/other")), 1, "acme/other"),
        (Scope(since=from_unix(TIME)), 5, f"everything in the log, since {format_instant(from_unix(TIME))}"),
    ],
)
def test_scopes(site: AuditSite, tmp_path: Path, scope: Scope, count: int, words: str) -> None:
    bundle = bundle_of(site, tmp_path, scope)
    checked = check_bundle(bundle, trust=site.trust.encode())
    assert len(checked.statements) == count and not checked.findings
    assert checked.index.scope == words


def test_one_release_by_its_digest_brings_the_tags_that_point_at_it(site: AuditSite, tmp_path: Path) -> None:
    release = next(iter(site.envelopes))
    scope = Scope(reference=Reference.parse(f"acme/minilm@{release}"))
    checked = check_bundle(bundle_of(site, tmp_path, scope), trust=site.trust.encode())
    assert [one.entry.kind.value for one in checked.statements] == ["release", "tag"]


@pytest.mark.parametrize("scope", [Scope(since=from_unix(TIME + 1)), Scope(namespaces=(Namespace("other"),))])
def test_nothing_in_scope(site: AuditSite, tmp_path: Path, scope: Scope) -> None:
    with pytest.raises(UsageError, match="nothing to export"):
        bundle_of(site, tmp_path, scope)
    assert not (tmp_path / "bundle").exists() and len(list(tmp_path.iterdir())) == 1


def test_nothing_audited_and_nothing_overwritten(site: AuditSite, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing has been audited"):
        bundle_of(site, tmp_path, audit=False)
    bundle_of(site, tmp_path)
    with pytest.raises(AlreadyExists):
        bundle_of(site, tmp_path)


def test_one_trust_file_exactly(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    trust = site.trust.encode()
    with pytest.raises(UsageError):
        check_bundle(bundle)
    with pytest.raises(UsageError):
        check_bundle(bundle, trust=trust, trust_sha256=Digest.of(trust))
    with pytest.raises(DigestMismatch):
        check_bundle(bundle, trust_sha256=Digest.of(b""))


def test_another_auditor(site: AuditSite, tmp_path: Path) -> None:
    with pytest.raises(UntrustedSigner):
        check_bundle(bundle_of(site, tmp_path), trust=site.trust.encode(), auditor=samples.publisher("eve").identity)


# -- tampering ---------------------------------------------------------------------------------------------------------


def first(bundle: Path, folder: str) -> Path:
    return min((bundle / folder).iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(bundle: Path) -> None:
    path = first(bundle, "statements")
    path.rename(bundle.parent / "elsewhere")
    path.symlink_to(bundle.parent / "elsewhere")


def link_folder(bundle: Path) -> None:
    (bundle / "receipts").rename(bundle.parent / "receipts")
    (bundle / "receipts").symlink_to(bundle.parent / "receipts")


def swap(bundle: Path) -> None:
    one, other = sorted((bundle / "statements").iterdir())[:2]
    one.rename(bundle / "x")
    other.rename(one)
    (bundle / "x").rename(other)


@pytest.mark.parametrize(
    ("bend", "error"),
    [
        (lambda bundle: flip(first(bundle, "statements")), FileDigestMismatch),
        (lambda bundle: flip(first(bundle, "receipts")), FileDigestMismatch),
        (lambda bundle: flip(first(bundle, "manifests")), FileDigestMismatch),
        (lambda bundle: flip(bundle / "checkpoint.note"), FileDigestMismatch),
        (lambda bundle: flip(bundle / "trust.json"), FileDigestMismatch),
        (lambda bundle: first(bundle, "receipts").unlink(), FileSetMismatch),
        (lambda bundle: (bundle / "statements" / "more.json").write_bytes(b""), FileSetMismatch),
        (lambda bundle: (bundle / "more").write_bytes(b""), FileSetMismatch),
        (lambda bundle: (bundle / "more").mkdir(), FileSetMismatch),
        (lambda bundle: (bundle / "evidence.json").unlink(), FileSetMismatch),
        (lambda bundle: (bundle / "evidence.json.sig").unlink(), FileSetMismatch),
        (lambda bundle: flip(bundle / "evidence.json"), SignatureInvalid),
        (lambda bundle: (bundle / "trust.json").write_bytes(b"{}" * 9000), FileSetMismatch),
        (swap, (FileDigestMismatch, FileSetMismatch)),
        (link, PqregError),
        (link_folder, FileSetMismatch),
    ],
    ids=[
        "statement",
        "receipt",
        "manifest",
        "checkpoint",
        "trust",
        "receipt-gone",
        "statement-more",
        "file-more",
        "folder-more",
        "index-gone",
        "signature-gone",
        "index",
        "trust-larger",
        "swapped",
        "link",
        "folder-link",
    ],
)
def test_a_tampered_bundle_is_refused(
    site: AuditSite, tmp_path: Path, bend: Callable[[Path], object], error: type[PqregError]
) -> None:
    bundle = bundle_of(site, tmp_path)
    bend(bundle)
    with pytest.raises(error):
        check_bundle(bundle, trust_sha256=Digest.of(site.trust.encode()))


def resign(bundle: Path, change: Callable[[EvidenceIndex], EvidenceIndex], signer: object = AUDITOR) -> None:
    """The bundle as a dishonest auditor would have made it."""
    from pq_registry.client.audit.export import _sign
    from pq_registry.crypto.openssl import OPENSSL
    from pq_registry.format.evidence import EvidenceFile

    index = change(EvidenceIndex.parse((bundle / "evidence.json").read_bytes()))
    files = []
    for one in index.files:
        data = (bundle / one.path).read_bytes()
        files.append(EvidenceFile(one.path, Digest.of(data), len(data)))
    data = replace(index, files=tuple(files)).encode()
    (bundle / "evidence.json").write_bytes(data)
    (bundle / "evidence.json.sig").write_bytes(_sign(data, signer, OPENSSL).encode())  # type: ignore[arg-type]


def test_not_even_the_auditor_can_invent_a_statement_or_a_time(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    trust = site.trust.encode()

    def moved(index: EvidenceIndex, **times: object) -> EvidenceIndex:
        changed = [replace(one, **times) for one in index.statements]  # type: ignore[arg-type]
        return replace(index, statements=tuple(changed))

    earlier = from_unix(TIME) - timedelta(days=1)
    for times in ({"time": earlier}, {"attested": earlier}, {"attested": None}):
        resign(bundle, lambda index, times=times: moved(index, **times))  # type: ignore[misc]
        with pytest.raises(StatementMismatch):
            check_bundle(bundle, trust=trust)
        resign(bundle, lambda index: moved(index, time=from_unix(TIME), attested=from_unix(TIME)))
    statement = first(bundle, "statements")
    envelope = samples.release({"evil": b""})[0]
    statement.write_bytes(envelope.encode())
    resign(bundle, lambda index: index)
    with pytest.raises(PqregError):
        check_bundle(bundle, trust=trust)


def test_somebody_elses_signature_under_the_auditors_name(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    resign(bundle, lambda index: index, samples.publisher("eve"))
    for auditor in (None, AUDITOR.identity):
        with pytest.raises(UntrustedSigner):
            check_bundle(bundle, trust=site.trust.encode(), auditor=auditor)


@pytest.mark.parametrize("half", ["ec_signature", "pq_signature"])
def test_one_half_of_the_auditors_signature_is_not_enough(site: AuditSite, tmp_path: Path, half: str) -> None:
    bundle = bundle_of(site, tmp_path)
    path = bundle / "evidence.json.sig"
    genuine = EvidenceSignature.parse(path.read_bytes())
    ec_signature, pq_signature = samples.publisher("eve").sign(genuine.message)
    made = {"ec_signature": ec_signature, "pq_signature": pq_signature}
    path.write_bytes(replace(genuine, **{half: made[half]}).encode())
    with pytest.raises(SignatureInvalid):
        check_bundle(bundle, trust=site.trust.encode(), auditor=AUDITOR.identity)


def test_an_index_that_was_not_signed_is_not_even_parsed(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    (bundle / "evidence.json").write_bytes(b"not JSON at all")
    with pytest.raises(SignatureInvalid):
        check_bundle(bundle, trust=site.trust.encode())


def test_an_envelope_of_another_kind_is_no_signature_of_evidence(site: AuditSite, tmp_path: Path) -> None:
    from pq_registry.crypto.signing import sign_envelope

    bundle = bundle_of(site, tmp_path)
    index = (bundle / "evidence.json").read_bytes()
    (bundle / "evidence.json.sig").write_bytes(sign_envelope(index, AUDITOR).encode())
    with pytest.raises(FormatError, match="payloadType"):
        check_bundle(bundle, trust=site.trust.encode())


def test_receipts_of_two_histories_are_equivocation(site: AuditSite, tmp_path: Path) -> None:
    fork = site.log.fork(at=4)
    fork.append_raw(b"another")
    fork.publish()
    bundle = bundle_of(site, tmp_path)
    (bundle / "checkpoint.note").write_bytes(fork.files["checkpoint"])
    resign(bundle, lambda index: index)
    with pytest.raises(LogEquivocation):
        check_bundle(bundle, trust=site.trust.encode())


def test_a_moved_bundle_is_the_same_bundle(site: AuditSite, tmp_path: Path) -> None:
    bundle = bundle_of(site, tmp_path)
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(bundle, copy)
    assert not check_bundle(copy, trust=site.trust.encode()).findings
