# SPDX-License-Identifier: Apache-2.0
"""The transparency log: durable appends, receipts verified, a log followed by an auditor.

What is compared with peers is the verification of receipts. For appends there are only the figures that Tessera's
documentation states for its own hardware; they are printed for orientation and were not measured here.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.contest import Contender, Result, Run, Section, contest
from tests.benchmarks.stage import Stage

APPENDS = {1: 300, 10: 1500, 100: 10_000}
"""Concurrent publishers, and leaves they append in one run."""
LEAVES = 100_000
RECEIPTS = 500
ORIENTATION = (
    "for orientation, from Tessera's documentation and not measured here: POSIX storage ~10 000/s on NVMe, ~2 900/s on"
    " SAS, without receipts and without post-quantum signatures"
)

APPENDING = (
    "each publisher waits for its receipt before it hands in the next leaf; sequencer, catalogue (SQLite,"
    " synchronous=FULL) and tiles on disk; no witness is asked, no HTTP"
)
CHECKING = (
    "pqreg checks two signatures of the log (Ed25519, ML-DSA-44) and two of each witness, and rebuilds the leaf;"
    " proofbundle checks the log's Ed25519 and each witness's ML-DSA-44"
)


def log_sections(stage: Stage, rounds: int) -> list[Section]:
    """Appends, receipts, audit."""
    return [_append(stage, rounds), _receipts(stage, rounds), _audit(stage, rounds)]


def _append(stage: Stage, rounds: int) -> Section:
    place = stage.work / "log"
    contenders = [
        Contender(
            name=f"{publishers} publisher{'s' * (publishers > 1)}, {count} appends",
            command=stage.child("child_log", "append", str(place), str(publishers), str(count)),
            env=stage.env,
            prepare=lambda: _fresh(place),
            clean=lambda: shutil.rmtree(place, ignore_errors=True),
            ours=True,
        )
        for publishers, count in APPENDS.items()
    ]
    section = contest(
        "log-append",
        "log: durable appends with receipts",
        contenders,
        rounds=rounds,
        patience=stage.patience,
        size=0,
        reference=contenders[0].name,
        notes=[APPENDING, ORIENTATION],
    )
    for result in section.results:
        if result.runs:
            section.notes.append(
                f"{result.contender.name}: {_median(result, 'appends_per_s'):.0f}/s, "
                f"p50 {_median(result, 'p50_ms'):.0f} ms, p99 {_median(result, 'p99_ms'):.0f} ms; "
                f"{_median(result, 'cpu_us_per_append'):.0f} us CPU each; "
                f"this disk: {_median(result, 'disk_syncs_per_s'):.0f} fsyncs/s alone"
            )
    return section


def _receipts(stage: Stage, rounds: int) -> Section:
    peers = ["ours"] + ["proofbundle"] * (importlib.util.find_spec("proofbundle") is not None)
    contenders = [
        Contender(
            name=f"{'pqreg' if who == 'ours' else who}, {witnesses or 'no'} witness{'es' * (witnesses != 1)}",
            command=stage.child("child_log", "receipts", str(RECEIPTS), str(witnesses), who),
            env=stage.env,
            ours=who == "ours",
        )
        for who in peers
        for witnesses in (0, 2)
    ]
    section = contest(
        "log-receipts",
        f"log: {RECEIPTS} receipts verified, of a log of 10 000 leaves",
        contenders,
        rounds=rounds,
        patience=stage.patience,
        size=0,
        reference=contenders[-1].name,
        notes=[CHECKING],
    )
    _add_rates(section, "receipts_per_s", "receipts")
    return section


def _audit(stage: Stage, rounds: int) -> Section:
    place = stage.work / "audited"
    _fresh(place)
    subprocess.run(
        stage.child("child_log", "grow", str(place), str(LEAVES)),
        check=True,
        env=stage.env,
        stdout=subprocess.DEVNULL,
    )

    def without_state() -> None:
        shutil.rmtree(place / "state", ignore_errors=True)

    names = {
        "leaves": f"{LEAVES} leaves verified (monitor alone)",
        "index": f"{LEAVES} leaves verified, parsed and recorded (audit without statements)",
        "statements": "statements judged: both halves, receipt, chain (audit)",
    }
    contenders = [
        Contender(
            name=name,
            command=stage.child("child_log", "audit", str(place), mode),
            env=stage.env,
            prepare=without_state,
            clean=without_state,
            ours=True,
        )
        for mode, name in names.items()
    ]
    try:
        section = contest(
            "log-audit",
            "log: followed from its tiles",
            contenders,
            rounds=rounds,
            patience=stage.patience,
            size=0,
            reference=names["leaves"],
            notes=["from page cache, no network; the state of an audit is SQLite, synchronous=FULL"],
        )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    _add_rates(section, "leaves_per_s", "leaves")
    return section


def _fresh(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)


def _add_rates(section: Section, key: str, unit: str) -> None:
    for result in section.results:
        if result.runs:
            section.notes.append(f"{result.contender.name}: {_median(result, key):.0f} {unit}/s")


def _median(result: Result, key: str) -> float:
    value: Callable[[Run], float] = lambda run: float(run.printed[key])
    return result.median(value)
