# SPDX-License-Identifier: Apache-2.0
"""Contenders for load: ``MODE FRAMEWORK DIR``. Prints seconds from the call to usable tensors, imports excluded.

``pqreg-load``       ``pq_registry.load``: verified, in memory of its own
``pqreg-again``      the same, the second time in one process, after the first result was dropped
``pqreg-pass``       ``pq_registry.iter_tensors``, each tensor dropped: what verified tensors cost by themselves
``pqreg-stream``     ``pq_registry.iter_tensors``, each tensor copied into parameters that exist already
``pqreg-sealed``     ``pq_registry.load`` of a sealed release, with the recipient key of the environment
``pqreg-sealedpass`` ``pq_registry.iter_tensors`` of it, each tensor dropped
``safetensors-map``  ``safetensors`` ``load_file``, then one byte of every page read: mapped from the page cache
``safetensors-own``  the same, then every tensor cloned: in memory of its own, as pq_registry.load leaves it
``safetensors-stream`` the same, each tensor copied into parameters that exist already
``read``             ``readv`` of each file into fresh memory by one thread per core: no tensors, nothing verified
"""

from __future__ import annotations

import gc
import importlib
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.stage import REPOSITORY, SEALED_REPOSITORY

Tensors = dict[str, Any]
PAGE = 4096
BLOCK = 2 << 20


def memory_use() -> dict[str, int]:
    """Resident MiB now: private memory, and mapped page cache."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(("RssAnon", "RssFile")):
                label, value = line.split()[:2]
                found[label.rstrip(":").lower() + "_mib"] = int(value) >> 10
    return found


def parameters(directory: Path, framework: str) -> Tensors:
    """Memory for every tensor, touched, as a model that was constructed before has it."""
    found: Tensors = {}
    for path in directory.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if framework == "torch":
                import torch

                found[name] = torch.ones(entry["shape"], dtype=torch.bfloat16)
            else:
                import ml_dtypes
                import numpy as np

                found[name] = np.ones(entry["shape"], ml_dtypes.bfloat16)
    return found


def copy_all(tensors: Iterable[tuple[str, Any]], into: Tensors, framework: str) -> None:
    """Copy every tensor where it belongs."""
    import numpy as np

    for name, tensor in tensors:
        if framework == "torch":
            into[name].copy_(tensor)
        else:
            np.copyto(into[name], tensor)


def reference_files(directory: Path) -> Iterable[tuple[str, Any]]:
    """What safetensors' own torch reader gives."""
    from safetensors.torch import load_file

    for path in sorted(directory.glob("*.safetensors")):
        yield from load_file(path).items()


def read_all(directory: Path) -> list[mmap.mmap]:
    """Every safetensors file in fresh memory."""
    jobs: list[Callable[[], int]] = []
    kept = []
    for path in directory.glob("*.safetensors"):
        descriptor, size = os.open(path, os.O_RDONLY), path.stat().st_size
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        kept.append(memory)
        view = memoryview(memory)
        for offset in range(0, size, BLOCK):
            part = view[offset : offset + BLOCK]
            jobs.append(partial(os.preadv, descriptor, [part], offset))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done in pool.map(lambda job: job(), jobs):
            assert done
    return kept


def verified(directory: Path, framework: str, _into: Tensors) -> object:
    """pq_registry.load."""
    from pq_registry import load

    return load(directory, expect=REPOSITORY, framework=framework)  # type: ignore[arg-type]


def verified_stream(directory: Path, framework: str, into: Tensors) -> object:
    """pq_registry.iter_tensors."""
    from pq_registry import iter_tensors

    copy_all(iter_tensors(directory, expect=REPOSITORY, framework=framework), into, framework)  # type: ignore[arg-type]
    return into


def verified_pass(directory: Path, framework: str, _into: Tensors) -> object:
    """pq_registry.iter_tensors; answers the names."""
    from pq_registry import iter_tensors

    return [name for name, _ in iter_tensors(directory, expect=REPOSITORY, framework=framework)]  # type: ignore[arg-type]


def sealed(directory: Path, framework: str, _into: Tensors) -> object:
    """pq_registry.load of a sealed release."""
    from pq_registry import load

    return load(directory, expect=SEALED_REPOSITORY, framework=framework)  # type: ignore[arg-type]


def sealed_pass(directory: Path, framework: str, _into: Tensors) -> object:
    """pq_registry.iter_tensors of a sealed release; answers the names."""
    from pq_registry import iter_tensors

    tensors = iter_tensors(directory, expect=SEALED_REPOSITORY, framework=framework)  # type: ignore[arg-type]
    return [name for name, _ in tensors]


def mapped(directory: Path, _framework: str, _into: Tensors) -> object:
    """safetensors, every page touched."""
    import torch

    found = dict(reference_files(directory))
    for tensor in found.values():
        tensor.view(-1).view(torch.uint8)[::PAGE].max()
    return found


def cloned(directory: Path, _framework: str, _into: Tensors) -> object:
    """safetensors, cloned."""
    return {name: tensor.clone() for name, tensor in reference_files(directory)}


def copied(directory: Path, framework: str, into: Tensors) -> object:
    """safetensors, copied into what is there."""
    copy_all(reference_files(directory), into, framework)
    return into


MODES: dict[str, Callable[[Path, str, Tensors], object]] = {
    "pqreg-load": verified,
    "pqreg-again": verified,
    "pqreg-pass": verified_pass,
    "pqreg-stream": verified_stream,
    "pqreg-sealed": sealed,
    "pqreg-sealedpass": sealed_pass,
    "safetensors-map": mapped,
    "safetensors-own": cloned,
    "safetensors-stream": copied,
    "read": lambda directory, _framework, _into: read_all(directory),
}


def main(mode: str, framework: str, directory: Path) -> dict[str, float]:
    """Prepare, then time one call."""
    modules = {"torch": "torch", "pqreg": "pq_registry.loader.api", "safetensors": "safetensors.torch"}
    for needed in {framework, mode.partition("-")[0]} & modules.keys():
        importlib.import_module(modules[needed])
    into = parameters(directory, framework) if mode.endswith("stream") else {}
    if mode == "pqreg-again":
        MODES[mode](directory, framework, into)  # and dropped at once
        gc.collect()
    before = memory_use()
    begun = time.perf_counter()
    kept = MODES[mode](directory, framework, into)
    seconds = time.perf_counter() - begun
    assert kept, "nothing was loaded"
    return {"seconds": seconds, **{name: value - before[name] for name, value in memory_use().items()}}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))
