# SPDX-License-Identifier: Apache-2.0
"""What a gateway counts, for Prometheus. Labels come from closed sets."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        # Not the process-wide default: two gateways in one process (tests) must not share counters.
        self.collectors = CollectorRegistry()
        self.requests = Counter(
            "pqreg_gateway_requests", "Requests answered", ("route", "method", "status"), registry=self.collectors
        )
        self.problems = Counter(
            "pqreg_gateway_problems", "Requests refused, by problem", ("problem",), registry=self.collectors
        )
        self.sent = Counter("pqreg_gateway_sent_bytes", "Verified bytes sent", registry=self.collectors)
        self.read = Counter(
            "pqreg_gateway_read_bytes", "Stored bytes that passed their check, by where they came from", ("origin",),
            registry=self.collectors,
        )  # fmt: skip
        self.refused = Counter(
            "pqreg_gateway_wrong_shards", "Shards that were not what was signed, each time they were read",
            registry=self.collectors,
        )  # fmt: skip
        self.aborted = Counter(
            "pqreg_gateway_aborted", "Answers broken off because a shard could not be had or was wrong",
            registry=self.collectors,
        )  # fmt: skip
        self.active = Gauge("pqreg_gateway_downloads", "Downloads under way", registry=self.collectors)
        for origin in ("network", "cache", "directory"):
            self.read.labels(origin)

    def brought(self, origin: str, count: int) -> None:
        """Count a shard that passed its check."""
        self.read.labels(origin).inc(count)

    def wrong(self) -> None:
        """Count a shard that did not."""
        self.refused.inc()

    def watch_cache(self, used: Callable[[], int], size: int) -> None:
        """Read the cache's size whenever it is asked for."""
        Gauge("pqreg_gateway_cache_bytes", "Bytes in the cache", registry=self.collectors).set_function(used)
        Gauge("pqreg_gateway_cache_limit_bytes", "Bytes the cache may have", registry=self.collectors).set(size)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.collectors)
