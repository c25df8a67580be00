# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.benchmarks.gpu``: the whole check and benchmark on a CUDA device, in one run on a bare machine.

1. Both kernels against the CPU on large inputs, aligned and not, and a flipped bit in every part of a shard.
2. What the bus can do: one asynchronous copy from page-locked memory, nothing else.
3. The kernels alone.
4. ``pq_registry.load`` onto the device from page cache, checked by the CPU and by the device, plain and sealed, against
   safetensors and fastsafetensors, in interleaved rounds; and that a damaged file is refused.

``--wheels DIR`` unpacks wheels (this project's with its dependencies, safetensors, fastsafetensors) and puts them on
the path, for machines without a network. ``--simulate`` runs everything on the CPU, the kernels on Triton's interpreter
and tiny inputs: it shows that this script works, and measures nothing. docs/operations/gpu.md says how to read it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main(words: list[str] | None = None) -> int:
    """Check, measure and print; 1 if anything was wrong, 2 if nothing could be run."""
    arguments = _arguments(words)
    arguments.base.mkdir(parents=True, exist_ok=True)
    if arguments.simulate:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    with tempfile.TemporaryDirectory(dir=arguments.base) as unpacked:
        if arguments.wheels:
            unpack(arguments.wheels, Path(unpacked))
        return run(arguments, Path(unpacked))


def unpack(wheels: Path, target: Path) -> None:
    """Put the wheels in ``wheels`` on the path of this process: behind this tree, before what the machine has."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    sys.path.insert(1, str(target))


def run(arguments: argparse.Namespace, packages: Path) -> int:
    """Everything, in order; what fails is said and the rest goes on."""
    lacking = lack(arguments)
    if lacking is not None:
        print(f"{lacking}: docs/operations/gpu.md says what is needed", file=sys.stderr)
        return 2
    import torch

    from tests.benchmarks import gpukernels, gpuloads

    device = torch.device("cpu" if arguments.simulate else arguments.device)
    found: dict[str, Any] = {"simulated": arguments.simulate, "machine": facts(torch, device)}
    print(json.dumps(found["machine"]))
    if not arguments.simulate:
        torch.cuda.set_device(device)
    failures: list[str] = []
    for name, part in (
        ("compiled", lambda: {"s": timed(lambda: gpukernels.prepare(device))}),
        ("kernels right", lambda: gpukernels.check(device, small=arguments.simulate)),
        ("GB/s", lambda: gpukernels.rates(device, small=arguments.simulate)),
        ("load", lambda: gpuloads.measure(arguments, packages, device)),
    ):
        try:
            found[name] = part()
        except Exception as error:  # noqa: BLE001 - on a machine lent for minutes the other parts must still run
            failures.append(f"{name}: {type(error).__name__}: {error}")
        else:
            print(f"\n{name}\n{table(found[name])}", flush=True)
            failures += [
                f"{name}: {row}: {said}" for row, said in found[name].items() if str(said).startswith("failed")
            ]
    found["failures"] = failures
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    print(f"\nall figures: {arguments.json}")
    return 1 if failures else 0


def lack(arguments: argparse.Namespace) -> str | None:
    """What this machine has not, without which nothing here can run."""
    for package in ("torch", "triton"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    if not arguments.simulate and not torch.cuda.is_available():
        return "torch sees no CUDA device here (--simulate runs this script without one)"
    return None


def facts(torch: Any, device: Any) -> dict[str, Any]:
    """What this was measured on."""
    from tests.benchmarks import report

    value = report.machine() | {"torch_version": torch.__version__}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        value |= {"device": about.name, "device_gib": round(about.total_memory / 2**30), "cuda": torch.version.cuda}
    return value


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(rows: dict[str, Any]) -> str:
    """Lines of a name and its values."""
    width = max(map(len, rows), default=0)
    return "\n".join(f"  {name:<{width}}  {_text(value)}" for name, value in rows.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_text(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels to unpack onto the path")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", type=float, default=4.0, metavar="GB", help="of the model (4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the size")
    parser.add_argument("--simulate", action="store_true", help="without a GPU: does this script work?")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench-gpu.json")
    parser.add_argument("--base", type=Path, default=ROOT / "build" / "bench", help="where the model and the rest go")
    arguments = parser.parse_args(words)
    if arguments.simulate:
        arguments.rounds = 1
    return arguments


if __name__ == "__main__":
    sys.exit(main())
