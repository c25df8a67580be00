# SPDX-License-Identifier: Apache-2.0
"""How audits and evidence are shown: findings first, then who signed what, per namespace."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pqreg_cli.console import Output, count_text
from pqreg_cli.problem import Problem

if TYPE_CHECKING:
    from pq_registry.client.audit.check import Checked, Judged
    from pq_registry.client.audit.finding import Finding
    from pq_registry.client.audit.report import Kept, Report
    from pq_registry.errors import PqregError

_FIRST = 50
"""Findings shown to people; --json and --csv have more."""


def show_report(output: Output, report: Report) -> None:
    """Print a report."""
    log: Any = report.value["log"]
    new: Any = report.value["new"]
    _show_findings(output, report)
    judged = count_text(new["statements"], "statement")
    output.line(
        f"log {log['origin']}: {leaves_text(log['size'])}, {new['leaves']} new, {judged} judged",
        None if report.open_count else "good",
    )
    witnesses = ", ".join(log["witnesses"]) or "no independent witness"
    output.fields([("signed", log["signed"]), ("cosigned", witnesses), ("root", log["root"])])
    rows = [row for namespace in report.namespaces for row in _rows(namespace)]
    if rows:
        output.line("")
        output.table(["namespace", "identity", "role", "signed", "first", "last", "findings"], rows)
    for note in report.notes:
        output.note(note)
    output.data(report.value)


def show_round(output: Output, report: Report, now: datetime) -> None:
    """One round of a following audit, in a line; with --json one JSON value per line."""
    from pq_registry.format.instant import format_instant

    log: Any = report.value["log"]
    new: Any = report.value["new"]
    state = "all is well" if report.well else count_text(report.open_count, "open finding")
    output.line(
        f"{format_instant(now)}  {leaves_text(log['size'])}, {new['leaves']} new, {new['statements']} judged: {state}",
        "good" if report.well else "bad",
    )
    if output.json:
        print(json.dumps({"time": format_instant(now), **report.value}), flush=True)


def show_failed_round(output: Output, error: PqregError, now: datetime) -> None:
    """A round that failed, or a webhook that did: a line on standard error, also with --json."""
    from pq_registry.format.instant import format_instant

    output.warning(f"{format_instant(now)}  {error}")
    if output.json:
        problem = {"time": format_instant(now), **Problem.of(error).members}
        print(json.dumps(problem), file=sys.stderr, flush=True)


def leaves_text(count: int) -> str:
    """``1 leaf``, ``2 leaves``."""
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def show_checked(output: Output, checked: Checked, *, path: str) -> None:
    """Print what came of a bundle."""
    from pq_registry.format.instant import format_instant

    index = checked.index
    for finding in checked.findings:
        _show_finding(output, finding, None)
    for one, other in checked.misbehaviour:
        output.line(f"the log {one.origin} has contradicted itself: {one.size} leaves with root {one.root.hex()}, and "
                    f"{other.size} leaves with root {other.root.hex()}", "bad")  # fmt: skip
    if not checked.findings and not checked.misbehaviour:
        output.line(f"verified: {path}, {count_text(len(checked.statements), 'statement')}", "good")
    attested = sorted(one.attested for one in checked.statements if one.attested is not None)
    times = f"{format_instant(attested[0])} to {format_instant(attested[-1])}" if attested else None
    alone = sum(one.proved and one.attested is None for one in checked.statements)
    unproved = sum(not one.proved for one in checked.statements)
    output.fields(
        [
            ("auditor", index.auditor + ("" if checked.auditor_known else " (by its own word)")),
            ("made", format_instant(index.created)),
            ("about", index.scope),
            ("registry", index.registry),
            ("log", f"{checked.checkpoint.origin}, {checked.checkpoint.size} leaves"),
            ("trust file", f"version {checked.trust.version}, expires {format_instant(checked.trust.expires)}"),
            ("judged at", times and f"the attested times, {times}"),
            ("unattested", f"{alone}: judged at the time the log alone states" if alone else None),
            ("unproved", f"{unproved}: no receipt shows that and when they were logged" if unproved else None),
        ]
    )
    rows = [
        (one.entry.index, one.entry.kind.value, one.entry.name, one.entry.identity, one.entry.payload,
         format_instant(one.attested or one.entry.time) + _by(one))
        for one in checked.statements
    ]  # fmt: skip
    output.line("")
    output.table(["leaf", "kind", "name", "identity", "statement", "judged at"], rows)
    for note in checked.notes:
        output.note(note)
    output.data(_checked_json(checked))


def _by(one: Judged) -> str:
    if not one.proved:
        return " (the auditor's word)"
    return "" if one.attested else " (log)"


def _checked_json(checked: Checked) -> dict[str, object]:
    from pq_registry.format.instant import format_instant

    index = checked.index
    return {
        "verified": not checked.findings and not checked.misbehaviour,
        "auditor": index.auditor,
        "auditor_demanded": checked.auditor_known,
        "created": format_instant(index.created),
        "scope": index.scope,
        "registry": index.registry,
        "log": {"origin": checked.checkpoint.origin, "size": checked.checkpoint.size,
                "root": checked.checkpoint.root.hex()},
        "trust": {"version": checked.trust.version, "expires": format_instant(checked.trust.expires)},
        "software": dict(index.software),
        "statements": [
            {
                "index": one.entry.index,
                "kind": one.entry.kind.value,
                "name": one.entry.name,
                "identity": one.entry.identity,
                "statement": str(one.entry.payload),
                "judged_at": format_instant(one.attested or one.entry.time),
                "attested": one.attested is not None,
                "proved": one.proved,
            }
            for one in checked.statements
        ],
        "findings": [{**one.to_json(), "meaning": one.code.meaning} for one in checked.findings],
        "auditor_findings": len(index.findings),
        "misbehaviour": [
            [{"size": each.size, "root": each.root.hex()} for each in pair] for pair in checked.misbehaviour
        ],
        "notes": list(checked.notes),
    }  # fmt: skip


def _show_findings(output: Output, report: Report) -> None:
    for one in report.findings[:_FIRST]:
        _show_finding(output, *_parts(one))
    if report.open_count > _FIRST:
        output.line(f"and {report.open_count - _FIRST} more; --json or --csv FILE has them")
    if report.open_count:
        output.line(f"{count_text(report.open_count, 'open finding')}; docs/operations/audit.md says what to do", "bad")
    else:
        output.line("all is well", "good")


def _parts(one: Finding | Kept) -> tuple[Finding, int | None]:
    from pq_registry.client.audit.report import Kept

    return (one.finding, one.number) if isinstance(one, Kept) else (one, None)


def _show_finding(output: Output, finding: Finding, number: int | None) -> None:
    head = finding.code.value if number is None else f"{number}  {finding.code.value}"
    where = " ".join(filter(None, (finding.name, None if finding.index is None else f"(leaf {finding.index})")))
    output.line(f"{head}  {where}", "bad")
    output.fields(
        [
            ("  what", finding.message),
            ("  expected", finding.expected),
            ("  found", finding.found),
            ("  statement", finding.statement),
        ]
    )


def _rows(namespace: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for signer in namespace["signers"]:
        signed = ", ".join(f"{count} {kind}" for kind, count in signer["statements"].items())
        roles = ", ".join(signer["roles"]) or ("none" if namespace["in_trust_file"] else "-")
        rows.append(
            (namespace["namespace"], signer["identity"], roles, signed, signer["first"], signer["last"],
             signer["findings"] or "-")
        )  # fmt: skip
    return rows
