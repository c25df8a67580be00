# SPDX-License-Identifier: Apache-2.0
"""The loads of ``tests.benchmarks.gpu``: every way onto the device from page cache, in interleaved rounds."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import pq_registry
from pq_registry.errors import ShardMismatch
from tests.benchmarks import corpus
from tests.benchmarks.contest import Patience
from tests.benchmarks.gpukernels import same_as_files
from tests.benchmarks.stage import Stage

FILE = 1 << 29
QUICK_DIVISOR = 16


@contextmanager
def release(arguments: argparse.Namespace, packages: Path) -> Iterator[Any]:
    """A stage with a release and the same release sealed, in the page cache. The model is kept for the next run."""
    divisor = 64 if arguments.simulate else QUICK_DIVISOR if arguments.quick else 1
    files = 1 if arguments.simulate else max(2, round(arguments.size * 1e9 / FILE))
    model = arguments.base / f"gpu-model-{files}-{divisor}"
    corpus.make(model, files, divisor)
    stage = Stage(arguments.base, model, Patience(0))
    stage.env["PYTHONPATH"] = os.pathsep.join((stage.env["PYTHONPATH"], str(packages)))
    with stage:
        with stage.serving("registry") as registry:
            stage.push(registry)
            stage.make_release(registry)
            stage.make_sealed(registry)
        for directory in (stage.release, stage.sealed):
            stage.warm(directory)
        yield stage


def measure(arguments: argparse.Namespace, packages: Path, device: Any) -> dict[str, Any]:
    """Seconds of every way onto the device, medians of shuffled rounds, GB/s and memory; and a damaged file."""
    with release(arguments, packages) as stage:
        contenders = ways(stage, device)
        weights = sorted(stage.release.rglob("*.safetensors"))
        size = sum(path.stat().st_size for path in weights)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        memory: dict[str, int] = {}
        failed: dict[str, Any] = {}
        order = random.Random(1)
        for number in range(arguments.rounds + 1):
            for name in order.sample(list(contenders), len(contenders)):
                try:
                    taken, peak = once(contenders[name], device, weights if number == 0 else [])
                except Exception as error:  # noqa: BLE001 - the others are still to be measured
                    failed[name] = f"failed: {type(error).__name__}: {error}"
                    del contenders[name], seconds[name]
                    continue
                if number:  # the first round compiles, touches and compares
                    seconds[name].append(taken)
                memory[name] = max(memory.get(name, 0), peak)
        medians = {name: statistics.median(all_) for name, all_ in seconds.items()}
        base = next((value for name, value in medians.items() if name.startswith("safetensors")), None)
        rows: dict[str, Any] = {
            name: {
                "s": value,
                "GB/s": size / value / 1e9,
                "x safetensors": base / value if base else None,
                "device peak / model": memory[name] / size,
            }
            for name, value in medians.items()
        }
        rows["a flipped bit"] = damaged(stage, device)
        return rows | failed


def ways(stage: Any, device: Any) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every way to load, by its name. A peer that is not installed is left out and said so."""

    def ours(directory: Path, name: str, check_on: Any) -> Callable[[], dict[str, Any]]:
        return lambda: pq_registry.load(
            directory, expect=name, trust=stage.trust, recipient_key=stage.recipient, device=str(device),
            framework="torch", check_on=check_on,
        )  # fmt: skip

    found = {}
    for check_on in ("cpu",) if device.type == "cpu" else ("cpu", "device"):
        found[f"pqreg, checked by the {check_on}"] = ours(stage.release, "acme/bench", check_on)
        found[f"pqreg sealed, checked by the {check_on}"] = ours(stage.sealed, "acme/sealed", check_on)
    weights = sorted(stage.release.rglob("*.safetensors"))
    try:
        from safetensors.torch import load_file
    except ImportError:
        print("safetensors is not installed: left out", file=sys.stderr)
    else:
        found["safetensors load_file (nothing checked)"] = lambda: {
            name: tensor.clone() if device.type == "cpu" else tensor
            for path in weights
            for name, tensor in load_file(path, device=str(device)).items()
        }
    try:
        import fastsafetensors
    except ImportError:
        print("fastsafetensors is not installed: left out", file=sys.stderr)
    else:
        found["fastsafetensors (nothing checked)"] = lambda: fast(fastsafetensors, weights, device)
    return found


def fast(module: Any, weights: list[Path], device: Any) -> dict[str, Any]:
    """With fastsafetensors, buffered, without GPUDirect, every tensor owned by the caller."""
    os.environ["FASTSAFETENSORS_ODIRECT"] = "0"
    tensors = {}
    for path in weights:
        loader = module.SafeTensorsFileLoader(module.SingleGroup(), str(device), nogds=True, debug_log=False)
        try:
            loader.add_filenames({0: [str(path)]})
            buffers = loader.copy_files_to_device()
            try:
                tensors.update({name: buffers.get_tensor(name).clone() for name in buffers.key_to_rank_lidx})
            finally:
                buffers.close()
        finally:
            loader.close()
    return tensors


def once(load: Callable[[], dict[str, Any]], device: Any, compare: list[Path]) -> tuple[float, int]:
    """Seconds of a load and peak bytes on the device; with ``compare`` every byte is compared with the files."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    tensors = load()
    if cuda:
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - start
    if compare:
        same_as_files(tensors, compare)
    return taken, torch.cuda.max_memory_allocated(device) if cuda else 0


def damaged(stage: Any, device: Any) -> str:
    """Flip a bit of each copy of the release; every way of ours must name the shard."""
    refused = 0
    ours = {name: way for name, way in ways(stage, device).items() if name.startswith("pqreg")}
    for directory in (stage.release, stage.sealed):
        path = max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        with path.open("r+b") as file:
            at = random.Random(7).randrange(path.stat().st_size // 2, path.stat().st_size)
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 16]))
    for way in ours.values():
        try:
            way()
        except ShardMismatch:
            refused += 1
    if refused != len(ours):
        raise AssertionError(f"{len(ours) - refused} of {len(ours)} ways loaded a damaged file")
    return f"refused by {refused} of {len(ours)}"
