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
from collections.abc import Collection, Generator, Sequence
from typing import Any, Literal

from pq_registry import limits
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.crypto.recipient import RecipientKey
from pq_registry.errors import UsageError
from pq_registry.format.instant import utc_now
from pq_registry.loader import torch_bridge
from pq_registry.loader.dtypes import Framework, Numpy
from pq_registry.loader.memory import Arena
from pq_registry.loader.opening import OpenRelease, open_release
from pq_registry.loader.placement import OwnMemory, Placement, WholeFiles
from pq_registry.loader.selection import Unit, runs, select
from pq_registry.loader.stream import Pace, TensorStream
from pq_registry.settings import Settings

_LOG = logging.getLogger(__name__)


def load(  # noqa: PLR0913 - one keyword per thing a caller may want to say
    release: str | os.PathLike[str],
    *,
    device: str = "cpu",
    framework: Literal["auto", "numpy", "torch"] = "auto",
    expect: str | None = None,
    registry: str | None = None,
    token: str | None = None,
    trust: str | os.PathLike[str] | None = None,
    recipient_key: str | os.PathLike[str] | RecipientKey | None = None,
    connections: int | None = None,
    names: Collection[str] | None = None,
    files: Collection[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All tensors of a release, by name. The arguments are those of ``iter_tensors``.

    On the CPU, tensors are views of one buffer per file, which lives as long as any of them.

    Raises:
        PqregError: if the release, or one shard of it, is not what was signed; nothing is returned then.
    """
    form = _framework(framework, device)
    settings = _settings(registry, token, trust, recipient_key, connections)
    key = recipient_key if isinstance(recipient_key, RecipientKey) else None
    opened = open_release(release, expect=expect, settings=settings, now=utc_now(), key=key)
    with contextlib.closing(_stream(opened, form, names, files, progress, whole=form.on_cpu)) as tensors:
        return dict(tensors)


def iter_tensors(  # noqa: PLR0913 - see load
    release: str | os.PathLike[str],
    *,
    device: str = "cpu",
    framework: Literal["auto", "numpy", "torch"] = "auto",
    expect: str | None = None,
    registry: str | None = None,
    token: str | None = None,
    trust: str | os.PathLike[str] | None = None,
    recipient_key: str | os.PathLike[str] | RecipientKey | None = None,
    connections: int | None = None,
    names: Collection[str] | None = None,
    files: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Generator[tuple[str, Any], None, None]:
    """The tensors of a release one by one, in file order, read ahead in bounded memory.

    The release is verified before this returns; shards are read once the iteration begins. Each tensor owns its
    memory, which is used again for later tensors once nothing refers to it any more. Close the generator to end early.

    Args:
        release: a reference ``namespace/name[:tag][@digest]``; a path object, or text together with ``expect``, is a
            directory that holds a release.
        device: ``cpu``, or any other device torch has here.
        framework: ``auto`` is torch if it is installed, else numpy.
        expect: what a directory must hold: ``namespace/name[@digest]``. Required for a directory.
        registry: URL of the registry; this and the next three default to the settings (``PQREG_REGISTRY`` and so on).
        token: bearer token for the registry.
        trust: path of the trust file.
        recipient_key: what opens a sealed release: the path of a secret key file, or a key object. Defaults to the
            setting (``PQREG_RECIPIENT_KEY``).
        connections: parallel connections to the registry.
        names: read only these tensors, and only the shards that hold them.
        files: read only these safetensors files, each a path or a folder of the release.
        progress: told of every byte that passed its check.

    Returns:
        A generator of names and tensors.

    Raises:
        PqregError: if the release, or one shard of it, is not what was signed. Tensors handed out before were.
    """
    form = _framework(framework, device)
    settings = _settings(registry, token, trust, recipient_key, connections)
    key = recipient_key if isinstance(recipient_key, RecipientKey) else None
    opened = open_release(release, expect=expect, settings=settings, now=utc_now(), key=key)
    return _stream(opened, form, names, files, progress, whole=False)


def _stream(
    opened: OpenRelease,
    form: Framework,
    names: Collection[str] | None,
    files: Collection[str] | None,
    progress: Progress | None,
    *,
    whole: bool,
) -> Generator[tuple[str, Any], None, None]:
    if isinstance(names, str) or isinstance(files, str):
        raise UsageError("names and files are collections", expected="e.g. a list", found="one text")
    release = opened.verified.release
    units = select(opened, names=names, files=files)
    form.check(unit.entry for unit in units)
    level = logging.WARNING if opened.verified.unchecked else logging.INFO
    _LOG.log(level, "%s %s: %s", release.name, release.digest, "; ".join(opened.verified.notes))
    return _read(opened, form, units, progress or NullProgress(), whole=whole)


def _read(
    opened: OpenRelease, form: Framework, units: Sequence[Unit], progress: Progress, *, whole: bool
) -> Generator[tuple[str, Any], None, None]:
    placement: Placement = WholeFiles(units) if whole else OwnMemory(units, Arena(limits.LOADER_ARENA_BYTES))
    total = sum(run.size for run in runs(units, longest=opened.longest, by_owner=False))
    progress.start(f"load {opened.verified.release.name}", total)
    try:
        stream = TensorStream(
            units,
            runs(units, longest=opened.longest, by_owner=not whole),
            opened.source(),
            placement,
            form,
            pace=Pace(opened.workers, opened.request, None if whole else limits.LOADER_RING_BYTES),
            progress=progress,
            checked=opened.checked,
        )
        yield from stream.tensors()
    finally:
        progress.done()


def _framework(name: str, device: str) -> Framework:
    if name not in ("auto", "numpy", "torch"):
        raise UsageError("no such framework", expected="auto, numpy or torch", found=repr(name)[:40])
    if name == "torch" or device != "cpu" or (name == "auto" and torch_bridge.is_installed()):
        if name == "numpy":
            raise UsageError("numpy has no devices", expected='device="cpu"', found=repr(device)[:40])
        return torch_bridge.Torch(device)
    return Numpy()


def _settings(
    registry: str | None,
    token: str | None,
    trust: str | os.PathLike[str] | None,
    recipient_key: str | os.PathLike[str] | RecipientKey | None,
    connections: int | None,
) -> Settings:
    key = recipient_key if isinstance(recipient_key, str | os.PathLike) else None
    return Settings(
        {
            "registry": registry,
            "token": token,
            "trust": None if trust is None else os.fspath(trust),
            "recipient_key": None if key is None else os.fspath(key),
            "connections": None if connections is None else str(connections),
        }
    )
