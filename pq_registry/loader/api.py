# SPDX-License-Identifier: Apache-2.0
"""Verified tensors: ``pq_registry.load`` and ``pq_registry.iter_tensors``.

::

    tensors = pq_registry.load("acme/teuken-7b:v1")                               # from the configured registry
    tensors = pq_registry.load(Path("teuken"), expect="acme/teuken-7b")           # from a directory
    for name, tensor in pq_registry.iter_tensors("acme/teuken-7b:v1", device="cuda"):
        parameters[name].copy_(tensor)

Whatever is returned passed the verification of DESIGN §5: the release's signatures against the trust file, then the
BLAKE3 digest of every shard that holds a byte of the tensor, computed in the very memory the tensor is made of.
SHA-256 digests of whole files are checked when a release is published and pulled, not here. Nothing is written to
disk, no header of a file is parsed, and no format that can execute code is read.

A sealed release needs a recipient key it was granted to. Its shards are checked before they are decrypted, and
decrypted straight into that memory.

``load`` needs memory for all tensors once. ``iter_tensors`` needs it for the tensor the caller holds, the one being
read, and ``limits.LOADER_RING_BYTES`` of those after it; up to ``limits.LOADER_ARENA_BYTES`` is kept until it ends.

The clock is read here: trust files and tags expire, and callers of a library have no other moment to name.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Generator, Sequence
from typing import Any, Unpack

from pq_registry import limits
from pq_registry.client.meter import Meter
from pq_registry.errors import PqregError, UsageError
from pq_registry.format.instant import utc_now
from pq_registry.loader import torch_bridge
from pq_registry.loader.device.choice import Journey, Route, onto, require_computing
from pq_registry.loader.dlpack import DLPack
from pq_registry.loader.dtypes import Framework, Numpy
from pq_registry.loader.existing import Existing, Given
from pq_registry.loader.memory import Arena
from pq_registry.loader.opened import Opened
from pq_registry.loader.opening import OpenRelease, open_release
from pq_registry.loader.options import LoadOptions, Request
from pq_registry.loader.parallel.joint import read_together, together
from pq_registry.loader.parallel.place import place_of
from pq_registry.loader.parallel.plan import cutting
from pq_registry.loader.parallel.shares import Narrowed, Shares, shares
from pq_registry.loader.placement import OwnMemory, Placement, WholeFiles
from pq_registry.loader.selection import Unit, runs, select
from pq_registry.loader.stream import Pace, TensorStream
from pq_registry.settings import Settings

_LOG = logging.getLogger(__name__)


def load(release: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> dict[str, Any]:
    """All tensors of a release, by name.

    On the CPU, tensors are views of one buffer per file, which lives as long as any of them.

    Args:
        release: as for ``iter_tensors``.
        **options: ``loader.options.LoadOptions``.

    Raises:
        PqregError: if the release, or one shard of it, is not what was signed; nothing is returned then.
    """
    request = _requested(options)
    return load_opened(_opened(release, request), request)


def iter_tensors(
    release: str | os.PathLike[str], **options: Unpack[LoadOptions]
) -> Generator[tuple[str, Any], None, None]:
    """The tensors of a release one by one, in file order, read ahead in bounded memory.

    The release is verified before this returns; shards are read once the iteration begins. Each tensor owns its
    memory, which is used again for later tensors once nothing refers to it any more. Close the generator to end early.

    Args:
        release: a reference ``namespace/name[:tag][@digest]``; a path object, or text together with ``expect``, is a
            directory that holds a release.
        **options: ``loader.options.LoadOptions``.

    Returns:
        A generator of names and tensors.

    Raises:
        PqregError: if the release, or one shard of it, is not what was signed. Tensors handed out before were.
    """
    request = _requested(options)
    return iter_opened(_opened(release, request), request)


def open_verified(release: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> Opened:
    """A release whose tensors, parts of tensors and files are read and verified when they are asked for.

    Args:
        release: as for ``iter_tensors``.
        **options: ``loader.options.LoadOptions``, without those that cut tensors among ranks or fill existing ones.

    Returns:
        A context manager with the methods of safetensors' ``safe_open``.

    Raises:
        PqregError: if the release is not what was signed; what is read later raises for itself.
    """
    request = _requested(options)
    form = framework_of(request)
    return Opened(_opened(release, request), form if form.on_cpu else torch_bridge.Torch("cpu"), request)


def load_opened(opened: OpenRelease, request: Request) -> dict[str, Any]:
    """All tensors of a release that was opened before, by name; it may be read any number of times.

    Raises:
        PqregError: as ``load``.
    """
    form = framework_of(request)
    with contextlib.closing(_stream(opened, form, request, whole=True)) as tensors:
        return dict(tensors)


def iter_opened(opened: OpenRelease, request: Request) -> Generator[tuple[str, Any], None, None]:
    """The tensors of a release that was opened before, one by one; it may be read any number of times.

    Raises:
        PqregError: as ``iter_tensors``.
    """
    return _stream(opened, framework_of(request), request, whole=False)


def open_for(release: str | os.PathLike[str], request: Request, *, settings: Settings | None = None) -> OpenRelease:
    """Find and verify a release for ``request``; with ``settings`` by these instead of the request's.

    Raises:
        PqregError: as ``load``.
    """
    return open_release(
        release,
        expect=request.expect,
        settings=settings or request.settings,
        now=utc_now(),
        key=request.key,
        io=request.io,
    )


def _requested(options: LoadOptions) -> Request:
    """The request ``options`` make. Where they make none, a group that was named in them hears of it."""
    try:
        return Request.of(options)
    except PqregError as error:
        with contextlib.suppress(PqregError), together(options.get("group")):  # if there is such a group
            raise error from None
        raise


def _opened(release: str | os.PathLike[str], request: Request) -> OpenRelease:
    with together(request.group):
        framework_of(request)  # before the network is asked for anything
        opened = open_for(release, request)
    verified = opened.verified
    level = logging.WARNING if verified.unchecked else logging.INFO
    _LOG.log(level, "%s %s: %s", verified.release.name, verified.release.digest, "; ".join(verified.notes))
    return opened


def _stream(
    opened: OpenRelease, form: Framework, request: Request, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    with together(request.group):
        place = place_of(request.rank, request.world_size, request.group)
        plan = cutting(request.plan, place, opened.files)
        lots = shares(select(opened, names=request.names, files=request.files), plan)
        if lots.parts:
            form = Narrowed(form, lots.parts, meter=request.stats or Meter())
        form.check(unit.entry for unit in lots.units)
        if request.group is not None:
            form.accelerator()  # a device that does not answer: said while everybody listens
    whole = whole and plan is None  # parts of a file need no room for all of it
    if request.group is None:
        return _read(opened, form, lots.units, request, whole=whole)
    return _read_with_others(opened, form, lots, request, whole=whole)


def _read_with_others(
    opened: OpenRelease, form: Framework, lots: Shares, request: Request, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    shared = read_together(opened, form, lots.together, request, whole=whole and form.on_cpu)
    alone = _read(opened, form, lots.alone, request, whole=whole) if lots.alone else None
    return _one_after_the_other(shared, alone)


def _one_after_the_other(
    first: Generator[tuple[str, Any], None, None], second: Generator[tuple[str, Any], None, None] | None
) -> Generator[tuple[str, Any], None, None]:
    yield from first
    if second is not None:
        yield from second


def _read(
    opened: OpenRelease, form: Framework, units: Sequence[Unit], request: Request, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    meter = request.stats or Meter()
    total = sum(run.size for run in runs(units, longest=opened.longest, by_owner=False))
    request.watcher.start(f"load {opened.verified.release.name}", total)
    try:
        accelerator = form.accelerator()
        if accelerator is not None:
            route = onto(accelerator, Journey(opened, units, whole, request.watcher, meter), check_on=request.check_on)
        else:
            route = _into_memory(opened, form, units, request, meter, whole=whole and form.on_cpu)
        stream = TensorStream(units, route.runs, route.filler, route.placement, form, pace=route.pace, meter=meter)
        yield from stream.tensors()
    finally:
        request.watcher.done()


def _into_memory(
    opened: OpenRelease, form: Framework, units: Sequence[Unit], request: Request, meter: Meter, *, whole: bool
) -> Route:
    placement: Placement
    if isinstance(form, Given):
        placement = Existing(units, form, verified=opened.unsealed is not None, meter=meter)
    elif whole:
        placement = WholeFiles(units, request.memory)
    else:
        placement = OwnMemory(units, request.memory or Arena(limits.LOADER_ARENA_BYTES), meter=meter)
    # Through scratch memory no more at once than one read brings, so that it is still in the cache when it is copied.
    longest = opened.request if isinstance(form, Given) else opened.longest
    return Route(
        runs(units, longest=longest, by_owner=not isinstance(placement, WholeFiles)),
        opened.filler(request.watcher, meter),
        placement,
        Pace(opened.workers, limits.LOADER_RING_BYTES if isinstance(placement, OwnMemory) else None),
    )


def framework_of(request: Request) -> Framework:
    """What makes tensors of bytes. Raises UsageError where it is not installed, or has no such device."""
    name, device = request.framework, request.device
    if request.check_on == "device":
        require_computing(device, shared=request.group is not None)
    if request.into is not None:
        return Given(request.into)
    if name == "torch" or device != "cpu" or (name == "auto" and torch_bridge.is_installed()):
        if name == "numpy":
            raise UsageError("numpy has no devices", expected='device="cpu"', found=repr(device)[:40])
        return torch_bridge.Torch(device)
    return DLPack() if name == "dlpack" else Numpy()
