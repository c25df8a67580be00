# SPDX-License-Identifier: Apache-2.0
"""One verified file of a release as a sealed memfd: memory with a descriptor that nobody can write to any more.

For programs that open or map a path, such as ``/proc/self/fd/N``, and check nothing themselves. The order is:

1. Every shard is filled into the memory and checked there (BLAKE3), decrypted if the release is sealed, by as many
   threads as the release is read with.
2. The memory is sealed against writing, growing, shrinking and being unsealed (``F_SEAL_*``, fcntl(2)). From here on
   the kernel refuses every write, by this process, its children and root alike.
3. SHA-256 of the whole file is computed from the sealed memory and compared, and for safetensors the header with the
   signed tensor table. Whoever could write to the memory between 1 and 2 is found out by it.

The memory counts as this process's, can reach the swap device, and is gone when the last descriptor and mapping is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import traceback
from pathlib import Path
from typing import Final

from pq_registry import limits
from pq_registry.client.content import Head, check_whole
from pq_registry.client.crew import Crew, Shared
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.durable import reported
from pq_registry.errors import UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.selection import Run

_SEALS: Final = ("F_SEAL_WRITE", "F_SEAL_GROW", "F_SEAL_SHRINK", "F_SEAL_SEAL")
_NOEXEC: Final = 0x8  # MFD_NOEXEC_SEAL of linux/memfd.h, since Linux 6.3; not in Python's os before 3.14
_SLICE: Final = 16 * limits.SHARD_BYTES


def sealed_memfd(
    opened: OpenRelease, file: FileEntry, *, progress: Progress | None = None, meter: Meter | None = None
) -> int:
    """A descriptor of sealed memory that holds ``file``; the caller closes it. Children do not inherit it by default.

    Args:
        opened: the release.
        file: one of ``opened.files``.
        progress: told of every verified byte.
        meter: told where the time goes.

    Raises:
        ContentError: ShardMismatch, FileDigestMismatch or TensorTableMismatch; there is no descriptor then.
        UsageError: if this system has no sealed memory.
        StorageError: if it has not enough.
        PqregError: if the file cannot be had.
    """
    if not hasattr(os, "memfd_create"):
        raise UsageError("there is no sealed memory here", expected="Linux", hint="give --with-weights instead")
    descriptor = _new()
    try:
        with reported("fill memory for", Path(file.path.text)):
            os.fchmod(descriptor, 0o400)
            os.ftruncate(descriptor, file.size)
            if file.size:
                _fill(opened, file, descriptor, progress or NullProgress(), meter or Meter())
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, sum(getattr(fcntl, name) for name in _SEALS))
            _check(file, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _new() -> int:
    # Not the file's name: of a sealed release that is a secret, and others can read /proc/PID/maps.
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("pqreg", flags | _NOEXEC)
    except OSError:
        with reported("make sealed memory as", Path("pqreg")):
            return os.memfd_create("pqreg", flags)


def _fill(opened: OpenRelease, file: FileEntry, descriptor: int, progress: Progress, meter: Meter) -> None:
    filler = opened.filler(progress, meter)
    crew = Crew(filler.abort)
    runs = Shared(
        Run(file, first, min(opened.longest, file.shard_count - first), range(0), None)
        for first in range(0, file.shard_count, opened.longest)
    )

    def work() -> None:
        try:
            for run in runs:
                if crew.stopped():
                    return
                with whole[run.offset : run.offset + run.size] as view:
                    filler.fill(run, view, crew.stopped)
        except BaseException as error:
            # Whoever keeps the error must not keep, through its traceback, memory that failed its check.
            traceback.clear_frames(error.__traceback__)
            raise

    progress.start(f"read {file.path}", file.size)
    mapping = mmap.mmap(descriptor, file.size)
    try:
        with memoryview(mapping) as whole:
            crew.run(work, max(1, min(opened.workers, file.shard_count)))
        mapping.close()  # while it can be written to, the memory cannot be sealed
    except BaseException:
        with contextlib.suppress(BufferError):
            mapping.close()
        raise
    finally:
        progress.done()
        if crew.ended:
            filler.close()


def _check(file: FileEntry, descriptor: int) -> None:
    sha256 = hashlib.sha256()
    head = Head(file)
    if file.size:
        with mmap.mmap(descriptor, file.size, prot=mmap.PROT_READ) as mapping, memoryview(mapping) as whole:
            for start in range(0, file.size, _SLICE):
                with whole[start : start + _SLICE] as view:
                    sha256.update(view)
                    head.take(view)
    check_whole(file, sha256.hexdigest(), head)
