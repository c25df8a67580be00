# SPDX-License-Identifier: Apache-2.0
"""How rounds of mirrors are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pqreg_cli.console import Output, count_text

if TYPE_CHECKING:
    from pq_registry.mirror.config import Mirror
    from pq_registry.mirror.outcome import Outcome, Report


def show_round(output: Output, reports: Sequence[tuple[Mirror, Report]], *, dry_run: bool) -> None:
    """What was done, or would be."""
    from pq_registry.mirror.outcome import State

    for mirror, report in reports:
        done = report.count(State.BEHIND if dry_run else State.MIRRORED)
        gone = report.count(State.WITHDRAWN)
        verb = "would bring" if dry_run else "brought"
        parts = [
            f"{verb} {count_text(done, 'tag')} to {mirror.hub}",
            f"{report.count(State.IN_STEP)} there already",
            *([f"{gone} removed"] if gone else []),
            *([f"{report.count(State.SKIPPED)} skipped"] if report.count(State.SKIPPED) else []),
            f"{len(report.bad)} refused",
        ]
        output.line(f"{mirror.name}: {', '.join(parts)}", "bad" if report.bad else "good")
        for one in report.outcomes:
            if one.state in (State.MIRRORED, State.BEHIND, State.WITHDRAWN):
                output.line(f"  {one.state}: {_subject(one)} -> {one.target}{_at(one)}")
        _show_bad(output, report)
    output.data(_json(reports, dry_run=dry_run))


def show_status(output: Output, reports: Sequence[tuple[Mirror, Report]]) -> bool:
    """How far the Hubs are; whether everything is there."""
    from pq_registry.mirror.outcome import State

    rows = [
        (mirror.name, one.repository, one.tag or "-", one.release or "-", one.state, one.commit or "-")
        for mirror, report in reports
        for one in report.outcomes
    ]
    if rows:
        output.table(("mirror", "repository", "tag", "release", "state", "commit"), rows)
    else:
        output.line("no tag of this registry is mirrored")
    for _, report in reports:
        _show_bad(output, report)
    output.data(_json(reports, dry_run=True))
    good = (State.IN_STEP, State.SKIPPED)
    return all(one.state in good for _, report in reports for one in report.outcomes)


def _show_bad(output: Output, report: Report) -> None:
    for one in report.bad:
        output.line(f"  {one.state}: {_subject(one)} -> {one.target}: {one.reason}", "bad")
    for text in report.notes:
        output.note(text)


def _subject(one: Outcome) -> str:
    return one.repository if one.tag is None else f"{one.repository}:{one.tag}"


def _at(one: Outcome) -> str:
    return "" if one.commit is None else f" at {one.commit}"


def _json(reports: Sequence[tuple[Mirror, Report]], *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "mirrors": [
            {
                "name": mirror.name,
                "hub": mirror.hub,
                "outcomes": [
                    {
                        "repository": one.repository,
                        "target": one.target,
                        "tag": one.tag,
                        "release": one.release,
                        "state": str(one.state),
                        "commit": one.commit,
                        "problem": None if one.problem is None else f"/problems/{one.problem}",
                        "reason": one.reason,
                        "seconds": round(one.seconds, 3),
                    }
                    for one in report.outcomes
                ],
                "notes": report.notes,
            }
            for mirror, report in reports
        ],
    }
