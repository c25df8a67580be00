# SPDX-License-Identifier: Apache-2.0
"""Compares what was logged with what was logged before and after: what no leaf shows by itself.

* One statement was logged twice, and its signatures differ.
* The statements of a tag, a grant or a status are a chain: sequences without gap or fork, each naming the one before.
  Which of two statements was logged first does not matter, as publishers do not wait for one another.
* A tag points at a release that is in the log and not older than the one before.
* Refreshers change nothing but the expiry, and a status keeps every revocation.
* What was revoked was not used afterwards, also where the revocation came to light later.
* Who was granted a release was certified when the grant was logged, where the trust file names enrolment identities.

Only statements that were found genuine count here: nobody without a key can break somebody's chain. A comparison that
is made again makes the same findings, so one that was interrupted is simply made again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice, pairwise

from pq_registry import limits
from pq_registry.client.audit.finding import Code, Finding
from pq_registry.client.audit.index import BAD, AuditIndex
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, from_unix
from pq_registry.format.leaf import Kind
from pq_registry.format.trustfile import NamespaceTrust, TrustFile

_CHAINS = {
    Kind.TAG: ("tag", Code.TAG_CHAIN_BROKEN, Code.TAG_EQUIVOCATION),
    Kind.GRANT: ("grant", Code.GRANT_CHAIN_BROKEN, Code.GRANT_EQUIVOCATION),
    Kind.STATUS: ("status", Code.STATUS_CHAIN_BROKEN, Code.STATUS_EQUIVOCATION),
}


class Comparison:
    """One look at all that is known, for what leaves from ``first`` on have changed."""

    def __init__(
        self,
        index: AuditIndex,
        trust: TrustFile,
        *,
        first: int = 0,
        complete: bool = True,
        known_recipients: Collection[str] = (),
    ) -> None:
        """Nothing is compared yet.

        Args:
            index: the state.
            trust: who may do what.
            first: the first leaf that has not been compared.
            complete: whether every leaf of the log is there; in an evidence bundle what is absent proves nothing.
            known_recipients: recipients that need no certificate, e.g. the publishers' own.
        """
        self._index = index
        self._trust = trust
        self._first = first
        self._complete = complete
        self._known = frozenset(known_recipients)

    def record(self, *, noticed: datetime) -> int:
        """Make all comparisons and keep what was found; answers how many findings are new.

        Raises:
            StorageError: if the state cannot be used.
        """
        findings = self.findings()
        added = 0
        with self._index.transaction():
            # Some at a time: a hostile log can be wrong in every leaf.
            while some := list(islice(findings, limits.AUDIT_FINDINGS_SHOWN)):
                added += self._index.add_findings(some, noticed=noticed)
                for finding in some:
                    self._index.execute("UPDATE leaves SET state = ? WHERE idx = ?", (BAD, finding.index))
            # Judged is everything up to here, so the next comparison begins with the next leaf.
            self._index.execute(
                "INSERT OR REPLACE INTO meta SELECT 'compared', CAST(coalesce(max(idx) + 1, 0) AS BLOB) FROM leaves"
            )
        return added

    def findings(self) -> Iterator[Finding]:
        """Everything that does not agree."""
        yield from self._duplicates()
        touched = self._index.rows(
            "SELECT DISTINCT kind, subject FROM facts WHERE idx >= ? AND sequence IS NOT NULL", self._first
        )
        for row in touched:
            yield from self._chain(Kind(row["kind"]), row["subject"])
        yield from self._grants()
        yield from self._revoked()

    # -- leaves ------------------------------------------------------------------------------------------------------

    def _duplicates(self) -> Iterator[Finding]:
        for row in self._index.rows(
            "SELECT b.*, a.idx AS earlier FROM leaves b JOIN leaves a ON a.payload = b.payload AND a.kind = b.kind"
            " AND a.identity = b.identity AND a.idx < b.idx WHERE b.idx >= ? AND (a.ec <> b.ec OR a.pq <> b.pq)",
            self._first,
        ):
            yield _finding(
                Code.LEAF_DUPLICATE, row, f"leaf {row['earlier']} is of the same statement with other signatures",
                expected="one leaf for a statement, or one with the same signatures",
            )  # fmt: skip

    # -- chains ------------------------------------------------------------------------------------------------------

    def _chain(self, kind: Kind, subject: str) -> Iterator[Finding]:
        what, broken, equivocation = _CHAINS[kind]
        chain: list[sqlite3.Row] = []
        for row in self._index.rows(
            "SELECT * FROM facts WHERE kind = ? AND subject = ? ORDER BY sequence, idx", kind.value, subject
        ):
            if chain and row["payload"] == chain[-1]["payload"]:
                continue  # logged twice
            if chain and row["sequence"] == chain[-1]["sequence"]:
                yield _finding(
                    equivocation, row, f"two {what} statements of {subject} carry sequence {row['sequence']}",
                    expected=f"sha256:{chain[-1]['payload']}", found=f"sha256:{row['payload']}",
                )  # fmt: skip
                continue
            chain.append(row)
        if self._complete and chain and chain[0]["sequence"] != 1:
            yield _gap(broken, what, subject, 0, chain[0])
        for before, row in pairwise(chain):
            if row["sequence"] != before["sequence"] + 1:
                if self._complete:
                    yield _gap(broken, what, subject, before["sequence"], row)
                continue
            if row["previous"] != before["payload"]:
                yield _finding(
                    broken, row, f"this {what} statement of {subject} does not continue the one before",
                    expected=f"previous sha256:{before['payload']}", found=f"sha256:{row['previous']}",
                )  # fmt: skip
            yield from self._step(kind, before, row)
        if kind is Kind.TAG:
            yield from self._targets(chain)

    def _step(self, kind: Kind, before: sqlite3.Row, row: sqlite3.Row) -> Iterator[Finding]:
        """One statement and its successor."""
        if kind is Kind.STATUS:
            yield from self._shrunk(before, row)
        trusted = self._trusted(row)
        if trusted is None or row["signer"] not in trusted.refreshers:
            return
        role = trusted.publishers if kind is Kind.TAG else trusted.revokers
        if kind is Kind.GRANT or row["signer"] in role:
            return
        same = row["target"] == before["target"] and (kind is not Kind.STATUS or self._entries(before, row))
        if not same or row["until"] <= before["until"]:
            yield _finding(
                Code.ROLE_MISSING, row, "a refresher changed more than the expiry", expected="the same with a later "
                "expiry", found=f"{row['target'] or 'other content'}, until {row['until']}",
            )  # fmt: skip

    def _entries(self, before: sqlite3.Row, row: sqlite3.Row) -> bool:
        query = "SELECT kind, subject, since FROM revocations WHERE idx = ? ORDER BY kind, subject"
        one, other = ([tuple(entry) for entry in self._index.rows(query, item["idx"])] for item in (before, row))
        return one == other

    def _shrunk(self, before: sqlite3.Row, row: sqlite3.Row) -> Iterator[Finding]:
        for entry in self._index.rows(
            "SELECT a.kind, a.subject FROM revocations a WHERE a.idx = ? AND NOT EXISTS (SELECT 1 FROM revocations b"
            " WHERE b.idx = ? AND b.kind = a.kind AND b.subject = a.subject AND b.since <= a.since)",
            before["idx"], row["idx"],
        ):  # fmt: skip
            yield _finding(
                Code.STATUS_SHRANK, row, f"the revocation of {entry['kind']} {entry['subject']} was taken back",
                expected="every earlier entry, from the same time or earlier",
            )  # fmt: skip

    def _targets(self, chain: list[sqlite3.Row]) -> Iterator[Finding]:
        newest: int | None = None
        for row in chain:
            if row["target"] is None:
                continue
            logged = self._index.value(
                "SELECT min(idx) FROM leaves WHERE payload = ? AND kind = ? AND lower(name) = lower(?)",
                row["target"], Kind.RELEASE.value, row["name"],
            )  # fmt: skip
            if logged is None:
                if self._complete:
                    yield _finding(
                        Code.TAG_TARGET_UNLOGGED, row, f"{row['subject']} points at no release in the log",
                        found=f"sha256:{row['target']}",
                    )  # fmt: skip
                continue
            if newest is not None and logged < newest:
                yield _finding(
                    Code.TAG_MOVED_BACK, row, f"{row['subject']} was moved to a release older than the one before",
                    expected=f"a release logged at leaf {newest} or later", found=f"the one of leaf {logged}",
                )  # fmt: skip
            newest = logged

    # -- grants and revocations --------------------------------------------------------------------------------------

    def _grants(self) -> Iterator[Finding]:
        for row in self._index.rows(
            "SELECT * FROM facts WHERE kind = ? AND idx >= ? AND target IS NOT NULL", Kind.GRANT.value, self._first
        ):
            trusted = self._trusted(row)
            if trusted is None or not trusted.enrolment or row["recipient"] in self._known or not self._complete:
                continue
            when = format_instant(from_unix(row["time"]))
            certified = self._index.value(
                "SELECT 1 FROM facts WHERE kind = ? AND namespace = ? AND recipient = ? AND idx < ?"
                " AND (until IS NULL OR until > ?)",
                Kind.KEY.value, row["namespace"], row["recipient"], row["idx"], when,
            )  # fmt: skip
            if certified is None:
                yield _finding(
                    Code.RECIPIENT_UNCERTIFIED, row, "granted to a recipient nobody had certified at that time",
                    expected="a key statement by an enrolment identity, logged before and not lapsed",
                    found=f"recipient {row['recipient']}",
                )  # fmt: skip

    def _revoked(self) -> Iterator[Finding]:
        # Of several statements that revoke the same thing the earliest time counts.
        since = (
            "(SELECT namespace, kind, subject, min(since) AS since, max(idx) AS last FROM revocations"
            " GROUP BY namespace, kind, subject)"
        )
        for row in self._index.rows(
            f"SELECT l.*, coalesce(l.attested, l.time) AS used FROM leaves l JOIN {since} r ON r.kind = 'identity'"  # noqa: S608  nothing from outside
            " AND r.namespace = l.namespace AND r.subject = l.identity WHERE coalesce(l.attested, l.time) >= r.since"
            " AND (l.idx >= ? OR r.last >= ?)",
            self._first, self._first,
        ):  # fmt: skip
            trusted = self._trusted(row)
            if trusted is not None and Digest(row["payload"]) in trusted.pinned:
                continue
            yield _finding(
                Code.IDENTITY_REVOKED, row, f"the identity {row['identity']} was used after the time of its revocation",
                found=f"at {format_instant(from_unix(row['used']))}",
            )  # fmt: skip
        for code, kind, revoked, column, words in (
            (Code.TAG_TARGET_REVOKED, Kind.TAG, "release", "'sha256:' || f.target", "a tag was pointed at a release"),
            (Code.RECIPIENT_REVOKED, Kind.GRANT, "recipient", "f.recipient", "a grant went to a recipient"),
        ):
            for row in self._index.rows(
                f"SELECT f.* FROM facts f JOIN {since} r ON r.kind = ? AND r.namespace = f.namespace"  # noqa: S608  nothing from outside
                f" AND r.subject = {column} WHERE f.kind = ? AND f.target IS NOT NULL AND f.time >= r.since"
                " AND (f.idx >= ? OR r.last >= ?)",
                revoked, kind.value, self._first, self._first,
            ):  # fmt: skip
                yield _finding(
                    code, row, f"{words} after the time of its revocation",
                    found=f"{row['target'] if kind is Kind.TAG else row['recipient']} at "
                    f"{format_instant(from_unix(row['time']))}",
                )  # fmt: skip

    def _trusted(self, row: sqlite3.Row) -> NamespaceTrust | None:
        return self._trust.namespaces.get(row["namespace"])


def _gap(code: Code, what: str, subject: str, last: int, row: sqlite3.Row) -> Finding:
    return _finding(
        code, row, f"a {what} statement of {subject} is missing in the log", expected=f"sequence {last + 1}",
        found=f"sequence {row['sequence']}",
    )  # fmt: skip


def _finding(
    code: Code, row: sqlite3.Row, message: str, *, expected: str | None = None, found: str | None = None
) -> Finding:
    return Finding(
        code=code, message=message, name=row["name"], index=row["idx"], statement=Digest(row["payload"]),
        expected=expected, found=found,
    )  # fmt: skip
