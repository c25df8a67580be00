# SPDX-License-Identifier: Apache-2.0
"""A release in memory on its way to a device, sealed or not."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress
from pq_registry.client.unsealing import Unsealed
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.device.accelerator import Accelerator
from pq_registry.loader.device.choice import Journey, Route, onto
from pq_registry.loader.dtypes import Framework
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.options import CheckedOn
from pq_registry.loader.selection import Unit, select
from pq_registry.loader.stream import TensorStream
from tests.accelerator import OnDevice, Simulated
from tests.samples import manifest
from tests.sealing_samples import seal
from tests.tensors import Truth, safetensors_bytes

SHARD = limits.SHARD_BYTES


class MemorySource:
    """Files in memory, with a hook before each read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.before: Callable[[str, int], None] = lambda path, offset: None
        self.reads: list[tuple[str, int, int]] = []
        self.closed = self.aborted = 0

    def read_into(self, file: FileEntry, offset: int, view: memoryview, *, arrived: Any = None) -> None:
        self.before(file.path.text, offset)
        self.reads.append((file.path.text, offset, len(view)))
        view[:] = self.files[file.path.text][offset : offset + len(view)]
        if arrived is not None:
            arrived(len(view))

    def abort(self) -> None:
        self.aborted += 1

    def close(self) -> None:
        self.closed += 1


class Loading:
    """One release in memory, and a device to load it onto."""

    def __init__(
        self, files: dict[str, bytes], device: Accelerator, *, sealed: bool = False, attempts: int = 1
    ) -> None:
        self.device = device
        self.meter = Meter()
        unsealed, listed = None, manifest(files).files
        self.source = MemorySource(dict(files))
        if sealed:
            made = seal(files)
            self.source = MemorySource(dict(made.stored))
            release: Any = SimpleNamespace(manifest=made.manifest)
            unsealed, listed = Unsealed(release, made.inner, b"", made.key), made.inner.files
        verified: Any = SimpleNamespace()
        self.opened = OpenRelease(verified, listed, lambda: self.source, 3, 2, 1, attempts=attempts, unsealed=unsealed)

    def route(self, check: CheckedOn, *, whole: bool, **chosen: Any) -> tuple[Route, tuple[Unit, ...]]:
        units = select(self.opened, **chosen)
        journey = Journey(self.opened, units, whole, NullProgress(), self.meter)
        return onto(self.device, journey, check_on=check), units

    def tensors(
        self, check: CheckedOn, *, whole: bool, form: Framework | None = None, **chosen: Any
    ) -> Generator[tuple[str, Any], None, None]:
        route, units = self.route(check, whole=whole, **chosen)
        if form is None:
            assert isinstance(self.device, Simulated)
            form = OnDevice(self.device)
        return TensorStream(
            units, route.runs, route.filler, route.placement, form, pace=route.pace, meter=self.meter
        ).tensors()


def same(found: dict[str, np.ndarray], truth: Truth) -> bool:
    """Whether the arrays are those of ``truth``, bit for bit, and aligned."""
    return found.keys() == truth.keys() and all(
        array.dtype == truth[name].dtype
        and array.shape == truth[name].shape
        and array.tobytes() == truth[name].tobytes()
        and (array.size == 0 or array.ctypes.data % array.itemsize == 0)
        for name, array in found.items()
    )


def sample(seed: int = 0) -> tuple[dict[str, bytes], Truth]:
    """Two files with tensors of every awkward size, one with an odd header."""
    rng = random.Random(seed)
    sizes = [0, 1, 3, SHARD // 2, 2 * SHARD, 5, 3 * SHARD + 17, 0, SHARD, 4]
    rng.shuffle(sizes)
    one, truth_one = safetensors_bytes({f"a{number}": ("U8", (size,)) for number, size in enumerate(sizes)}, seed)
    tensors = {
        "b0": ("I64", (SHARD // 4,)),
        "b1": ("F64", (0, 7)),
        "b2": ("F32", (1000, 7)),
        "b3": ("F32", ()),
        "b4": ("BF16", (SHARD // 2, 3)),
    }
    two, truth_two = safetensors_bytes(tensors, seed + 1, header_padding=3)
    return {"a.safetensors": one, "b.safetensors": two}, {**truth_one, **truth_two}


@contextmanager
def left_as_found(device: Simulated) -> Iterator[Simulated]:
    """Use ``device``; at the end no page-locked buffer and no thread of a load is left."""
    yield device
    device.close()
    gc.collect()
    assert device.pinned == [], "page-locked buffers are left"
    assert [one.name for one in threading.enumerate() if one.name.startswith("pqreg-load")] == []
