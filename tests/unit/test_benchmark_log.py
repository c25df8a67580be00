# SPDX-License-Identifier: Apache-2.0
"""What `make bench` measures of the log, at a size that takes a moment: it runs, and it does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.benchmarks import child_log, logaudit, logsections
from tests.benchmarks.contest import Contender, Result, Run, Section


def test_appends_are_counted_and_timed(tmp_path: Path) -> None:
    done = child_log.append(str(tmp_path), "5", "40")
    assert done["appends_per_s"] == pytest.approx(40 / done["seconds"])
    assert 0 < done["p50_ms"] <= done["p99_ms"] <= 1000 * done["seconds"]
    assert (tmp_path / "log" / "checkpoint").read_bytes().split(b"\n")[1] == b"40"


@pytest.mark.parametrize("who", ["ours", "proofbundle"])
def test_receipts_are_verified(who: str) -> None:
    if who == "proofbundle" and importlib.util.find_spec("proofbundle") is None:
        pytest.skip("PyPI's proofbundle is not installed")
    done = child_log.receipts("5", "1", who)
    assert done["receipts_per_s"] == pytest.approx(5 / done["seconds"])


def test_a_log_is_followed_to_every_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logaudit, "STATEMENTS", 5)
    assert child_log.grow(str(tmp_path / "log"), "600")["leaves"] == 600
    assert child_log.audit(str(tmp_path / "log"), "leaves")["leaves"] == 600
    assert child_log.audit(str(tmp_path / "log"), "index")["leaves"] == 600
    (tmp_path / "other").mkdir()
    assert child_log.audit(str(tmp_path / "other"), "statements")["leaves"] == 5


def test_rates_are_medians_and_stand_in_the_notes() -> None:
    runs = [Run(1, 1, 1, 0, 0, 1, {"receipts_per_s": rate}) for rate in (10, 30, 20)]
    failed = Result(Contender(name="absent", command=[]), error="no luck")
    section = Section("k", "title", 0, "x", [Result(Contender(name="ours", command=[]), runs), failed])
    logsections._add_rates(section, "receipts_per_s", "receipts")
    assert section.notes == ["ours: 20 receipts/s"]
    assert "not measured here" in logsections.ORIENTATION
