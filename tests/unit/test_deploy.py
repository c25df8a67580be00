# SPDX-License-Identifier: Apache-2.0
"""What lies under deploy/ fits what is deployed: metrics of alerts exist, commands of units parse."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from pq_registry.client.audit.metrics import METRICS
from pq_registry.log.sequencer import LogHealth
from pq_registry.server.metrics import Metrics
from pqreg_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "pqreg-log.rules.yml"
UNITS = sorted((ROOT / "deploy" / "systemd").iterdir())


def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def known_metrics() -> set[str]:
    names = set(METRICS)
    metrics = Metrics()
    metrics.watch_log(lambda: LogHealth(0, 0, 0, None, None))
    metrics.watch_witnesses(list)
    for family in metrics.collectors.collect():
        names |= {sample.name for sample in family.samples} | {family.name}
        if family.type == "counter":
            names.add(f"{family.name}_total")
    return names


def test_every_alert_is_complete_and_uses_metrics_that_exist() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 8
    for rule in found:
        assert set(rule) >= {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
        used = set(re.findall(r"\bpqreg_\w+", rule["expr"]))
        assert used and used <= known_metrics(), used - known_metrics()


def test_the_audits_alerts_cover_what_must_not_be_missed() -> None:
    text = " ".join(rule["expr"] for rule in rules())
    for name in ("pqreg_audit_misbehaved", "pqreg_audit_findings_open", "pqreg_audit_checkpoint_timestamp_seconds",
                 "pqreg_log_failing", "pqreg_log_signed_age_seconds", "pqreg_log_quorum"):  # fmt: skip
        assert name in text


def test_every_alert_is_in_the_handbook() -> None:
    handbook = (ROOT / "docs" / "operations" / "audit.md").read_text()
    assert not [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in handbook]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_parse_and_call_commands_that_exist(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.read_text())
    if unit.suffix == ".timer":
        assert (unit.with_suffix(".service")).is_file()
        return
    words = shlex.split(parser["Service"]["ExecStart"])
    assert words[0] == "/usr/local/bin/pqreg"
    command = typer.main.get_command(app)
    context = command.make_context("pqreg", [words[1], "--help"], resilient_parsing=True)
    below = command.get_command(context, words[1])  # type: ignore[attr-defined]
    options = {option for parameter in below.params for option in parameter.opts}
    assert {word for word in words[2:] if word.startswith("-")} <= options
    assert parser["Service"]["ProtectSystem"] == "strict"
    assert parser["Service"]["NoNewPrivileges"] == "yes"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # The command need not be installed here.
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/pqreg", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
