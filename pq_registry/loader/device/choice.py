# SPDX-License-Identifier: Apache-2.0
"""Who checks what is loaded onto a device, through which buffers, and how far ahead.

Checked by the processor, runs are as short as on the way to the CPU, so that a shard is hashed while it is in a core's
cache; the page-locked ring has one slot for each thread and a few that are being copied. Checked by the device, runs
are long, since each costs half a dozen calls to the driver whatever its length; every thread has a stage of its own,
and there is one to spare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.client.progress import Progress
from pq_registry.errors import UsageError
from pq_registry.loader.device.accelerator import Accelerator, Pinned
from pq_registry.loader.device.cudakernels import require_triton
from pq_registry.loader.device.layout import Apart, Layout, Packed
from pq_registry.loader.device.placement import CheckedHere
from pq_registry.loader.device.staging import Ring
from pq_registry.loader.device.stored import StoredFiles, Untouched
from pq_registry.loader.device.verified import CheckedThere, Stage
from pq_registry.loader.fill import Filler
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.options import CheckedOn
from pq_registry.loader.placement import Placement
from pq_registry.loader.selection import Run, Unit, runs
from pq_registry.loader.stream import Pace


@dataclass(frozen=True, slots=True)
class Route:
    """How a stream goes: what brings ``runs``, where to, and at which pace."""

    runs: Iterator[Run]
    filler: Filler
    placement: Placement
    pace: Pace


@dataclass(frozen=True, slots=True)
class Journey:
    """What a route is made for: ``units`` of a release, kept together (``whole``) or handed out one by one."""

    opened: OpenRelease
    units: Sequence[Unit]
    whole: bool
    progress: Progress
    meter: Meter

    def layout(self, accelerator: Accelerator) -> Layout:
        """Where on the device they go. Raises DeviceFailed."""
        return (Packed if self.whole else Apart)(self.units, accelerator)

    def pace(self, staged: int) -> Pace:
        """The pace, if ``staged`` bytes may be on their way."""
        return Pace(self.opened.workers, None if self.whole else limits.LOADER_RING_BYTES + staged)


def require_computing(device: str, *, shared: bool) -> None:
    """Refuse ``check_on="device"`` where nothing could check, before anything is opened.

    Args:
        device: as the caller named it.
        shared: a group of processes shares the reading.

    Raises:
        UsageError: if ``device`` is no CUDA device, the kernels cannot be compiled, or processes share the reading.
    """
    if device.partition(":")[0] != "cuda":
        raise UsageError(
            'check_on="device" needs a device that computes',
            expected='a CUDA device, e.g. device="cuda"',
            found=f"device={device!r}"[:60],
            hint='check_on="cpu" works with every device',
        )
    if shared:
        raise UsageError(
            'check_on="device" and group= do not go together',
            expected="one of them: what processes share is checked by the processor of the one that reads it",
            found="both",
            hint='rank= and plan= without group= work with check_on="device"',
        )
    require_triton()


def onto(accelerator: Accelerator, journey: Journey, *, check_on: CheckedOn) -> Route:
    """The route to a device. Raises UsageError or DeviceFailed."""
    return checked_there(journey, accelerator) if check_on == "device" else checked_here(journey, accelerator)


def checked_here(journey: Journey, accelerator: Accelerator) -> Route:
    """The processor checks and decrypts. Raises DeviceFailed."""
    opened = journey.opened
    size = opened.longest * limits.SHARD_BYTES
    slots: Ring[Pinned] = Ring(lambda: accelerator.pin(size), most=opened.workers + limits.LOADER_SPARE_SLOTS)
    # Before the source is opened: this is where too little memory shows.
    placement = CheckedHere(accelerator, journey.layout(accelerator), slots, meter=journey.meter)
    return Route(
        runs(journey.units, longest=opened.longest, by_owner=False),
        opened.filler(journey.progress, journey.meter),
        placement,
        journey.pace(opened.workers * size),
    )


def checked_there(journey: Journey, accelerator: Accelerator) -> Route:
    """The device checks and decrypts. Raises UsageError or DeviceFailed."""
    opened, meter = journey.opened, journey.meter
    most = opened.workers + 1
    each = limits.LOADER_STAGE_BYTES // (most * limits.SHARD_BYTES)
    longest = max(1, min(each, limits.LOADER_DEVICE_SHARDS))
    files = StoredFiles(opened.unsealed)
    stages: Ring[Stage] = Ring(lambda: Stage.make(accelerator, shards=longest, sealed=files.sealed), most=most)
    filler = Untouched(opened.stored(), files, request=max(opened.request, opened.longest), meter=meter)
    try:
        placement = CheckedThere(
            accelerator, journey.layout(accelerator), stages,
            files=files, filler=filler, attempts=opened.attempts, progress=journey.progress, meter=meter,
        )  # fmt: skip
    except BaseException:
        filler.close()
        raise
    return Route(
        runs(journey.units, longest=longest, by_owner=False),
        filler,
        placement,
        journey.pace(2 * opened.workers * longest * limits.SHARD_BYTES),
    )
