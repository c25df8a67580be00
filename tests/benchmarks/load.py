# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.benchmarks.load`` (``make bench-load``): every way to get weights into memory, in one run.

The same bf16 model for safetensors, fastsafetensors, runai-model-streamer, tensorizer and this project, whose loads
alone are verified; from page cache with fresh and with retained memory, from the disk, and over HTTP. What every
loader gave is compared with the model. A peer that is not installed is named and left out.
docs/operations/performance.md describes the method.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import loadreport, report
from tests.benchmarks.contest import Patience, Section
from tests.benchmarks.loadsections import Loads
from tests.benchmarks.stage import ROOT, Stage

FILE = 512 << 20
QUICK_DIVISOR = 16
DISK_FACTOR = 7
"""Copies of the model at one time: corpus; registry and release, each plain and sealed; tensorizer's, twice."""
KEYS = ("into", "own", "cold", "http")


def main(words: list[str] | None = None) -> int:
    """Measure, print and write; 1 if a contender failed."""
    arguments = _arguments(words)
    divisor = QUICK_DIVISOR if arguments.quick else 1
    files = max(2, math.ceil(arguments.size * 1e9 / (FILE // divisor)))
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    base = arguments.base
    corpus = base / f"model-{files}x{(FILE // divisor) >> 20}MiB"
    base.mkdir(parents=True, exist_ok=True)
    needed = files * FILE // divisor * DISK_FACTOR
    if shutil.disk_usage(base).free < needed:
        print(f"bench-load: {base} needs {needed >> 20} MiB of free disk", file=sys.stderr)
        return 2
    stage = Stage(base, corpus, Patience(0 if arguments.quick else arguments.patience))
    subprocess.run(stage.child("corpus", str(corpus), str(files), str(divisor)), check=True, env=stage.env, cwd=ROOT)
    facts = report.machine()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up after like an interrupt
    sections: list[Section] = []
    try:
        with stage:
            rates = stage.rates()
            measure(stage, arguments.only, rounds, sections.append)
    except KeyboardInterrupt:
        print("bench-load: interrupted", file=sys.stderr)
        return 130
    finally:
        if sections:
            _publish(facts, rates, sections, rounds, arguments.json)
    return 1 if any(result.error for section in sections for result in section.results) else 0


def measure(stage: Stage, keys: tuple[str, ...], rounds: int, done: Callable[[Section], None]) -> None:
    """Measure the sections ``keys``, giving each to ``done`` when it is there.

    The registry is gone before anything local is measured, and its copies of the model with it.
    """
    loads = Loads(stage, rounds)
    with stage.serving("registry") as registry:
        stage.push(registry)
        stage.make_release(registry)
        stage.make_sealed(registry)
        if "http" in keys:
            done(loads.http(registry))
    if {"into", "cold"} & set(keys):
        loads.make_tensors("tensorizer", "tensorizer-sealed")
    if "into" in keys:
        done(loads.into(kept=False))
        done(loads.into(kept=True))
    if "own" in keys:
        done(loads.own(kept=False))
        done(loads.own(kept=True))
    if "cold" in keys:
        done(loads.cold())


def _publish(
    facts: dict[str, Any], rates: dict[str, float], sections: list[Section], rounds: int, target: Path
) -> None:
    print()
    print(report.machine_text(facts, rates))
    for section in sections:
        print()
        print(loadreport.as_text(section))
    print()
    print(f"Medians of {rounds} shuffled rounds, each run a fresh process, its result compared with the model.")
    print(loadreport.LEGEND)
    value = {
        "machine": facts,
        "machine_gb_per_s": rates,
        "sections": {section.key: loadreport.as_json(section) for section in sections},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, indent=2) + "\n")
    print(f"all runs: {target}")


def _arguments(words: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.load", description=summary)
    parser.add_argument("--quick", action="store_true", help="narrow tensors and one round: does everything run?")
    parser.add_argument("--size", type=float, metavar="GB", help="of the model: 4 (with --quick 0.1), in whole files")
    parser.add_argument("--rounds", type=int, help="rounds of each section (5; with --quick 1)")
    parser.add_argument("--patience", type=float, default=900.0, metavar="SECONDS", help="longest wait for quiet")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench-load.json", help="where the figures go")
    parser.add_argument("--only", type=_keys, default=KEYS, metavar="KEYS", help=f"some of {','.join(KEYS)}")
    parser.add_argument("--base", type=Path, default=ROOT / "build" / "bench", help="where the model and the rest go")
    found = parser.parse_args(words)
    found.size = found.size or (0.1 if found.quick else 4)
    return found


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(text.split(","))
    if not set(keys) <= set(KEYS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(KEYS)}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
