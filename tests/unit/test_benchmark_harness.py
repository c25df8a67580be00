# SPDX-License-Identifier: Apache-2.0
"""The harness behind `make bench`: what it measures, how it compares, and that a failure is not hidden."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from pq_registry.format.safetensors import header_size, parse_header
from tests.benchmarks import corpus, report
from tests.benchmarks.contest import Contender, Patience, contest, run_once

NOW = Patience(0)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_run_counts_time_cpu_and_memory_of_the_process() -> None:
    code = "import time\nx = bytearray(b'1') * 64_000_000\nwhile time.process_time() < 0.3: pass"
    run = run_once(Contender(name="x", command=python(code)), NOW)
    assert run.seconds == run.wall >= 0.3
    assert 0.3 <= run.cpu < 3
    # The kernel counts what the parent had when it forked: little in `make bench`, much here.
    parent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert 61 < run.peak_mib < max(200, parent + 1)


def test_what_a_process_prints_last_replaces_its_wall_clock() -> None:
    run = run_once(
        Contender(name="x", command=python("print('hello'); print('{\"seconds\": 42.5, \"more\": 1}')")), NOW
    )
    assert run.seconds == 42.5
    assert run.wall < 30
    assert run.printed["more"] == 1


def test_failures_are_reported_and_the_others_still_run() -> None:
    cleaned: list[str] = []
    contenders = [
        Contender(name="bad", command=python("import sys; sys.exit('no luck')"), clean=lambda: cleaned.append("bad")),
        Contender(name="good", command=python("")),
        Contender(name="absent", command=["/nonexistent/tool"]),
    ]
    section = contest("k", "title", contenders, rounds=2, patience=NOW, size=10**9, reference="good")
    bad, good, absent = section.results
    assert "no luck" in bad.error and not bad.runs and cleaned == ["bad"]
    assert len(good.runs) == 2 and section.speed(good) == 1
    assert absent.error and section.speed(absent) is None
    text = report.as_text(section)
    assert "bad: FAILED: exit status 1: no luck" in text
    assert report.as_json(section)["contenders"][1]["speed_to_reference"] == 1


def test_a_run_that_takes_too_long_is_killed() -> None:
    with pytest.raises(RuntimeError, match="timed out"):
        run_once(Contender(name="x", command=python("while True: pass"), timeout=0.5), NOW)


def test_the_corpus_is_what_official_writers_write(tmp_path: Path) -> None:
    corpus.make(tmp_path / "model", 1, 64)
    (file,) = (tmp_path / "model").glob("*.safetensors")
    data = file.read_bytes()
    table = parse_header(data[: header_size(data[:8], len(data))], len(data))
    assert len(table.tensors) == 10
    assert table.header_size % 8 == 0
    corpus.make(tmp_path / "model", 1, 64)  # once made it is kept
    assert file.read_bytes() == data


def test_each_round_has_an_order_of_its_own_and_two_executions_the_same() -> None:
    def orders() -> list[str]:
        begun: list[str] = []
        contenders = [
            Contender(name=name, command=["true"], prepare=lambda name=name: begun.append(name))  # type: ignore[misc]
            for name in "abcd"
        ]
        contest("k", "title", contenders, rounds=4, patience=NOW, size=1, reference="a")
        return ["".join(begun[at : at + 4]) for at in range(0, 16, 4)]

    found = orders()
    assert {"".join(sorted(order)) for order in found} == {"abcd"}
    assert len(set(found)) > 1
    assert orders() == found
