# SPDX-License-Identifier: Apache-2.0
"""B7 for auditors: whole digests everywhere, and nothing that was kept is believed because it was kept.

sunlight v0.8.1 trusted a cache under a short key. An audit keeps statements and receipts too (``--keep``) and hands
them out as evidence, so both are verified again when they leave.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry.client.audit.check import check_bundle
from pq_registry.client.audit.export import Making, Scope, export
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge
from pq_registry.client.audit.sources import KeptStatements
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.evidence import EvidenceIndex
from pq_registry.format.leaf import Leaf
from tests import samples
from tests.auditing import NOW, AuditSite


def exported(site: AuditSite, tmp_path: Path, kept: Path) -> Path:
    making = Making(
        signer=samples.publisher("auditor"), trust=site.trust.encode(), registry="r", software={}, now=NOW
    )  # fmt: skip
    with AuditIndex(tmp_path / "state") as index:
        site.audit(index)
        export(index, Judge(site.trust), KeptStatements(kept, None), tmp_path / "bundle", Scope(), making)
    return tmp_path / "bundle"


def keep(site: AuditSite, kept: Path) -> None:
    kept.mkdir()
    for digest, data in site.envelopes.items():
        (kept / f"{digest.hex}.json").write_bytes(data)
    for digest, data in site.receipts.items():
        (kept / f"{digest.hex}.tlog-proof").write_bytes(data)
    for digest, data in site.manifests.items():
        (kept / f"{digest.hex}.manifest").write_bytes(data)


@pytest.mark.parametrize(
    ("suffix", "codes", "statements"),
    [(".tlog-proof", {Code.RECEIPT_INVALID}, 2), (".json", set(), 1), (".manifest", {Code.MANIFEST_MISSING}, 2)],
)
def test_what_was_kept_and_then_exchanged_is_not_taken(
    tmp_path: Path, suffix: str, codes: set[Code], statements: int
) -> None:
    site = AuditSite()
    site.release({"a": b"1"})
    site.release({"a": b"2"})
    kept = tmp_path / "kept"
    keep(site, kept)
    one, other = sorted(kept.glob(f"*{suffix}"))[:2]
    one.write_bytes(other.read_bytes())
    bundle = exported(site, tmp_path, kept)
    checked = check_bundle(bundle, trust=site.trust.encode())
    assert {finding.code for finding in checked.findings} == codes
    assert len(checked.statements) == statements
    listed = EvidenceIndex.parse((bundle / "evidence.json").read_bytes()).statements
    if suffix == ".tlog-proof":
        # The time an exchanged receipt would have lent it is not taken.
        assert sum(entry.attested is None for entry in listed) == 1


def test_digests_that_begin_alike_are_not_the_same(tmp_path: Path) -> None:
    site = AuditSite()
    release = site.release()
    twin = Digest(release.hex[:32] + "0" * 32)
    leaf = replace(Leaf.parse(site.log.entries[0]), payload=twin)
    site.log.append_raw(leaf.encode())
    site.log.publish()
    assert site.codes(tmp_path) == ["statement-withheld"]
    assert site.asked == [release, twin]
    with pytest.raises(NotFound):
        site.statement(twin)


def test_findings_are_told_apart_by_a_whole_digest_of_all_they_say() -> None:
    one = Finding(code=Code.UNKNOWN_KEY, message="m", name="a/b", index=1)
    keys = {one.key, *(replace(one, **change).key for change in
                       ({"code": Code.ROLE_MISSING}, {"message": "n"}, {"name": "a/c"}, {"index": 2},
                        {"statement": Digest("0" * 64)}, {"expected": "x"}, {"found": "x"}))}  # fmt: skip
    assert len(keys) == 8 and all(len(key) == 64 for key in keys)
