# SPDX-License-Identifier: Apache-2.0
"""The figures, as a table for people and as JSON for everything else."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.contest import Result, Section

PACKAGES = (
    "pq-registry",
    "blake3",
    "cryptography",
    "numpy",
    "safetensors",
    "torch",
    "fastsafetensors",
    "runai-model-streamer",
    "tensorizer",
    "model-signing",
    "proofbundle",
    "huggingface_hub",
)
HEADER = ("", "median s", "min", "max", "GB/s", "x ref", "CPU s", "peak MiB")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory_gib": round(int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "large_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "measured": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def as_json(section: Section) -> dict[str, Any]:
    """A section with every run."""
    return {
        "title": section.title,
        "bytes": section.size,
        "reference": section.reference,
        "notes": section.notes,
        "contenders": [_result_json(section, result) for result in section.results],
    }


def _result_json(section: Section, result: Result) -> dict[str, Any]:
    value: dict[str, Any] = {"name": result.contender.name, "ours": result.contender.ours}
    if result.error:
        value["error"] = result.error
    if result.runs:
        value |= {
            "seconds": round(result.seconds, 4),
            "gb_per_s": round(section.size / result.seconds / 1e9, 3),
            "speed_to_reference": None if (speed := section.speed(result)) is None else round(speed, 3),
            "cpu_seconds": round(result.median(lambda run: run.cpu), 3),
            "helper_cpu_seconds": round(result.median(lambda run: run.helper_cpu), 3),
            "peak_mib": round(max(run.peak_mib for run in result.runs), 1),
            "runs": [
                {
                    "seconds": round(run.seconds, 4),
                    "wall_seconds": round(run.wall, 4),
                    "cpu_seconds": round(run.cpu, 3),
                    "helper_cpu_seconds": round(run.helper_cpu, 3),
                    "other_processes_cpus": round(run.foreign_cpus, 2),
                    "peak_mib": round(run.peak_mib, 1),
                    "private_mib": round(run.private_mib, 1),
                    "mapped_mib": round(run.mapped_mib, 1),
                    "printed": run.printed,
                }
                for run in result.runs
            ],
        }
    return value


def as_text(section: Section) -> str:
    """A section as a table."""
    reference = section.reference
    lines = [section.title, *(f"  {note}" for note in section.notes)]
    lines += table([HEADER, *(_row(section, result) for result in section.results)])
    if section.size:
        lines.append(f"  x ref: times as fast as {reference!r}")
    return "\n".join([*lines, *trouble(section)])


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        lines.append(f"  {row[0].ljust(widths[0])}  {'  '.join(cells)}".rstrip())
    return lines


def trouble(section: Section) -> list[str]:
    """Contenders that failed, and whether other processes disturbed."""
    lines = [f"  {result.contender.name}: FAILED: {result.error}" for result in section.results if result.error]
    foreign = [run.foreign_cpus for result in section.results for run in result.runs]
    if foreign and max(foreign) > 0.2:
        lines.append(f"  disturbed: other processes used up to {max(foreign):.1f} CPUs during a run")
    return lines


def _row(section: Section, result: Result) -> tuple[str, ...]:
    name = ("* " if result.contender.ours else "  ") + result.contender.name
    if not result.runs:
        return (name, *["-"] * (len(HEADER) - 1))
    seconds = [run.seconds for run in result.runs]
    speed = section.speed(result) if section.size else None
    cpu = f"{result.median(lambda run: run.cpu):.2f}"
    helpers = result.median(lambda run: run.helper_cpu)
    return (
        name,
        f"{result.seconds:.3f}",
        f"{min(seconds):.3f}",
        f"{max(seconds):.3f}",
        f"{section.size / result.seconds / 1e9:.2f}" if section.size else "-",
        "-" if speed is None else f"{speed:.2f}",
        cpu if helpers < 0.01 else f"{cpu}+{helpers:.2f}",
        f"{max(run.peak_mib for run in result.runs):.0f}",
    )


def machine_text(facts: dict[str, Any], rates: dict[str, float]) -> str:
    """What the machine is and what it can do by itself."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"{facts['cpus']} CPUs ({facts['cpu']}), {facts['memory_gib']} GiB, {facts['system']}",
        f"Python {facts['python']}; {packages}",
    ]
    if rates:
        measured = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in rates.items())
        lines.append(f"this machine alone, GB/s (number: threads): {measured}")
    return "\n".join(lines)


def legend(sections: Sequence[Section]) -> str:
    """How to read the tables."""
    rounds = max((len(result.runs) for section in sections for result in section.results), default=0)
    return (
        f"* this project. Medians of {rounds} interleaved rounds, each run a fresh process.\n"
        "CPU s: user and system time of the contender, + that of the registry that serves it.\n"
        "peak MiB: largest resident set of one process, mapped page cache included."
    )


def _field(path: str, label: str) -> str:
    for line in _read(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == label:
            return value.strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError:
        return ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
