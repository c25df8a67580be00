# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus. Labels come from closed sets: route templates, methods, statuses, problem codes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pq_registry.log.sequencer import LogHealth
from pq_registry.service.expiry import Outlook

if TYPE_CHECKING:  # a service without witnesses loads no HTTP client
    from pq_registry.service.witnessing import WitnessView

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_OF_THE_LOG: tuple[tuple[str, str, Callable[[LogHealth], float]], ...] = (
    ("pqreg_log_leaves", "Leaves of the log", lambda health: health.size),
    ("pqreg_log_waiting", "Statements that wait for their leaf", lambda health: health.waiting),
    ("pqreg_log_signed_age_seconds", "Time since the log last signed a checkpoint", lambda health: _age(health.time)),
    ("pqreg_log_quorum", "1 if the newest checkpoint published meets the log's own policy",
     lambda health: health.published is not None and health.published.quorum),
    ("pqreg_log_unpublished_leaves", "Leaves that no published checkpoint covers yet",
     lambda health: health.size - (0 if health.published is None else health.published.checkpoint.size)),
    ("pqreg_log_leader", "1 if this instance writes the log", lambda health: health.leading),
    ("pqreg_log_failing", "1 if the log takes nothing at the moment", lambda health: health.problem is not None),
)  # fmt: skip


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        # Not the process-wide default: two services in one process (tests) must not share counters.
        self.collectors = CollectorRegistry()
        self.requests = Counter(
            "pqreg_requests", "Requests answered", ("route", "method", "status"), registry=self.collectors
        )
        self.seconds = Histogram(
            "pqreg_request_seconds", "Time to the last byte of an answer", ("route",), buckets=_SECONDS,
            registry=self.collectors,
        )  # fmt: skip
        self.problems = Counter(
            "pqreg_problems", "Requests refused, by problem", ("problem",), registry=self.collectors
        )
        self.received = Counter("pqreg_received_bytes", "Bytes of request bodies", registry=self.collectors)
        self.sent = Counter("pqreg_sent_bytes", "Bytes of answers' bodies", registry=self.collectors)
        self.receipts = Histogram(
            "pqreg_receipt_seconds", "Time from a recorded statement to its receipt", buckets=_SECONDS,
            registry=self.collectors,
        )  # fmt: skip
        self.without_quorum = Counter(
            "pqreg_receipts_without_quorum", "Receipts answered that lack cosignatures", registry=self.collectors
        )
        self.active = Gauge("pqreg_active_requests", "Requests under way", registry=self.collectors)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def observe_receipt(self, seconds: float, *, quorum: bool) -> None:
        """Count one receipt answered."""
        self.receipts.observe(seconds)
        if not quorum:
            self.without_quorum.inc()

    def watch_log(self, health: Callable[[], LogHealth]) -> None:
        """Read these from the log whenever they are asked for."""
        for name, text, read in _OF_THE_LOG:
            gauge = Gauge(name, text, registry=self.collectors)
            gauge.set_function(lambda read=read: read(health()))  # type: ignore[misc]  # mypy infers no default

    def watch_witnesses(self, view: Callable[[], Sequence[WitnessView]]) -> None:
        """Read what witnesses did whenever it is asked for."""
        self.collectors.register(_WitnessCollector(view))

    def watch_expiry(self, outlook: Callable[[], Outlook | None]) -> None:
        """Read what expires soon whenever it is asked for."""
        self.collectors.register(_ExpiryCollector(outlook))

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.collectors)


class _WitnessCollector(Collector):
    """Counters that the asking of witnesses keeps itself."""

    def __init__(self, view: Callable[[], Sequence[WitnessView]]) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        """Requests by witness and outcome."""
        family = CounterMetricFamily(
            "pqreg_witness_requests", "Checkpoints witnesses were asked to cosign, by outcome",
            labels=("witness", "outcome"),
        )  # fmt: skip
        for witness in self._view():
            for outcome, count in witness.outcomes.items():
                family.add_metric((witness.name, outcome), count)
        yield family


class _ExpiryCollector(Collector):
    """What the catalogue says will lapse; nothing while it does not answer."""

    def __init__(self, outlook: Callable[[], Outlook | None]) -> None:
        self._outlook = outlook

    def collect(self) -> Iterator[Metric]:
        """Counts by kind and days, and of tokens made on the host."""
        outlook = self._outlook()
        if outlook is None:
            return
        family = GaugeMetricFamily(
            "pqreg_expiring", "Tags, statuses, keys and tokens in force that lapse within so many days",
            labels=("kind", "days"),
        )  # fmt: skip
        for one in outlook.expiring:
            family.add_metric((one.kind, str(one.days)), one.count)
        yield family
        yield GaugeMetricFamily(
            "pqreg_root_tokens", "Tokens in force that were made on the host, past the API", value=outlook.root_tokens
        )


def _age(since: int) -> float:
    return max(0.0, time.time() - since)
