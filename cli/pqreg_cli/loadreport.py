# SPDX-License-Identifier: Apache-2.0
"""What there is to say of a load: where the time of its threads went, and what limited it; also as JSON.

A load is a few threads that each read, check, unseal and copy one run of shards after another, and a caller who waits
for tensors. So time is thread time: ``threads`` times the wall clock. What no stage accounts for (locks, the
interpreter, threads that had ended) is shown as ``other``, so that the rows add up to all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pqreg_cli.releaseview import release_json

if TYPE_CHECKING:
    from pq_registry.client.meter import Spent
    from pq_registry.format.inner import Inner
    from pq_registry.loader.opening import OpenRelease
    from pq_registry.loader.options import Request
    from pq_registry.loader.selection import Unit
    from pqreg_cli.loadmeasure import Pass

STARVED: Final = 0.6
"""A thread that computes and has a core for less than this share of the time is waiting for one."""

CALLER: Final = "wait"
"""The one stage that is the caller's time and not a thread's."""

Limit = Literal["network", "storage", "memory", "blake3", "aes", "cores", "consumer", "device", "ranks", "overhead"]

LIMITS: Final[dict[str, Limit]] = {
    "hash": "blake3",
    "unseal": "aes",
    "held": "consumer",
    "gather": "ranks",
    "other": "overhead",
}
"""What a stage stands for, where that does not depend on the rest."""


@dataclass(frozen=True, slots=True)
class Row:
    """One stage: its share of the time of all threads, and what share was spent before it."""

    name: str
    spent: Spent
    share: float
    before: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything there is to say of one command: ``passes`` loads of ``units`` by ``threads`` threads each.

    ``verifying`` are the seconds until the release was believed; ``before`` and ``peak`` the most memory this process
    had before the first load and at all, ``device_peak`` the most bytes of tensors on a CUDA device.
    """

    opened: OpenRelease
    request: Request
    units: Sequence[Unit]
    passes: Sequence[Pass]
    framework: str
    on_cpu: bool
    verifying: float
    before: int
    peak: int
    device_peak: int | None

    @property
    def typical(self) -> Pass:
        """The load of median duration, the faster of two."""
        return sorted(self.passes, key=lambda one: one.seconds)[(len(self.passes) - 1) // 2]

    @property
    def threads(self) -> int:
        """Threads of each load."""
        return self.opened.workers

    @property
    def remote(self) -> bool:
        """Whether the bytes came from a registry."""
        return self.request.expect is None

    @property
    def inner(self) -> Inner | None:
        """What a sealed release says of its plaintext."""
        return None if self.opened.unsealed is None else self.opened.unsealed.inner

    @property
    def dtypes(self) -> dict[str, tuple[int, int]]:
        """Tensors and bytes by dtype, most bytes first."""
        found: dict[str, tuple[int, int]] = {}
        for unit in self.units:
            tensors, count = found.get(unit.entry.dtype, (0, 0))
            found[unit.entry.dtype] = (tensors + 1, count + unit.end - unit.start)
        return dict(sorted(found.items(), key=lambda item: (-item[1][1], item[0])))

    def rows(self, one: Pass) -> list[Row]:
        """The stages of the threads in their order, without those that did not happen, and ``other``."""
        from pq_registry.client.meter import STAGES, Spent

        stages = [(str(name), one.meter[name]) for name in STAGES if name != CALLER]
        busy = sum(spent.seconds for _, spent in stages)
        total = max(self.threads * one.seconds, busy)
        found, before = [], 0.0
        for name, spent in (*stages, ("other", Spent(total - busy))):
            share = spent.seconds / total if total else 0.0
            if spent.seconds or spent.count:
                found.append(Row(name, spent, share, before))
            before += share
        return found

    def limit(self, one: Pass) -> Limit:
        """What most of the time went into that the threads had something to do.

        Of small releases some threads have nothing left to do while others still read the last run, so ``other`` is
        the limit only if at most times not even one thread was busy.
        """
        rows = sorted(self.rows(one), key=lambda row: row.share, reverse=True)
        busy = sum(row.spent.seconds for row in rows if row.name != "other")
        name = rows[1].name if rows[0].name == "other" and busy >= one.seconds / 2 else rows[0].name
        cached = not self.remote and one.from_disk < one.count / 2
        on_device = () if self.on_cpu else ("copy",) if self.request.check_on == "cpu" else ("copy", "hash", "unseal")
        if name in on_device:
            return "device"
        computing = {"hash", "unseal", "copy", *(("read",) if cached else ())}.difference(on_device)
        spent = sum(row.spent.seconds for row in rows if row.name in computing)
        if name in computing and one.processor < STARVED * spent:
            return "cores"
        if name == "copy" or (name == "unseal" and one.system > one.user):
            return "memory"  # also if decrypting is the first to touch that memory: its time goes into page faults
        if name == "read":
            return "memory" if cached else "network" if self.remote else "storage"
        return LIMITS[name]


def report_json(report: Report) -> dict[str, object]:
    """The same as JSON."""
    one, opened, request = report.typical, report.opened, report.request
    return {
        **release_json(opened.verified, opened.tag, inner=report.inner),
        "unsealed": opened.unsealed is not None,
        "source": "registry" if report.remote else "directory",
        "device": request.device,
        "framework": report.framework,
        "io": request.io,
        "check_on": request.check_on,
        "keep": request.memory is not None,
        "threads": report.threads,
        "tensors": len(report.units),
        "bytes": one.count,
        "dtypes": {name: {"tensors": number, "bytes": size} for name, (number, size) in report.dtypes.items()},
        "verify_seconds": round(report.verifying, 6),
        "seconds": round(one.seconds, 6),
        "gb_per_second": round(one.rate, 3),
        "limited_by": report.limit(one),
        "memory": {"before": report.before, "peak": report.peak, "device": report.device_peak},
        "passes": [_pass_json(report, one) for one in report.passes],
    }


def _pass_json(report: Report, one: Pass) -> dict[str, object]:
    from pq_registry.client.meter import STAGES

    return {
        "seconds": round(one.seconds, 6),
        "gb_per_second": round(one.rate, 3),
        "user_seconds": round(one.user, 6),
        "system_seconds": round(one.system, 6),
        "from_disk": one.from_disk,
        "limited_by": report.limit(one),
        "stages": {
            name: {"seconds": round(one.meter[name].seconds, 6), "bytes": one.meter[name].count} for name in STAGES
        },
    }
