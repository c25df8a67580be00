# SPDX-License-Identifier: Apache-2.0
"""The figures of ``make bench-load``: a table of every section, and how many times as fast as each peer ours is.

CPU seconds are those of the load itself, with the threads and child processes it used. Memory is what the process had
at its peak beyond what it had when it began to load, so parameters that existed are not in it and new tensors are.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.contest import Result, Run, Section

HEADER = ("", "median s", "min", "max", "GB/s", "CPU s/GB", "private MiB", "mapped MiB", "from disk")
LEGEND = (
    "* this project. CPU s/GB: of the load alone, + of the registry that served it. private, mapped: the most memory\n"
    "at one time beyond what was there before. from disk: share of the model that the disk was read for."
)


def as_text(section: Section) -> str:
    """A section as two tables."""
    lines = [section.title, *(f"  {note}" for note in section.notes)]
    lines += report.table([HEADER, *(_row(section, result) for result in section.results)])
    ours = [result for result in section.results if result.contender.ours and result.runs]
    if ours:
        lines.append("  times as fast as")
        shown = [result for result in section.results if result.runs and result not in ours]
        rows = [["  " + result.contender.name for result in ours]]
        rows += [[f"{speed_to(result, other):.2f}" for result in ours] for other in shown]
        names = ["", *("  " + other.contender.name for other in shown)]
        lines += report.table([[name, *cells] for name, cells in zip(names, rows, strict=True)])
    return "\n".join([*lines, *report.trouble(section)])


def as_json(section: Section) -> dict[str, Any]:
    """A section with every run, and the ratios."""
    value = report.as_json(section)
    for result, shown in zip(section.results, value["contenders"], strict=True):
        if result.runs:
            shown["load_cpu_seconds_per_gb"] = _rounded(cpu_per_gb(section, result))
            shown["peak_private_mib"] = _rounded(private(result))
            shown["peak_mapped_mib"] = _rounded(mapped(result))
    value["times_as_fast"] = {
        ours.contender.name: {
            peer.contender.name: round(speed_to(ours, peer), 3)
            for peer in section.results
            if peer.runs and not peer.contender.ours
        }
        for ours in section.results
        if ours.runs and ours.contender.ours
    }
    return value


def speed_to(result: Result, other: Result) -> float:
    """How many times as fast ``result`` is."""
    return other.seconds / result.seconds


def cpu_per_gb(section: Section, result: Result) -> float | None:
    """CPU seconds of the load for each GB; None where the whole process was the load."""
    found = _median(result, lambda run: run.printed.get("cpu_seconds", run.cpu))
    return None if found is None else found / section.size * 1e9


def private(result: Result) -> float | None:
    """The most private memory of any run, in MiB, beyond what was there; None where nobody looked."""
    return _most(result, lambda run: run.private_mib, "private_before_mib")


def mapped(result: Result) -> float | None:
    """The most mapped memory, likewise."""
    return _most(result, lambda run: run.mapped_mib, "mapped_before_mib")


def _most(result: Result, peak: Callable[[Run], float], before: str) -> float | None:
    found = [peak(run) - run.printed[before] for run in result.runs if before in run.printed]
    return max(0.0, *found) if found else None


def _median(result: Result, value: Callable[[Run], float | None]) -> float | None:
    found = [known for run in result.runs if (known := value(run)) is not None]
    return median(found) if found else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _row(section: Section, result: Result) -> tuple[str, ...]:
    name = ("* " if result.contender.ours else "  ") + result.contender.name
    if not result.runs:
        return (name, *["-"] * (len(HEADER) - 1))
    seconds = [run.seconds for run in result.runs]
    cpu = _shown(cpu_per_gb(section, result), 2)
    served = result.median(lambda run: run.helper_cpu) / section.size * 1e9
    disk = _median(result, lambda run: run.printed.get("disk_mib"))
    return (
        name,
        f"{result.seconds:.3f}",
        f"{min(seconds):.3f}",
        f"{max(seconds):.3f}",
        f"{section.size / result.seconds / 1e9:.2f}",
        cpu if served < 0.01 else f"{cpu}+{served:.2f}",
        _shown(private(result), 0),
        _shown(mapped(result), 0),
        "-" if disk is None else f"{disk * 2**20 / section.size:.0%}",
    )


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
