# SPDX-License-Identifier: Apache-2.0
"""One load of several processes: all of them open the release, share the reading of it, and fail together.

Every process verifies the release for itself (steps 0 to 7). They go on only if all did, and if all are about to load
the same tensors of the same release. From then on each reads and verifies its share of every window
(``parallel.windows``).

A load with a group is one operation of all its processes: whoever does not take part is waited for.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import ConnectionFailed
from pq_registry.loader.device.accelerator import Accelerator
from pq_registry.loader.device.layout import Apart, Packed
from pq_registry.loader.dtypes import Framework
from pq_registry.loader.memory import Arena
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.options import Request
from pq_registry.loader.parallel.exchange import Exchange, TorchExchange
from pq_registry.loader.parallel.ondevice import SharedOnDevice
from pq_registry.loader.parallel.place import Place
from pq_registry.loader.parallel.turns import Turns
from pq_registry.loader.parallel.windows import SharedWindows, ShareFiller, share_size, window_shards
from pq_registry.loader.parallel.words import agree, refuse
from pq_registry.loader.placement import OwnMemory, WholeFiles
from pq_registry.loader.selection import Unit, runs
from pq_registry.loader.stream import Pace, TensorStream


@contextmanager
def together(group: Any) -> Iterator[None]:
    """What happens in here succeeds in all processes of ``group``, or fails in all of them; None is no group.

    Raises:
        PqregError: what this process failed with, else what the first of the others did.
    """
    if group is None:
        yield
        return
    with contextlib.closing(TorchExchange(group)) as exchange:
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(ConnectionFailed):  # the others know then, and this error is the one that matters
                refuse(exchange, error)
            raise
        agree(exchange)


def read_together(
    opened: OpenRelease, form: Framework, units: Sequence[Unit], request: Request, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    """The tensors ``units``, the same in every process of the request's group, one by one.

    The processes are connected and agreed when this returns. A generator that is dropped before it is iterated drops
    its connections with it, and so ends the load of the others.

    Args:
        opened: the release.
        form: makes tensors.
        units: what to read.
        request: names the group, and who is told of progress; told only of what this process reads.
        whole: tensors are views of one buffer per file.

    Raises:
        PqregError: if this process or another cannot have a shard, or it is not what was signed.
    """
    accelerator = form.accelerator()
    exchange = TorchExchange(request.group, device="cpu" if accelerator is None else accelerator.name)
    try:
        agree(exchange, matter(opened, units, exchange.place, None if accelerator is None else accelerator.name))
    except BaseException:
        exchange.close()
        raise
    return _iterated(opened, form, units, request, exchange, whole=whole)


def _iterated(
    opened: OpenRelease, form: Framework, units: Sequence[Unit], request: Request, exchange: Exchange, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    try:
        accelerator = form.accelerator()  # of the thread that is given the tensors
    except BaseException:
        exchange.close()
        raise
    yield from read_shared(opened, form, units, request, exchange, whole=whole, accelerator=accelerator)


def matter(opened: OpenRelease, units: Sequence[Unit], place: Place, device: str | None) -> str:
    """What all processes must agree about before they exchange a byte: what is loaded, and how it goes around.

    Two that exchange windows of different sizes would mix them up, and one that waits for NCCL would wait for ever for
    one that has its bytes in host memory.
    """
    way = "host" if device is None else device.partition(":")[0]
    return f"{fingerprint(opened, units)} {way} {window_shards(place.size)}x{limits.SHARD_BYTES}"


def fingerprint(opened: OpenRelease, units: Sequence[Unit]) -> str:
    """What is loaded, in a few characters: the same text only for the same bytes of the same release."""
    digest = hashlib.sha256(str(opened.verified.release.digest).encode())
    for unit in units:
        digest.update(f"\n{unit.file.path.text}\n{unit.entry.name}\n{unit.start} {unit.end}".encode())
    return digest.hexdigest()


def read_shared(
    opened: OpenRelease,
    form: Framework,
    units: Sequence[Unit],
    request: Request,
    exchange: Exchange,
    *,
    whole: bool,
    accelerator: Accelerator | None = None,
) -> Generator[tuple[str, Any], None, None]:
    """The tensors ``units``, about which all processes of ``exchange`` agreed; it is closed at the end.

    They are exchanged in the memory of ``accelerator``, if there is one.

    Raises:
        PqregError: as ``read_together``.
    """
    meter = request.stats or Meter()
    place = exchange.place
    planned = list(runs(units, longest=window_shards(place.size), by_owner=False))
    turns = Turns(exchange, len(planned))
    request.watcher.start(f"load {opened.verified.release.name}", sum(share_size(run, place) for run in planned))
    try:
        placement: SharedWindows | SharedOnDevice
        with turns.ended_on_error():
            if accelerator is None:
                placement = _in_memory(units, exchange, turns, meter, whole=whole and form.on_cpu)
                workers = opened.workers
            else:
                layout = (Packed if whole else Apart)(units, accelerator)
                placement = SharedOnDevice(accelerator, layout, exchange, turns, slots=opened.workers, meter=meter)
                workers = placement.slots
        try:
            with turns.blamed():
                filler = ShareFiller(opened.filler(request.watcher, meter), place, turns)
        except BaseException:
            placement.clear()
            raise
        # Three windows: one that is exchanged, one that is read meanwhile, and one that the caller has tensors of.
        ahead = max(limits.LOADER_RING_BYTES, 3 * window_shards(place.size) * limits.SHARD_BYTES)
        pace = Pace(workers, None if whole else ahead)
        stream = TensorStream(units, iter(planned), filler, placement, form, pace=pace, meter=meter)
        yield from stream.tensors()
    finally:
        request.watcher.done()


def _in_memory(units: Sequence[Unit], exchange: Exchange, turns: Turns, meter: Meter, *, whole: bool) -> SharedWindows:
    memory = WholeFiles(units) if whole else OwnMemory(units, Arena(limits.LOADER_ARENA_BYTES), meter=meter)
    return SharedWindows(memory, exchange, turns, meter=meter)
