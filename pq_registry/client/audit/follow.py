# SPDX-License-Identifier: Apache-2.0
"""Audits again and again: one round after another, new findings told to a webhook, figures for Prometheus.

A round that fails because the registry or the network does is counted and the next one comes; nothing is lost, as the
state moved on only as far as it was verified. A log that contradicts itself is told and ends the loop, except where
metrics are served: then the figure stays up for the alert to be seen, and every round ends the same way, because the
state does not move past it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from pq_registry import limits
from pq_registry.client.audit.index import AuditIndex
from pq_registry.client.audit.metrics import AuditMetrics
from pq_registry.client.audit.report import Report, kept_of
from pq_registry.client.audit.run import Outcome
from pq_registry.errors import LogMisbehaved, PqregError, TransportError
from pq_registry.format.instant import format_instant


class Listener(Protocol):
    """Who is told: ``audit.webhook.Webhook``."""

    def tell(self, value: dict[str, object]) -> None:
        """Send one document. Raises TransportError."""


class Follower:
    """The rounds."""

    def __init__(
        self,
        index: AuditIndex,
        audit: Callable[[datetime], tuple[Outcome, Report]],
        *,
        clock: Callable[[], datetime],
        shown: Callable[[Report | PqregError], None],
        webhook: Listener | None = None,
        metrics: AuditMetrics | None = None,
    ) -> None:
        """Nothing happens yet.

        Args:
            index: the state.
            audit: one audit, and its report.
            clock: what time it is.
            shown: told how each round ended.
            webhook: told what is new.
            metrics: where figures go; if there are any, misbehaviour does not end the loop.
        """
        self._index = index
        self._audit = audit
        self._clock = clock
        self._shown = shown
        self._webhook = webhook
        self._metrics = metrics or AuditMetrics()
        self._stays = metrics is not None
        self._told_misbehaviour = False

    def run(self, wait: Callable[[], bool]) -> bool:
        """Audit until ``wait``, which sleeps between rounds, answers that it is enough; whether all was well at last.

        Raises:
            LogMisbehaved: if the log contradicted itself.
        """
        misbehaved: LogMisbehaved | None = None
        well = True
        while True:
            try:
                well = self.round()
            except LogMisbehaved as error:
                misbehaved = error
                if not self._stays:
                    raise
            if wait():
                break
        if misbehaved is not None:
            raise misbehaved
        return well

    def round(self) -> bool:
        """One audit; whether nothing is open.

        Raises:
            LogMisbehaved: if the log contradicts itself; it has been told.
        """
        now = self._clock()
        try:
            outcome, report = self._audit(now)
        except LogMisbehaved as error:
            self._metrics.ran("misbehaved")
            self._metrics.set("pqreg_audit_misbehaved", 1)
            self._shown(error)
            self._tell_misbehaviour(error, now)
            raise
        except PqregError as error:
            # Also a checkpoint or tile that is not to be believed: no proof against the log, and no audit either.
            self._metrics.ran("failed")
            self._shown(error)
            return False
        self._metrics.ran("well" if report.well else "findings")
        self._metrics.add("pqreg_audit_leaves_total", outcome.leaves)
        self._metrics.add("pqreg_audit_statements_total", outcome.statements)
        self._metrics.set("pqreg_audit_findings_open", report.open_count)
        self._metrics.set("pqreg_audit_tree_size", outcome.checkpoint.size)
        self._metrics.set("pqreg_audit_checkpoint_timestamp_seconds", int(outcome.checkpoint_time.timestamp()))
        self._metrics.set("pqreg_audit_last_success_timestamp_seconds", int(now.timestamp()))
        self._shown(report)
        self._tell_findings(outcome, now)
        return report.well

    def _tell_findings(self, outcome: Outcome, now: datetime) -> None:
        """What is new, oldest first; told once."""
        if self._webhook is None:
            return
        while True:
            rows = list(
                self._index.rows("SELECT * FROM findings WHERE told = 0 ORDER BY id LIMIT ?", limits.WEBHOOK_FINDINGS)
            )
            if not rows:
                return
            told = self._tell(
                {
                    "time": format_instant(now),
                    "log": outcome.checkpoint.origin,
                    "size": outcome.checkpoint.size,
                    "findings": [kept_of(row).to_json() for row in rows],
                    "misbehaviour": None,
                }
            )
            if not told:
                return
            with self._index.transaction():
                self._index.execute("UPDATE findings SET told = 1 WHERE id <= ?", (rows[-1]["id"],))

    def _tell_misbehaviour(self, error: LogMisbehaved, now: datetime) -> None:
        if self._webhook is None or self._told_misbehaviour:
            return
        self._told_misbehaviour = self._tell(
            {
                "time": format_instant(now),
                "log": None,
                "size": None,
                "findings": [],
                "misbehaviour": {"code": error.code(), "message": error.message, "expected": error.expected,
                                 "found": error.found},
            }
        )  # fmt: skip

    def _tell(self, value: dict[str, object]) -> bool:
        assert self._webhook is not None
        try:
            self._webhook.tell(value)
        except TransportError as error:
            self._metrics.add("pqreg_audit_webhook_failures_total", 1)
            self._shown(error)
            return False
        return True
