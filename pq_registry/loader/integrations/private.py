# SPDX-License-Identifier: Apache-2.0
"""A private directory, best in memory, that goes away with whoever made it.

It has mode 0700 and a random name, in the first of these that can hold what is asked for: the setting ``private_dir``
(then nowhere else), ``$XDG_RUNTIME_DIR`` and ``/dev/shm`` where they are file systems in memory, and the directory for
temporary files, which is said in a warning. What was sealed is put on a disk only where ``private_dir`` says so.

It is removed when the context ends. A small guard process removes it when this process ends in any other way, by
SIGTERM and SIGKILL too: it waits for the end of a pipe that only this process holds open, in a session of its own and
deaf to the signals that end services. A process forked inside the context leaves it to the one that made it. What no
guard can survive is the end of the machine, or of the container; both take memory with them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pq_registry.durable import reported
from pq_registry.errors import StorageError
from pq_registry.settings import Settings

_LOG = logging.getLogger(__name__)
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  the directory made in it is private
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_GUARD: Final = """
import os, shutil, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, signal.SIG_IGN)
try:
    os.write(1, b"on guard\\n")
except OSError:  # whoever would read it is gone already
    pass
sys.stdin.read()
for _ in range(600):  # what runs on the directory may need some time to end, and may write until it has
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.lexists(sys.argv[1]):
        break
    time.sleep(0.1)
"""


@contextlib.contextmanager
def private_directory(settings: Settings, *, room: int = 0, secret: bool = False) -> Iterator[Path]:
    """A new directory that only this user may enter, removed at the end.

    Args:
        settings: say where, with ``private_dir`` or the environment's ``XDG_RUNTIME_DIR``.
        room: how many bytes it must be able to hold.
        secret: whether what goes there was sealed.

    Raises:
        StorageError: if there is no place for it or no room there, or others could exchange it there.
    """
    maker = os.getpid()
    base = _checked(_place(settings, room, secret=secret))
    _check_room(base, room)
    with reported("make a private directory in", base):
        path = Path(tempfile.mkdtemp(prefix="pqreg-", dir=base))
    try:
        with _guarded(path):
            yield path
    finally:
        if os.getpid() == maker:
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                _LOG.warning("%s could not be removed; remove it", path)


def check_private(path: Path, descriptor: int) -> None:
    """Refuse a directory that others could read, or that is somebody else's.

    Args:
        path: names it in the message.
        descriptor: of the directory, which therefore cannot be exchanged afterwards.

    Raises:
        StorageError: if it is not this user's with mode 0700.
    """
    with reported("look at", path):
        status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise StorageError(
            f"{path} is not private",
            expected=f"a directory of user {os.geteuid()} with mode 700",
            found=f"mode {stat.filemode(status.st_mode)} of user {status.st_uid}",
            hint=f"chmod 700 {path}, or choose another directory",
        )


def _checked(place: Path) -> Path:
    """``place``, absolute and without links, where no other user could put a directory of theirs in the stead of ours.

    Whoever may exchange a link on the way to it does not matter then, nor does where a program changes to.

    Raises:
        StorageError: if it or a directory above it belongs to somebody else, or others may rename what is in it.
    """
    with reported("find", place):
        resolved = place.resolve(strict=True)
        for folder in (resolved, *resolved.parents):
            status = folder.stat()
            loose = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if loose or status.st_uid not in (os.geteuid(), 0):
                raise StorageError(
                    f"others could exchange what is in {folder}",
                    expected=f"a directory of user {os.geteuid()} or root that only its owner may write, or sticky",
                    found=f"{stat.filemode(status.st_mode)} of user {status.st_uid}",
                    hint="choose another place with the setting private_dir",
                )
        return resolved


def _check_room(place: Path, room: int) -> None:
    """Refuse a place that is too small before anything is fetched for it.

    Raises:
        StorageError: if fewer than ``room`` bytes are free.
    """
    with reported("look at", place):
        free = _free(place)
    if free < room:
        raise StorageError(
            f"there is too little room in {place}",
            expected=f"{room} bytes",
            found=f"{free} bytes",
            hint="free some, or choose another place with the setting private_dir",
        )


def _place(settings: Settings, room: int, *, secret: bool) -> Path:
    chosen = settings.get("private_dir")
    if chosen is not None:
        if not os.path.isdir(chosen):
            raise StorageError(
                "the private directory has no place", expected="a directory that exists", found=chosen,
                hint="make it, or give another one with --private-dir or the setting private_dir",
            )  # fmt: skip
        return Path(chosen)
    runtime = settings.runtime_dir
    for place in (*([] if runtime is None else [runtime]), _SHARED_MEMORY):
        with contextlib.suppress(StorageError):
            if _file_system(place) in _IN_MEMORY and os.access(place, os.W_OK | os.X_OK) and _free(place) >= room:
                return _checked(place)
    place = Path(tempfile.gettempdir())
    if secret:
        raise StorageError(
            "there is no room in memory for what was sealed", expected=f"{room} bytes in a file system in memory",
            found="less", hint=f"make /dev/shm larger; or, to put it on a disk in the clear, say --private-dir {place}",
        )  # fmt: skip
    _LOG.warning(
        "there is no room in memory for %d bytes: verified files go to the disk, in %s (setting private_dir)",
        room,
        place,
    )
    return place


def _free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def _file_system(place: Path) -> str | None:
    """The type of the file system that ``place`` is on, as the kernel calls it; None if that cannot be told."""
    try:
        device = os.stat(place).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
            mount, _, origin = line.partition(" - ")  # proc_pid_mountinfo(5): device is field 3, type after the hyphen
            if mount.split()[2] == wanted:
                return origin.split()[0]
    except (OSError, IndexError):
        pass
    return None


@contextlib.contextmanager
def _guarded(path: Path) -> Iterator[None]:
    if not sys.executable:  # an interpreter inside another program: it removes the directory only if it ends well
        yield
        return
    with reported("start the guard of", path):
        guard = subprocess.Popen(  # noqa: S603  this interpreter, with a program of ours
            [sys.executable, "-I", "-S", "-c", _GUARD, os.fspath(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    maker = os.getpid()
    try:
        assert guard.stdout is not None
        if guard.stdout.readline() != b"on guard\n":
            raise StorageError(f"{path} has no guard", expected="a process of Python", found="one that ended")
        yield
    finally:
        if os.getpid() == maker:
            with guard:
                # Killed rather than told by the end of the pipe, which forked children may hold open, too.
                shutil.rmtree(path, ignore_errors=True)
                guard.kill()
