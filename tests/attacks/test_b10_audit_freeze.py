# SPDX-License-Identifier: Apache-2.0
"""B10 for auditors: a registry that keeps showing an old, genuine checkpoint is told on, and nothing is forgotten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import LogRollback
from pq_registry.format.instant import from_unix
from tests.auditing import AuditSite
from tests.logsamples import TIME

DAY = timedelta(seconds=limits.CHECKPOINT_STALE_SECONDS)


@pytest.mark.parametrize("witnesses", [0, 1])
@pytest.mark.parametrize(("late", "found"), [(timedelta(0), []), (timedelta(seconds=1), ["checkpoint-stale"])])
def test_the_age_of_the_checkpoint_is_that_of_its_youngest_signature(
    tmp_path: Path, witnesses: int, late: timedelta, found: list[str]
) -> None:
    site = AuditSite(witnesses=witnesses)
    site.release()
    assert site.codes(tmp_path, now=from_unix(TIME) + DAY + late) == found


def test_a_shorter_patience(tmp_path: Path) -> None:
    site = AuditSite()
    site.release()
    now = from_unix(TIME) + timedelta(hours=1)
    assert site.codes(tmp_path / "a", now=now) == []
    assert site.codes(tmp_path / "b", now=now, stale_seconds=3599) == ["checkpoint-stale"]


def test_after_a_newer_checkpoint_an_older_one_is_a_rollback_and_not_merely_old(tmp_path: Path) -> None:
    site = AuditSite()
    site.release()
    old = site.log.files["checkpoint"]
    site.release()
    assert site.codes(tmp_path) == []
    with pytest.raises(LogRollback):
        site.codes(tmp_path, note=old)
    assert site.codes(tmp_path) == []


def test_the_same_tree_under_an_older_signature_does_not_make_the_log_older(tmp_path: Path) -> None:
    site = AuditSite()
    site.release()
    old = site.log.files["checkpoint"]
    site.log.publish(TIME + 7200)
    now = from_unix(TIME + 7200)
    assert site.codes(tmp_path, now=now, stale_seconds=3600) == []
    assert site.codes(tmp_path, now=now, stale_seconds=3600, note=old) == ["checkpoint-stale"]
