# SPDX-License-Identifier: Apache-2.0
"""What ``pqreg load`` makes of its measurements: shares, limits, bars, memory, and progress that costs nothing."""

from __future__ import annotations

import io
import sys
from typing import Any, get_args

import pytest

from pq_registry.client.meter import STAGES, Meter, Stage
from pq_registry.client.progress import NullProgress
from pq_registry.loader import options
from pq_registry.loader.options import Request
from pqreg_cli import loadview
from pqreg_cli.console import Output
from pqreg_cli.loadmeasure import Coarse, Pass, peak_memory
from pqreg_cli.loadreport import CALLER, LIMITS, Limit, Report
from pqreg_cli.loadview import SENTENCES


def report(
    one: Pass, *, threads: int = 2, remote: bool = False, on_cpu: bool = True, check_on: options.CheckedOn = "cpu"
) -> Report:
    class Opened:
        workers = threads
        unsealed = tag = None

    request = Request(expect=None if remote else "acme/minilm", check_on=check_on)
    opened: Any = Opened()
    return Report(opened, request, (), [one], "numpy", on_cpu, 0.0, 0, 0, None)


def one_load(
    seconds: float = 1.0, *, user: float = 2.0, system: float = 0.0, from_disk: int = 0, **stages: float
) -> Pass:
    meter = Meter()
    names: dict[str, Stage] = {name: name for name in STAGES}
    for name, spent in stages.items():
        meter.add(names[name], spent, 10**9)
    return Pass(seconds, 10**9, user, system, from_disk, meter)


@pytest.mark.parametrize(
    ("one", "how", "limit"),
    [
        (one_load(read=1.5, hash=0.4), {}, "memory"),
        (one_load(read=1.5, hash=0.4, user=0.5), {}, "cores"),
        (one_load(read=1.5, hash=0.4, user=0.5, from_disk=10**9), {}, "storage"),
        (one_load(read=1.5, hash=0.4, user=0.5), {"remote": True}, "network"),
        (one_load(read=0.5, hash=1.4), {}, "blake3"),
        (one_load(read=0.5, hash=1.4, user=0.4, system=0.1), {}, "cores"),
        (one_load(read=0.2, hash=0.4, unseal=1.0), {}, "aes"),
        (one_load(read=0.2, hash=0.4, unseal=1.0, user=0.6, system=1.0), {}, "memory"),
        (one_load(read=0.2, copy=1.0), {}, "memory"),
        (one_load(read=0.2, copy=1.0, user=0.1), {"on_cpu": False}, "device"),
        (one_load(read=0.2, hash=1.0, copy=0.5), {"on_cpu": False}, "blake3"),
        (one_load(read=0.2, hash=1.0, copy=0.5, user=0.1), {"on_cpu": False}, "cores"),
        (one_load(read=0.2, hash=1.0, copy=0.5, user=0.1), {"on_cpu": False, "check_on": "device"}, "device"),
        (one_load(read=0.9, hash=0.1, user=0.1, from_disk=10**9), {"on_cpu": False, "check_on": "device"}, "storage"),
        (one_load(read=0.2, held=1.7, wait=0.01), {}, "consumer"),
        (one_load(read=0.1, hash=0.1, wait=0.9), {}, "overhead"),
        (one_load(hash=1.0, read=0.9), {"threads": 1}, "blake3"),
        (one_load(hash=0.3, read=1.0), {"threads": 4, "remote": True}, "network"),
        (one_load(hash=0.1, read=0.3), {"threads": 4, "remote": True}, "overhead"),
    ],
)
def test_what_limited_a_load(one: Pass, how: dict[str, Any], limit: str) -> None:
    assert report(one, **how).limit(one) == limit


def test_the_rows_are_all_of_the_threads_time_and_none_of_the_callers() -> None:
    one = one_load(2.0, read=1.0, hash=2.0, wait=1.9)
    rows = report(one).rows(one)
    assert [(row.name, row.share, row.before) for row in rows] == [
        ("read", 0.25, 0.0), ("hash", 0.5, 0.25), ("other", 0.25, 0.75)]  # fmt: skip


def test_every_stage_and_every_limit_has_its_words() -> None:
    assert set(SENTENCES) == set(get_args(Limit))
    assert set(STAGES) - {CALLER, "read", "copy"} <= set(LIMITS)


def test_the_median_of_several_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    loads = [one_load(seconds, hash=seconds) for seconds in (3.0, 1.0, 2.0, 9.0)]
    shown = Report(report(loads[0]).opened, Request(), (), loads, "numpy", True, 0.0, 0, 0, None)
    assert shown.typical.seconds == 2.0
    assert loadview._spread(loads) == "; the median of 4: 3.00, 1.00, 2.00, 9.00 s"


def test_memory_is_what_the_system_says() -> None:
    assert 1_000_000 < peak_memory() < 1 << 40


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("latin-1", "#"), ("ascii", "#")])
def test_bars_stand_on_a_terminal_where_its_letters_allow(
    monkeypatch: pytest.MonkeyPatch, encoding: str, block: str
) -> None:
    stream = Terminal()
    monkeypatch.setattr(Terminal, "encoding", encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    one = one_load(1.0, read=0.5, hash=1.5)
    loadview._show_waterfall(Output(), report(one), one)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue(), "NO_COLOR is set for the tests"
    bars = [line[lines[1].index("WATERFALL") :] for line in lines[2:4]]
    assert bars == [block * 6, " " * 6 + block * 18]
    assert max(map(len, lines[:4])) <= 80


def test_progress_is_told_in_steps_and_completely() -> None:
    class Watched(NullProgress):
        told: list[int]

        def start(self, label: str, total_bytes: int) -> None:
            self.told = []

        def advance(self, count: int) -> None:
            self.told.append(count)

    watched = Watched()
    coarse = Coarse(watched)
    coarse.start("load", 100_000)
    for _ in range(10_000):
        coarse.advance(10)
    coarse.done()
    assert sum(watched.told) == 100_000
    assert len(watched.told) <= 101
