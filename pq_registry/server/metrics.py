# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus. Labels come from closed sets: route templates, methods, statuses, problem codes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


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
        self.active = Gauge("pqreg_active_requests", "Requests under way", registry=self.collectors)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.collectors)
