# SPDX-License-Identifier: Apache-2.0
"""Alerts and dashboard: every metric, problem and route they name exists, and every alert has something to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pq_registry.client.audit.metrics import METRICS
from pq_registry.log.sequencer import LogHealth
from pq_registry.log.witness import Outcome
from pq_registry.server.metrics import Metrics
from pq_registry.service.expiry import Outlook
from tests.deploy.tooling import DEPLOY, ROOT, needs, run
from tests.unit.test_docs import anchors

FOLDER = DEPLOY / "prometheus"
RULES = sorted(FOLDER.glob("*.rules.yml"))
DASHBOARD = DEPLOY / "grafana" / "pqreg.json"
OF_OTHERS = {
    "up",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_systemd_timer_last_trigger_seconds",
    "node_systemd_unit_state",
    "node_timex_offset_seconds",
    "node_timex_sync_status",
    "kube_job_status_failed",
    "probe_ssl_earliest_cert_expiry",
}
"""Metrics of Prometheus itself, node_exporter, kube-state-metrics and blackbox_exporter."""
WORDS_OF_PROMQL = {
    "sum",
    "by",
    "rate",
    "increase",
    "absent",
    "changes",
    "offset",
    "or",
    "and",
    "on",
    "le",
    "time",
    "max",
    "min",
    "topk",
    "vector",
    "histogram_quantile",
    "predict_linear",
    "abs",
    "label_values",
    "instance",
    "job_name",
    "without",
    "unless",
}


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def service_metrics() -> Metrics:
    """With everything a service watches."""
    metrics = Metrics()
    metrics.watch_log(lambda: LogHealth(0, 0, 0, None, None))
    metrics.watch_witnesses(list)
    metrics.watch_expiry(lambda: Outlook((), 0))
    return metrics


def known_metrics() -> set[str]:
    """As Prometheus sees them."""
    names = set(METRICS)
    for family in service_metrics().collectors.collect():
        names |= {sample.name for sample in family.samples} | {family.name}
        if family.type == "counter":
            names.add(f"{family.name}_total")
        if family.type == "histogram":
            names.add(f"{family.name}_bucket")
    source = (ROOT / "pq_registry" / "server" / "witness.py").read_text()
    names |= {f"{name}_total" for name in re.findall(r'Counter\(\s*"(pqreg_\w+)"', source)}
    return names | set(re.findall(r'GaugeMetricFamily\(\s*"(pqreg_\w+)"', source))


def used(expression: str) -> set[str]:
    """The metrics an expression reads."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(by|on|without)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", bare)) - WORDS_OF_PROMQL


def test_every_alert_is_complete_and_uses_metrics_that_exist() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) >= 30
    for rule in found:
        assert set(rule) >= {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}
        names = used(rule["expr"])
        assert names, rule["alert"]
        assert names <= known_metrics() | OF_OTHERS, f"{rule['alert']}: {names - known_metrics() - OF_OTHERS}"


def test_every_alert_leads_to_a_section_of_the_runbooks_that_names_it() -> None:
    for rule in rules():
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        page = ROOT / path
        assert anchor in anchors(page), f"{rule['alert']}: {anchor}"
        assert f"`{rule['alert']}`" in section(page, anchor), f"{rule['alert']} is not in {path}#{anchor}"


def section(page: Path, anchor: str) -> str:
    """The text below the heading of an anchor, up to the next heading of its depth."""
    kept: list[str] = []
    inside = False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("## "):
            inside = re.sub(r"[^\w\- ]", "", line[3:].lower()).replace(" ", "-") == anchor
        if inside:
            kept.append(line)
    return "\n".join(kept)


def test_labels_that_expressions_match_can_occur() -> None:
    problems = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs/spec/errors.md").read_text(), re.MULTILINE))
    outcomes = {outcome.value for outcome in Outcome} | {"busy", "unreachable", "refused", "ahead", "lying", "clock"}
    for expression in expressions():
        for pattern in re.findall(r'problem=~?"([^"]+)"', expression):
            assert set(pattern.split("|")) <= problems, expression
        for pattern in re.findall(r'outcome!?=~?"([^"]+)"', expression):
            assert set(pattern.split("|")) <= outcomes, expression


def test_the_alerts_cover_what_must_not_be_missed() -> None:
    text = " ".join(rule["expr"] for rule in rules())
    for name in (
        "pqreg_audit_misbehaved",
        "pqreg_audit_findings_open",
        "pqreg_audit_checkpoint_timestamp_seconds",
        "pqreg_log_failing",
        "pqreg_log_signed_age_seconds",
        "pqreg_log_quorum",
        "pqreg_witness_evidence_notes",
        "storage-error",
    ):
        assert name in text


def test_every_alert_of_log_and_audit_is_in_the_auditors_handbook() -> None:
    handbook = (ROOT / "docs" / "operations" / "audit.md").read_text()
    log = yaml.safe_load((FOLDER / "pqreg-log.rules.yml").read_text())
    names = [rule["alert"] for group in log["groups"] for rule in group["rules"]]
    assert not [name for name in names if f"`{name}`" not in handbook]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])


def test_the_dashboard_shows_metrics_that_exist() -> None:
    for panel in panels():
        assert panel["title"]
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            names = used(expression)
            assert names and names <= known_metrics() | OF_OTHERS, f"{panel['title']}: {names - known_metrics()}"


def test_the_dashboard_is_laid_out() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
        # Whoever imports it chooses the source.
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    assert {"datasource", "instance"} == {variable["name"] for variable in board["templating"]["list"]}


def test_every_metric_of_the_service_is_in_the_dashboard_or_an_alert() -> None:
    shown = " ".join(expressions())
    names = {family.name for family in service_metrics().collectors.collect()}
    assert not [name for name in names if name not in shown]


def test_prometheus_asks_who_the_compose_file_starts() -> None:
    configured = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    targets = [
        target
        for job in configured["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(compose["services"])
    assert {job["job_name"] for job in configured["scrape_configs"]} >= set(
        re.findall(r'job="(pqreg[a-z-]*)"', " ".join(rule["expr"] for rule in rules()))
    ) - {"pqreg-tls"}


def test_alerts_that_alertmanager_sorts_exist() -> None:
    text = (FOLDER / "alertmanager.example.yml").read_text()
    named = set(re.findall(r"Pqreg\w+", text))
    assert named and named <= {rule["alert"] for rule in rules()}


@needs("promtool")
def test_prometheus_accepts_the_rules(tmp_path: Path) -> None:
    run("promtool", "check", "rules", *RULES)
    text = (FOLDER / "prometheus.yml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        text.replace("/etc/prometheus/rules", str(FOLDER)).replace("/run/secrets/metrics_token", "/dev/null")
    )
    run("promtool", "check", "config", config)


@needs("promtool")
def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    run("promtool", "test", "rules", ROOT / "tests" / "deploy" / "alerts.test.yml")


@needs("amtool")
def test_alertmanager_accepts_its_example() -> None:
    run("amtool", "check-config", FOLDER / "alertmanager.example.yml")
