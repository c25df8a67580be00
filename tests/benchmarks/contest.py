# SPDX-License-Identifier: Apache-2.0
"""Measures contenders against each other: every run a fresh process, in rounds, so that the machine's moods hit all.

A round runs every contender once, in an order of its own. What is compared is the median over the rounds. Per run:
wall-clock time of the process from start to exit, user and system CPU of it and its children, the peak resident memory
of the largest of them (``wait4``), and that of the process itself split into private and mapped memory, looked at every
few milliseconds. A process may print one JSON object as its last line; its
``seconds`` then replaces the wall-clock time, for contenders whose start-up is not the question. Before each run the
harness waits, up to a bound, for the other processes of the machine to be quiet; how busy they were during the run is
recorded.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

QUIET_BUSY = 0.25
"""CPUs that other processes may use when a run begins."""
QUIET_SECONDS = 10.0
"""Longest wait for that, before one run."""
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def nothing() -> None:
    """No preparation."""


def no_seconds() -> float:
    """No helper process."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the job of a section.

    ``prepare`` and ``clean`` run before and after each run, outside of the measurement; ``helpers`` answers the CPU
    seconds so far of processes that work for this one, e.g. a server; ``ours`` says whether it is this project.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] | None = None
    prepare: Callable[[], None] = nothing
    clean: Callable[[], None] = nothing
    helpers: Callable[[], float] = no_seconds
    ours: bool = False
    note: str = ""
    timeout: float = 1800


@dataclass(frozen=True)
class Run:
    """One measured process."""

    seconds: float
    wall: float
    cpu: float
    helper_cpu: float
    foreign_cpus: float
    peak_mib: float
    printed: dict[str, Any]
    private_mib: float = 0.0
    mapped_mib: float = 0.0


@dataclass
class Result:
    """All runs of one contender."""

    contender: Contender
    runs: list[Run] = field(default_factory=list)
    error: str = ""

    def median(self, value: Callable[[Run], float]) -> float:
        """The median over the runs."""
        return statistics.median(map(value, self.runs))

    @property
    def seconds(self) -> float:
        """The figure that is compared."""
        return self.median(lambda run: run.seconds)


@dataclass
class Section:
    """The results of one job. ``size`` is the bytes it moves; ``reference`` the name ratios are relative to."""

    key: str
    title: str
    size: int
    reference: str
    results: list[Result]
    notes: list[str] = field(default_factory=list)

    def result(self, name: str) -> Result | None:
        """The results of a contender, if it ran."""
        return next((result for result in self.results if result.contender.name == name and result.runs), None)

    def speed(self, result: Result) -> float | None:
        """How many times as fast as the reference."""
        reference = self.result(self.reference)
        return None if reference is None or not result.runs else reference.seconds / result.seconds


def contest(
    key: str,
    title: str,
    contenders: Sequence[Contender],
    *,
    rounds: int,
    patience: Patience,
    size: int,
    reference: str,
    notes: Sequence[str] = (),
) -> Section:
    """Run every contender ``rounds`` times, interleaved. One that fails is reported and left out of later rounds."""
    results = [Result(contender) for contender in contenders]
    order = random.Random(key)  # the same in every execution, so that two of them can be compared
    print(f"\n{title}", file=sys.stderr, flush=True)
    for number in range(rounds):
        for result in order.sample(results, len(results)):
            if result.error:
                continue
            try:
                run = run_once(result.contender, patience)
            except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                result.error = str(error)
                print(f"  {result.contender.name}: failed: {error}", file=sys.stderr, flush=True)
                continue
            result.runs.append(run)
            print(f"  round {number + 1}: {run.seconds:8.3f} s  {result.contender.name}", file=sys.stderr, flush=True)
    return Section(key, title, size, reference, results, list(notes))


def run_once(contender: Contender, patience: Patience) -> Run:
    """Prepare, run and clean.

    Raises:
        RuntimeError: if the process fails.
    """
    contender.prepare()
    try:
        patience.wait()
        return _measure(contender)
    finally:
        contender.clean()


def _measure(contender: Contender) -> Run:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        helpers, busy, begun = contender.helpers(), machine_busy(), time.perf_counter()
        environment = None if contender.env is None else dict(contender.env)
        process = subprocess.Popen(
            list(contender.command), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
        )
        try:
            usage, private, mapped = _wait(process, begun + contender.timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - begun
        busy, helpers = machine_busy() - busy, contender.helpers() - helpers
        if process.returncode != 0:
            err.seek(0)
            tail = err.read()[-600:].decode(errors="replace").strip()
            raise RuntimeError(f"exit status {process.returncode}: {tail}")
        out.seek(0)
        printed = _last_object(out.read())
    cpu = usage.ru_utime + usage.ru_stime
    return Run(
        seconds=float(printed.get("seconds", wall)),
        wall=wall,
        cpu=cpu,
        helper_cpu=helpers,
        foreign_cpus=max(0.0, busy - cpu - helpers) / wall,
        peak_mib=usage.ru_maxrss / 1024,
        printed=printed,
        private_mib=private * _PAGE_MIB,
        mapped_mib=mapped * _PAGE_MIB,
    )


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[Any, int, int]:
    """wait4 with a deadline; its usage, and the most pages of private and of mapped memory that were seen.

    Looks often enough not to matter: the shortest runs take tenths of a second.
    """
    private = mapped = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage, private, mapped
        own, files = resident_pages(process.pid)
        private, mapped = max(private, own), max(mapped, files)
        if time.perf_counter() > deadline:
            raise RuntimeError("timed out")
        time.sleep(0.002)


def _last_object(text: bytes) -> dict[str, Any]:
    lines = text.strip().splitlines()
    if lines and lines[-1].startswith(b"{"):
        value = json.loads(lines[-1])
        if isinstance(value, dict):
            return value
    return {}


def resident_pages(pid: int | str) -> tuple[int, int]:
    """Pages of private and of mapped memory a process has now; none where /proc does not say."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            resident, mapped = map(int, file.read().split()[1:3])
    except (OSError, ValueError):
        return 0, 0
    return resident - mapped, mapped


def machine_busy() -> float:
    """CPU seconds the whole machine has been busy, steal included; 0 where /proc does not say."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            values = [int(text) for text in file.readline().split()[1:9]]
    except OSError:
        return 0.0
    return (sum(values) - values[3] - values[4]) / os.sysconf("SC_CLK_TCK")


def process_cpu(pid: int) -> float:
    """CPU seconds of a process so far, children that ended included; 0 where /proc does not say."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Patience:
    """Waits until other processes leave the machine alone, for ``total`` seconds in all."""

    def __init__(self, total: float) -> None:
        self._left = total

    def wait(self) -> None:
        """Wait before one run."""
        begun = time.monotonic()
        while time.monotonic() - begun < min(QUIET_SECONDS, self._left) and not _quiet():
            pass
        self._left -= time.monotonic() - begun


def _quiet() -> bool:
    busy, own, begun = machine_busy(), time.process_time(), time.perf_counter()
    time.sleep(0.2)
    foreign = machine_busy() - busy - (time.process_time() - own)
    return foreign / (time.perf_counter() - begun) < QUIET_BUSY
