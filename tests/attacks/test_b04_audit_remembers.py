# SPDX-License-Identifier: Apache-2.0
"""B4 for the auditor: a log that contradicted itself and goes back to its old history is not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry.client.audit.check import check_bundle
from pq_registry.client.audit.export import Scope, export
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.judging import Judge
from pq_registry.client.audit.report import acknowledge, make_report
from pq_registry.errors import LogEquivocation, LogMisbehaved, LogRollback
from tests.auditing import NOW, AuditSite, found
from tests.unit.test_audit_evidence import making


@pytest.mark.parametrize(("at", "error"), [(1, LogRollback), (2, LogEquivocation)])
def test_b04_a_log_that_went_back_to_its_old_history_is_not_well(
    tmp_path: Path, at: int, error: type[LogMisbehaved]
) -> None:
    site = AuditSite()
    site.tag(site.release())
    fork = site.log.fork(at=1)
    if at > 1:
        fork.append_raw(b"another")
    fork.publish()
    with AuditIndex(tmp_path) as index:
        site.audit(index)
        for _ in range(2):  # the same again is the same finding
            with pytest.raises(error):
                site.audit(index, note=fork.files["checkpoint"])
    with AuditIndex(tmp_path) as index:
        report = make_report(index, site.trust, site.audit(index), only=("acme",))
        assert any("contradicted itself before" in note for note in report.notes)
        assert report.well == (error is LogRollback)
        # In evidence it stands once, and is proved where two trees of one size prove it.
        export(index, Judge(site.trust), site, tmp_path / "bundle", Scope(), making(site))
        checked = check_bundle(tmp_path / "bundle", trust=site.trust.encode())
        assert [entry.code for entry in checked.index.findings] == [error.code()]
        assert len(checked.misbehaviour) == (at > 1)
        if report.well:
            return  # a smaller tree, perhaps from a stale copy: nothing that could still be proved
        [one] = found(report)
        assert (one["code"], one["name"]) == ("log-equivocation", "")
        acknowledge(index, [one["number"]], note="a restored backup, says the operator", now=NOW)
        assert make_report(index, site.trust, site.audit(index)).well
