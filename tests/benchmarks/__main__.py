# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.benchmarks`` (``make bench``): the figures this project states, from one run, beside its peers.

All but loading, which has peers of its own: ``tests.benchmarks.load``.

Writes nothing outside ``build/bench`` and the JSON file. The model is made once and kept; everything else is removed.
docs/operations/performance.md describes the method.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks import report
from tests.benchmarks.cataloguesections import catalogue_sections, metadata_sections
from tests.benchmarks.contest import Patience, Section
from tests.benchmarks.hubsections import hub_section
from tests.benchmarks.logsections import log_sections
from tests.benchmarks.s3sections import s3_sections
from tests.benchmarks.sealsections import seal_sections
from tests.benchmarks.sections import KEYS, LOCAL, pull_section
from tests.benchmarks.stage import ROOT, Stage

FULL, QUICK = (4, 1), (4, 16)
"""Weight files, and the divisor of their width: 4 x 512 MiB, or 4 x 32 MiB."""
DISK_FACTOR = 7
"""Copies of the model that can exist at once: corpus, registry and release, plain and sealed, and three of ``seal``."""
PATIENCE_SECONDS = 400.0
"""What a whole run waits for other processes to be quiet, unless told otherwise."""


def main() -> int:
    """Measure, print and write; 1 if a contender failed."""
    arguments = _arguments()
    files, divisor = QUICK if arguments.quick else FULL
    files = arguments.files or files
    rounds = arguments.rounds or (2 if arguments.quick else 5)
    base = ROOT / "build" / "bench"
    corpus = base / f"model-{files}x{512 // divisor}MiB"
    base.mkdir(parents=True, exist_ok=True)
    needed = files * (512 << 20) // divisor * DISK_FACTOR
    if shutil.disk_usage(base).free < needed:
        print(f"bench: {base} needs {needed >> 20} MiB of free disk", file=sys.stderr)
        return 2
    stage = Stage(base, corpus, Patience(0 if arguments.quick else arguments.patience))
    make = stage.child("corpus", str(corpus), str(files), str(divisor))
    subprocess.run(make, check=True, env=stage.env, cwd=ROOT)
    facts = report.machine()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up after like an interrupt
    sections: list[Section] = []
    try:
        with stage:
            rates = stage.rates() if arguments.only is None else {}
            run(stage, arguments.only or KEYS, rounds, sections)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    finally:
        if sections:
            _publish(facts, rates, sections, arguments.json)
    return 1 if any(result.error for section in sections for result in section.results) else 0


def run(stage: Stage, keys: tuple[str, ...], rounds: int, sections: list[Section]) -> None:
    """Measure the sections ``keys`` in order, adding each to ``sections`` as it is done."""
    for key in (key for key in KEYS if key in keys and key in ("hash", "push", "scale")):
        sections.append(LOCAL[key](stage, rounds))
    if "log" in keys:
        sections.extend(log_sections(stage, rounds))
    if "metadata" in keys:
        sections.extend(metadata_sections(stage, rounds))
    if "catalogue" in keys:
        sections.extend(catalogue_sections(stage, rounds))
    if "s3" in keys:
        sections.extend(s3_sections(stage, rounds))
    if {"pull", "hub", "verify", "seal"} & set(keys):
        _served(stage, keys, rounds, sections)


def _served(stage: Stage, keys: tuple[str, ...], rounds: int, sections: list[Section]) -> None:
    """Those about one release in one registry; ``verify`` needs it for a directory only."""
    with stage.serving("registry") as registry:
        stage.push(registry)
        stage.make_release(registry)
        if "pull" in keys:
            sections.append(pull_section(stage, rounds, registry))
        if "hub" in keys:
            sections.append(hub_section(stage, rounds, registry))
        if "seal" in keys:
            sections.extend(seal_sections(stage, rounds, registry))
    if "verify" in keys:
        sections.append(LOCAL["verify"](stage, rounds))


def _publish(facts: dict[str, Any], rates: dict[str, float], sections: list[Section], target: Path) -> None:
    print()
    print(report.machine_text(facts, rates))
    for section in sections:
        print()
        print(report.as_text(section))
    print()
    print(report.legend(sections))
    value = {
        "machine": facts,
        "machine_gb_per_s": rates,
        "sections": {section.key: report.as_json(section) for section in sections},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, indent=2) + "\n")
    print(f"all runs: {target}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="128 MiB and 2 rounds: does everything run?")
    parser.add_argument("--files", type=int, help="weight files of 512 MiB (4); with --quick of 32 MiB")
    parser.add_argument("--rounds", type=int, help="rounds of each section (5; with --quick 2)")
    parser.add_argument(
        "--patience", type=float, default=PATIENCE_SECONDS, metavar="SECONDS", help="longest wait for a quiet machine"
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="where the figures go")
    parser.add_argument("--only", type=_keys, metavar="KEYS", help=f"some of {','.join(KEYS)}")
    return parser.parse_args()


def _keys(text: str) -> tuple[str, ...]:
    keys = tuple(text.split(","))
    if not set(keys) <= set(KEYS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(KEYS)}")
    return keys


if __name__ == "__main__":
    sys.exit(main())
