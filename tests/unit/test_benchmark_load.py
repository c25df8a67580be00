# SPDX-License-Identifier: Apache-2.0
"""`make bench-load` at a tiny size, with whatever is installed: it runs, checks what it measured, and hides nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks import child_load, corpus, load, loadreport, loadsections
from tests.benchmarks.contest import Contender, Patience, Result, Run, Section, run_once
from tests.benchmarks.httpfloor import anonymous
from tests.benchmarks.loaders import LOADERS, Loader
from tests.benchmarks.stage import Stage

NOW = Patience(0)
OURS = {"pq_registry, verified", "pq_registry, verified + unsealed"}
ITERATED = "pq_registry, verified, iter_tensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus") / "model"
    corpus.make(directory, 2, 128)
    return directory


def a_run(seconds: float, **printed: float) -> Run:
    return Run(seconds, seconds, 1, 0, 0, 1, printed, private_mib=300, mapped_mib=50)


def test_every_job_runs_here_and_what_it_gave_is_compared(model: Path, tmp_path: Path) -> None:
    sections: list[Section] = []
    with Stage(tmp_path, model, NOW) as stage:
        load.measure(stage, ("own", "cold", "http"), 1, sections.append)  # "into" is "cold" without dropping
    assert [section.key for section in sections] == ["http", "own-stock", "own-retained", "cold"]
    for section in sections:
        assert not [result.error for result in section.results if result.error]
        ours = {result.contender.name for result in section.results if result.contender.ours}
        assert ours == OURS | ({ITERATED} if section.key == "cold" else set())
        for result in section.results:
            if not result.contender.name.startswith("curl"):
                assert result.runs[0].printed["samples"] >= 20, result.contender.name
        for loader in LOADERS.values():
            if not loader.installed:
                assert f"left out: {loader.name} is not installed" in section.notes
        assert "CPU s/GB" in loadreport.as_text(section)
    assert json.dumps([loadreport.as_json(section) for section in sections])
    assert not list(tmp_path.glob("work-*"))


def read_all(model: Path) -> dict[str, Any]:
    return child_load.read(str(model), {})


def test_one_wrong_byte_in_a_sample_is_noticed(model: Path) -> None:
    tensors = read_all(model)
    assert child_load.compare(tensors, model) >= 20
    name = next(iter(tensors))
    tensors[name] = tensors[name].copy()
    tensors[name][-1] ^= 1
    with pytest.raises(AssertionError, match="differs"):
        child_load.compare(tensors, model)


def test_a_tensor_that_is_missing_too_long_or_too_many_is_noticed(model: Path) -> None:
    tensors = read_all(model)
    name, kept = next(iter(tensors.items()))
    with pytest.raises(AssertionError, match="nobody asked"):
        child_load.compare({**tensors, "more": kept}, model)
    with pytest.raises(AssertionError, match=name):
        child_load.compare({**tensors, name: np.append(kept, kept[:2])}, model)
    with pytest.raises(KeyError):
        child_load.compare({key: value for key, value in tensors.items() if key != name}, model)


class Lazy:
    """Loads once, and then claims it did."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, source: str) -> Iterator[tuple[str, Any]]:
        import ml_dtypes

        self.calls += 1
        if self.calls == 1:
            for name, tensor in child_load.read(source, {}).items():
                yield name, tensor.view(ml_dtypes.bfloat16)


def test_the_second_load_is_compared_and_not_what_the_first_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_load, "framework", lambda: "numpy")

    def into(loader: Loader, source: str, into: dict[str, Any]) -> dict[str, Any]:
        for name, tensor in loader.iterate(source):
            np.copyto(into[name].reshape(-1), tensor)
        return into

    monkeypatch.setattr(child_load, "into", into)
    for turn in ("first", "again"):
        lazy = Loader(name="lazy", checks="", module="json", framework="numpy", iterate=Lazy())
        monkeypatch.setitem(LOADERS, "lazy", lazy)
        job = child_load.Job(["lazy", "into", turn, str(model), str(model)])
        if turn == "first":
            assert job.measure()["samples"] >= 20
        else:
            with pytest.raises(AssertionError, match="differs"):
                job.measure()


def test_memory_that_is_read_into_again_is_spoilt_before(model: Path) -> None:
    job = child_load.Job(["read", "into", "again", str(model), str(model)])
    assert {bytes(memory[:4]) for memory in job.memory.values()} == {b"\1\1\1\1"}
    assert job.measure()["private_before_mib"] > 0


def test_what_is_dropped_is_private_and_what_is_mapped_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(32 << 20))
    code = (
        "import mmap, sys, time\nprivate = bytearray(b'1') * (64 << 20)\nfile = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\nsum(mapped[::4096])\ntime.sleep(0.1)"
    )
    run = run_once(Contender(name="x", command=[sys.executable, "-c", code, str(tmp_path / "file")]), NOW)
    assert 64 <= run.private_mib < 128
    assert 32 <= run.mapped_mib < 96
    assert len(anonymous(tmp_path / "file")) == 32 << 20


def test_ratios_memory_and_cpu_are_the_loads_own() -> None:
    def result(name: str, seconds: float, *, ours: bool = False, **printed: float) -> Result:
        return Result(Contender(name=name, command=[], ours=ours), [a_run(seconds, **printed)])

    bad = Result(Contender(name="bad", command=[]), error="x")
    measured = {"cpu_seconds": 3.0, "private_before_mib": 100.0, "mapped_before_mib": 60.0, "disk_mib": 0.0}
    section = Section(
        "k", "title", 2 * 10**9, "peer",
        [result("mine", 1.0, ours=True, **measured), result("peer", 4.0), bad],
    )  # fmt: skip
    assert loadreport.as_json(section)["times_as_fast"] == {"mine": {"peer": 4.0}}
    mine, peer, failed = loadreport.as_json(section)["contenders"]
    assert (mine["load_cpu_seconds_per_gb"], mine["peak_private_mib"], mine["peak_mapped_mib"]) == (1.5, 200, 0)
    assert peer["peak_private_mib"] is None
    assert failed["error"] == "x"
    text = loadreport.as_text(section)
    assert "* mine     1.000  1.000  1.000  2.00      1.50          200           0         0%" in text
    assert "bad: FAILED: x" in text


def test_files_that_are_dropped_are_still_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    loadsections.drop([tmp_path / "file"])
    loadsections.warm([tmp_path / "file"])
    assert (tmp_path / "file").read_bytes() == b"x" * 10_000


def test_too_little_disk_is_said_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(["--size", "9e9", "--base", str(tmp_path)]) == 2
    assert "free disk" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_section_nobody_knows_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.main(["--only", "into,warm"])
    assert "expected some of into,own,cold,http" in capsys.readouterr().err
