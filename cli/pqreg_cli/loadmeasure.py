# SPDX-License-Identifier: Apache-2.0
"""Loading as it is measured: once, with the clock, the processor, the disk and the memory looked at before and after.

The clock stands while a release is verified and while torch is imported, and runs from the first shard asked for to the
last tensor, on a device to the end of its last copy. Progress is shown coarsely, so that showing it costs nothing.
"""

from __future__ import annotations

import logging
import re
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pq_registry.errors import DeviceFailed
from pqreg_cli.console import Output

if TYPE_CHECKING:
    from pq_registry.client.meter import Meter
    from pq_registry.client.progress import Progress
    from pq_registry.loader.memory import RetainedMemory
    from pq_registry.loader.opening import OpenRelease
    from pq_registry.loader.options import Request
    from pq_registry.loader.selection import Unit

_BLOCK_BYTES: Final = 512
"""The unit of ``ru_inblock``, whatever the disk's."""

_STEPS: Final = 100
"""How often progress is shown at most: each time takes the interpreter lock from the threads that load."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One load: how long it took, how many bytes of tensors it gave, and where the time went.

    ``from_disk`` are the bytes the system read from disks for this process meanwhile; ``user`` and ``system`` the
    seconds all its threads had a core for, by themselves and within the system (page faults, copies out of it).
    """

    seconds: float
    count: int
    user: float
    system: float
    from_disk: int
    meter: Meter

    @property
    def processor(self) -> float:
        """Seconds all threads together had a core for."""
        return self.user + self.system

    @property
    def rate(self) -> float:
        """GB of tensors for each second, as a caller sees it."""
        return self.count / self.seconds / 1e9 if self.seconds else 0.0


def one_pass(
    opened: OpenRelease, request: Request, units: Sequence[Unit], progress: Progress, *, iterate: bool
) -> Pass:
    """Load ``units`` once, and drop them: with ``iterate`` one by one, else when the clock has stopped.

    Raises:
        PqregError: what the loader raises.
    """
    from pq_registry.client.meter import Meter
    from pq_registry.loader.api import iter_opened, load_opened

    meter = Meter()
    request = replace(request, stats=meter, progress=Coarse(progress))
    tensors: dict[str, Any] = {}
    usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if iterate:
        for _ in iter_opened(opened, request):
            pass
    else:
        tensors = load_opened(opened, request)
    synchronise(request.device)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF)
    tensors.clear()
    return Pass(
        seconds,
        sum(unit.end - unit.start for unit in units),
        after.ru_utime - usage.ru_utime,
        after.ru_stime - usage.ru_stime,
        (after.ru_inblock - usage.ru_inblock) * _BLOCK_BYTES,
        meter,
    )


def room_for(units: Sequence[Unit]) -> RetainedMemory:
    """Memory that holds the files of ``units``, for one load after the other; to be closed.

    Raises:
        StorageError: if the system refuses so much.
    """
    from pq_registry import limits
    from pq_registry.loader.memory import RetainedMemory

    sizes = {unit.file.path: unit.file.size for unit in units}
    # Each file begins at a place of its own, up to a cache line off, in steps of a shard.
    return RetainedMemory(sum(size + 2 * limits.SHARD_BYTES for size in sizes.values()) + limits.SHARD_BYTES)


class Coarse:
    """Tells another progress of what was done, in a hundred steps."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._step = self._count = 0

    def start(self, label: str, total_bytes: int) -> None:
        """A stage begins."""
        self._step = total_bytes // _STEPS
        self._shown.start(label, total_bytes)

    def advance(self, count: int) -> None:
        """Count, and tell of it if it is a step."""
        with self._lock:
            self._count += count
            if self._count < self._step:
                return
            count, self._count = self._count, 0
        self._shown.advance(count)

    def done(self) -> None:
        """Tell the rest."""
        with self._lock:
            count, self._count = self._count, 0
        self._shown.advance(count)
        self._shown.done()


@contextmanager
def library_warnings(output: Output) -> Iterator[None]:
    """Show the library's warnings as this command's."""
    handler = _Warnings(output)
    logger = logging.getLogger("pq_registry")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.warning(record.getMessage())


def synchronise(device: str) -> None:
    """Wait until everything that was begun on ``device`` is done.

    Raises:
        DeviceFailed: if the device reports that something of it went wrong.
    """
    if not device.startswith("cuda"):
        return
    try:
        _cuda().synchronize(device)
    except RuntimeError as error:
        raise DeviceFailed(
            f"{device} failed", found=str(error).partition("\n")[0][:200],
            hint="run it again; the driver's log says more (dmesg, nvidia-smi)",
        ) from None  # fmt: skip


def device_peak(device: str) -> int | None:
    """Most bytes of tensors that lay on a CUDA device at once; None for others."""
    return int(_cuda().max_memory_allocated(device)) if device.startswith("cuda") else None


def _cuda() -> Any:
    import torch

    return torch.cuda


def peak_memory() -> int:
    """Most bytes of this process that were in memory at once so far, libraries included."""
    # Not ru_maxrss where there is better: it begins with what the process that started this one had.
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("ascii", "replace"), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
