# SPDX-License-Identifier: Apache-2.0
"""What an audit says: per namespace who signed what, when and with which keys, and every finding that is open.

A finding stays open until somebody acknowledges it, so a problem is not forgotten because nothing new happened since.
All is well when none is open. Everything here is read from the state; memory does not grow with the log.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

from pq_registry import limits
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.client.audit.index import BAD, GOOD, UNCHECKED, UNCOVERED, AuditIndex
from pq_registry.client.audit.run import Outcome, trust_mark
from pq_registry.errors import UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, from_unix
from pq_registry.format.trustfile import TrustFile

STATES = {UNCHECKED: "not judged", GOOD: "good", UNCOVERED: "not in the trust file", BAD: "finding"}
CSV_COLUMNS = ("index", "time", "attested", "kind", "name", "identity", "statement", "state", "findings")


@dataclass(frozen=True, slots=True)
class Kept:
    """A finding that is kept, with its number and what became of it."""

    number: int
    finding: Finding
    noticed: str
    acknowledged: str | None
    note: str | None

    def to_json(self) -> dict[str, object]:
        """The members of its JSON."""
        return {
            "number": self.number,
            **self.finding.to_json(),
            "meaning": self.finding.code.meaning,
            "noticed": self.noticed,
            "acknowledged": self.acknowledged,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The state of an audit, for one output. ``open_count`` counts all open findings, ``findings`` holds the first."""

    value: dict[str, object]
    findings: tuple[Finding | Kept, ...]
    open_count: int
    namespaces: tuple[dict[str, object], ...]
    notes: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether nothing is open."""
        return self.open_count == 0


def make_report(index: AuditIndex, trust: TrustFile, outcome: Outcome, *, only: Collection[str] = ()) -> Report:
    """Report what is known after ``outcome``.

    Args:
        index: the state.
        trust: the trust file that was judged by.
        outcome: of the audit just done.
        only: keys of the namespaces to report; findings about the log itself are reported in any case.
    """
    kept = list(open_findings(index, only=only, limit=limits.AUDIT_FINDINGS_SHOWN))
    count = len(outcome.current) + open_count(index, only=only)
    namespaces = tuple(_namespaces(index, trust, only))
    notes = tuple(_notes(index, trust, outcome))
    checkpoint = outcome.checkpoint
    return Report(
        {
            "well": count == 0,
            "log": {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
                "signed": format_instant(outcome.checkpoint_time),
                "witnesses": sorted(outcome.judged.cosigners),
            },
            "new": {"leaves": outcome.leaves, "statements": outcome.statements},
            "not_judged": index.unchecked_count(),
            "namespaces": list(namespaces),
            "findings": [
                *({**one.to_json(), "meaning": one.code.meaning} for one in outcome.current),
                *(one.to_json() for one in kept),
            ],
            "open_findings": count,
            "notes": list(notes),
        },
        (*outcome.current, *kept),
        count,
        namespaces,
        notes,
    )


def open_findings(index: AuditIndex, *, only: Collection[str] = (), limit: int) -> Iterator[Kept]:
    """Findings nobody has acknowledged, the newest first."""
    for row in index.rows(
        f"SELECT * FROM findings WHERE acknowledged IS NULL{_among(only)} ORDER BY id DESC LIMIT ?",  # noqa: S608  placeholders
        *only, limit,
    ):  # fmt: skip
        yield kept_of(row)


def open_count(index: AuditIndex, *, only: Collection[str] = ()) -> int:
    """How many findings nobody has acknowledged."""
    query = f"SELECT count(*) FROM findings WHERE acknowledged IS NULL{_among(only)}"  # noqa: S608  placeholders
    return int(index.value(query, *only))


def acknowledge(index: AuditIndex, numbers: Collection[int], *, note: str, now: datetime) -> list[Kept]:
    """Close findings, with words that say why.

    Raises:
        UsageError: if a number is none of an open finding, or the words are missing or too long; nothing is closed.
        StorageError: if it cannot be recorded.
    """
    if not 0 < len(note) <= limits.AUDIT_NOTE_CHARS:
        raise UsageError("say why", expected=f"1 to {limits.AUDIT_NOTE_CHARS} characters", found=f"{len(note)}")
    closed = []
    with index.transaction():
        for number in numbers:
            row = next(index.rows("SELECT * FROM findings WHERE id = ? AND acknowledged IS NULL", number), None)
            if row is None:
                raise UsageError(f"there is no open finding {number}", hint="pqreg audit shows the numbers")
            index.execute(
                "UPDATE findings SET acknowledged = ?, note = ? WHERE id = ?", (format_instant(now), note, number)
            )
            closed.append(kept_of(row))
    return closed


def write_csv(index: AuditIndex, file: TextIO, *, only: Collection[str] = ()) -> int:
    """One line per leaf, oldest first; answers how many."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    count = 0
    where = f" WHERE l.namespace IN ({', '.join('?' * len(only))})" if only else ""
    for row in index.rows(
        "SELECT l.*, (SELECT group_concat(DISTINCT code) FROM findings f WHERE f.idx = l.idx) AS codes"  # noqa: S608  placeholders
        f" FROM leaves l{where} ORDER BY l.idx",
        *only,
    ):
        statement = None if row["payload"] is None else f"sha256:{row['payload']}"
        writer.writerow([
            row["idx"], _instant(row["time"]), _instant(row["attested"]), row["kind"], row["name"], row["identity"],
            statement, STATES[row["state"]], row["codes"],
        ])  # fmt: skip
        count += 1
    return count


def kept_of(row: sqlite3.Row) -> Kept:
    """The finding in a row of ``findings``."""
    finding = Finding(
        code=Code(row["code"]), message=row["message"], name=row["name"], index=row["idx"],
        statement=None if row["statement"] is None else Digest(row["statement"]), expected=row["expected"],
        found=row["found"],
    )  # fmt: skip
    return Kept(row["id"], finding, row["noticed"], row["acknowledged"], row["note"])


def _namespaces(index: AuditIndex, trust: TrustFile, only: Collection[str]) -> Iterator[dict[str, object]]:
    where = f" AND namespace IN ({', '.join('?' * len(only))})" if only else ""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for row in index.rows(
        "SELECT namespace, identity, kind, count(*) AS number, min(time) AS first, max(time) AS last,"  # noqa: S608  placeholders
        " sum(state = 3) AS bad, sum(state = 0) AS unjudged FROM leaves"
        f" WHERE namespace IS NOT NULL{where} GROUP BY namespace, identity, kind ORDER BY namespace, identity, kind",
        *only,
    ):
        signers = found.setdefault(row["namespace"], {})
        signer = signers.setdefault(
            row["identity"],
            {"identity": row["identity"], "roles": _roles(trust, row["namespace"], row["identity"]), "statements": {},
             "first": None, "last": None, "findings": 0, "not_judged": 0},
        )  # fmt: skip
        kinds = signer["statements"]
        assert isinstance(kinds, dict)
        kinds[row["kind"]] = row["number"]
        first, last = _instant(row["first"]), _instant(row["last"])
        signer["first"] = min(filter(None, (signer["first"], first)), key=str)
        signer["last"] = max(filter(None, (signer["last"], last)), key=str)
        signer["findings"] = int(str(signer["findings"])) + row["bad"]
        signer["not_judged"] = int(str(signer["not_judged"])) + row["unjudged"]
    for namespace, signers in found.items():
        yield {
            "namespace": namespace,
            "in_trust_file": namespace in trust.namespaces,
            "signers": list(signers.values()),
            "open_findings": open_count(index, only=(namespace,)) - open_count(index, only=("",)),
        }


def _roles(trust: TrustFile, namespace: str, identity: str) -> list[str]:
    known = trust.namespaces.get(namespace)
    if known is None:
        return []
    named = {"publisher": known.publishers, "revoker": known.revokers, "enrolment": known.enrolment,
             "refresher": known.refreshers}  # fmt: skip
    return [role for role, holders in named.items() if identity in holders]


def _notes(index: AuditIndex, trust: TrustFile, outcome: Outcome) -> Iterator[str]:
    if not outcome.judged.cosigners:
        yield "no independent witness attests this log's times; windows are judged at the time the log states"
    if caught := index.value("SELECT count(*) FROM misbehaviour"):
        yield f"this log has contradicted itself before: evidence of {caught} occasions is in the state directory"
    if unjudged := index.unchecked_count():
        yield f"{unjudged} leaves were followed without judging their statements"
    if index.meta("trust") not in (None, trust_mark(trust)):
        yield "some leaves were judged by an earlier trust file; --again judges all of them by this one"
    others = [
        row["namespace"] for row in index.rows("SELECT DISTINCT namespace FROM leaves WHERE namespace IS NOT NULL")
        if row["namespace"] not in trust.namespaces
    ]  # fmt: skip
    if others:
        yield f"not in the trust file and not judged: {', '.join(sorted(others)[:20])}" + (
            f" and {len(others) - 20} more" if len(others) > 20 else ""
        )
    for known in trust.namespaces.values():
        if not known.enrolment:
            granted = index.value(
                "SELECT count(*) FROM facts WHERE kind = 'grant' AND namespace = ?", known.namespace.key
            )
            if granted:
                yield (
                    f"{granted} grants of {known.namespace}: whether their recipients are certified was not checked, "
                    "as the trust file names no enrolment identity"
                )


def _among(only: Collection[str]) -> str:
    # Findings about the log itself have no namespace and concern everybody.
    return f" AND namespace IN ('', {', '.join('?' * len(only))})" if only else ""


def _instant(seconds: int | None) -> str | None:
    return None if seconds is None else format_instant(from_unix(seconds))
