# SPDX-License-Identifier: Apache-2.0
"""One load, timed from the call to usable tensors: ``LOADER END TURN SOURCE CORPUS [PART=ADDRESS...]``.

``LOADER``  a key of ``loaders.LOADERS``, or ``read``: bytes into memory by one thread per core, nothing verified
``END``     ``into``: in parameters that exist and were touched, as a model that was built has them. ``own``: new
            tensors, in memory nobody else can change
``TURN``    ``first`` load of the process, or ``again``: the second one, when the result of the first was dropped; ours
            are then given the same memory (``memory=``)
``SOURCE``  what the loader reads: a directory, a file, a URL, a reference
``CORPUS``  the model as it was made, with which samples of the result are compared

Imports are not timed; signatures and manifests are. Prints seconds, CPU seconds with those of child processes, what was
read from the disk, and the memory before.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.contest import resident_pages
from tests.benchmarks.httpfloor import anonymous, fetch, named
from tests.benchmarks.loaders import LOADERS, Loader, framework, retain, weights

Model = dict[str, Any]
BLOCK = 2 << 20
SAMPLE = 64
"""Bytes of every ``BLOCK`` of a tensor that are compared."""
MEBI = 1 << 20


def headers(directory: Path) -> Iterator[tuple[Path, str, list[int], int, int]]:
    """Of every tensor: its file, name and shape, and where its bytes begin and end in the file."""
    for path in weights(directory):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            table = json.loads(file.read(size))
        for name, entry in table.items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in entry["data_offsets"])
                yield path, name, entry["shape"], begin, end


def parameters(directory: Path) -> Model:
    """Memory for every tensor, touched."""
    found: Model = {}
    for _, name, shape, _, _ in headers(directory):
        if framework() == "torch":
            import torch

            found[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            import ml_dtypes

            found[name] = np.ones(shape, ml_dtypes.bfloat16)
    return found


def raw(tensor: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of a tensor."""
    if isinstance(tensor, np.ndarray):
        return tensor.reshape(-1).view(np.uint8)
    import torch

    found: np.ndarray[Any, np.dtype[np.uint8]] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return found


def compare(model: Model, corpus: Path) -> int:
    """How many samples were compared; the page cache is hardly used.

    Raises:
        AssertionError: if a tensor is missing, or is not what was made.
    """
    count, expected = 0, set()
    with contextlib.ExitStack() as live:
        files = {path: live.enter_context(path.open("rb", buffering=0)) for path in weights(corpus)}
        for file in files.values():
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for path, name, _, begin, end in headers(corpus):
            found = raw(model[name])
            assert len(found) == end - begin, name
            expected.add(name)
            for at in {*range(0, end - begin, BLOCK), max(0, end - begin - SAMPLE)}:
                sample = os.pread(files[path].fileno(), min(SAMPLE, end - begin - at), begin + at)
                assert found[at : at + len(sample)].tobytes() == sample, f"{name} differs at {at}"
                count += 1
    assert expected == set(model), "tensors that nobody asked for"
    return count


def read(source: str, memory: dict[Path, mmap.mmap]) -> Model:
    """Every file by one thread per core, straight into ``memory``, or into fresh memory where it has none."""
    jobs = []
    with contextlib.ExitStack() as live:
        for path in weights(source):
            file, size = live.enter_context(path.open("rb", buffering=0)), path.stat().st_size
            if path not in memory:
                memory[path] = anonymous(path)
            view = memoryview(memory[path])
            jobs += [partial(os.preadv, file.fileno(), [view[at : at + BLOCK]], at) for at in range(0, size, BLOCK)]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            assert all(pool.map(lambda job: job(), jobs))
    return {
        name: np.frombuffer(memory[path], np.uint8)[begin:end] for path, name, _, begin, end in headers(Path(source))
    }


def into(loader: Loader, source: str, model: Model) -> Model:
    """Have every parameter hold its tensor."""
    if loader.fill is not None:
        loader.fill(source, model)
        return model
    for name, tensor in loader.iterate(source):
        if isinstance(tensor, np.ndarray):
            np.copyto(model[name], tensor)
        else:
            import torch

            with torch.no_grad():  # tensorizer gives parameters: a copy of one would be recorded, and keep it alive
                model[name].copy_(tensor)
    return model


def own(loader: Loader, source: str) -> Model:
    """Keep every tensor."""
    if loader.whole is not None:
        return loader.whole(source)
    return {name: tensor.clone() if loader.borrowed else tensor for name, tensor in loader.iterate(source)}


class Job:
    """What is timed, and what it needs before that."""

    def __init__(self, words: list[str]) -> None:
        """Import, and make memory."""
        key, self.end, self.turn, self.source, corpus, *self.parts = words
        self.corpus = Path(corpus)
        self.loader = LOADERS.get(key)
        self.memory: dict[Path, mmap.mmap] = {}
        self.model: Model = {}
        if self.loader is not None:
            self.loader.prepare()
            self.model = parameters(self.corpus) if self.end == "into" else {}
        elif self.end == "into":
            self.memory = {path: anonymous(path) for path in weights(self.source) or map(named, self.parts)}
            self._spoil()

    def _spoil(self) -> None:
        """Forget what was loaded: nothing may be right that the next load does not write."""
        for tensor in self.model.values():
            tensor[...] = 1
        if self.end == "own":
            self.memory = {}
        for kept in self.memory.values():
            np.frombuffer(kept, np.uint8)[...] = 1

    def _run(self) -> Model:
        if self.loader is None:
            return fetch(self.source, self.parts, self.memory) if self.parts else read(self.source, self.memory)
        return into(self.loader, self.source, self.model) if self.end == "into" else own(self.loader, self.source)

    def measure(self) -> dict[str, float]:
        """Time one load, and compare what it gave."""
        if self.turn == "again":
            if self.loader is not None and self.loader.ours:
                retain(sum(path.stat().st_size for path in weights(self.corpus)))
            self._run()
            self._spoil()
            gc.collect()
        private, mapped = resident_pages("self")
        disk, cpu, begun = from_disk(), cpu_seconds(), time.perf_counter()
        model = self._run()
        seconds, cpu, disk = time.perf_counter() - begun, cpu_seconds() - cpu, from_disk() - disk
        page = os.sysconf("SC_PAGE_SIZE") / MEBI
        return {
            "seconds": seconds,
            "cpu_seconds": cpu,
            "disk_mib": disk / MEBI,
            "private_before_mib": private * page,
            "mapped_before_mib": mapped * page,
            "samples": compare(model, self.corpus),
        }


def cpu_seconds() -> float:
    """Of this process and its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def from_disk() -> int:
    """Bytes this process made the disk read."""
    with open("/proc/self/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))


if __name__ == "__main__":
    print(json.dumps(Job(sys.argv[1:]).measure()), flush=True)
    os._exit(0)  # taking torch down maps a hundred megabytes more, which would be counted
