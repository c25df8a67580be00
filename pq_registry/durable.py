# SPDX-License-Identifier: Apache-2.0
"""Writes that survive a crash: the only way this project puts a file under a name that matters.

The order is: write a temporary file beside the target, fsync it, rename it over the target, fsync the directory. As
system calls (of ``write_file``)::

    openat(DIR, O_RDONLY|O_DIRECTORY)
    openat(DIR/.NAME.RANDOM.tmp, O_WRONLY|O_CREAT|O_EXCL, MODE)   write*   fsync   close
    renameat(DIR/.NAME.RANDOM.tmp, DIR/NAME)                      (or linkat + unlinkat when it must not exist yet)
    fsync(DIR)

Known gaps: after a failed fsync the kernel may have dropped the dirty pages, so the failure is reported and the
temporary file removed, never read back and tried again. A power cut between rename and the directory's fsync may
leave the old state; never a mixture. Leftover temporary files end in ``.tmp`` and are swept by ``sweep``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

from pq_registry.errors import AlreadyExists, StorageError

TEMPORARY_SUFFIX = ".tmp"
_SYNC_FILE_RANGE_WRITE = 2


def storage_error(action: str, path: Path, error: OSError) -> StorageError:
    """The error of the tree for a failed system call, with a next step where one is known."""
    hints = {
        errno.ENOSPC: "free some space and run the same command again",
        errno.EDQUOT: "free some of your quota and run the same command again",
        errno.EROFS: "the file system is read-only; choose another directory",
        errno.EACCES: "check who owns the directory and its permissions",
        errno.EMFILE: "raise the limit of open files (ulimit -n)",
    }
    found = f"{os.strerror(error.errno)}" if error.errno else str(error)
    return StorageError(f"cannot {action} {path}", found=found, hint=hints.get(error.errno or 0))


@contextlib.contextmanager
def reported(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside into a StorageError that names ``action`` and ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error


def make_directory(path: Path, mode: int = 0o777) -> None:
    """Create ``path`` and its parents, each durable in its parent. Existing directories are left as they are.

    Raises:
        StorageError: if a directory cannot be made, or something else stands there.
    """
    with reported("create the directory", path):
        missing = []
        current = path
        while not current.is_dir():
            missing.append(current)
            current = current.parent
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode)
            if not directory.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
            sync_directory(directory.parent)


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_path(target: Path) -> Path:
    """A fresh name beside ``target`` that ``sweep`` recognises."""
    return target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def write_file(
    path: Path, data: bytes | bytearray, *, mode: int = 0o666, exact_mode: bool = False, replace: bool = True
) -> None:
    """Put ``data`` under ``path``, wholly or not at all.

    Args:
        path: the target; its directory must exist.
        data: the whole content.
        mode: permissions of a new file, before the umask.
        exact_mode: whether to set ``mode`` without regard to the umask. The file never has more than ``mode``.
        replace: whether an existing file may be replaced; if not, finding one is an error.

    Raises:
        AlreadyExists: if ``replace`` is false and ``path`` exists.
        StorageError: if any system call fails; ``path`` is then as it was, except that a replaced file may already
            be the new one if only the last fsync failed.
    """
    temporary = temporary_path(path)
    created: os.stat_result | None = None
    with reported("write", path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb", closefd=True) as file:
                created = os.fstat(descriptor)
                if exact_mode:
                    os.fchmod(descriptor, mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path, replace=replace)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if created is not None and not replace:
                _take_back(path, created)
            raise


def _take_back(path: Path, created: os.stat_result) -> None:
    # Only if the link was made: a file of somebody else's stays, and an error leaves nothing that blocks a retry.
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), created):
            path.unlink()


def publish(temporary: Path, path: Path, *, replace: bool) -> None:
    """Give a finished and fsynced ``temporary`` file (same file system) its final name, durably.

    Raises:
        AlreadyExists: if ``replace`` is false and ``path`` exists; ``temporary`` is left.
        OSError: if a system call fails.
    """
    if replace:
        os.rename(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise AlreadyExists(f"{path} exists", hint="choose another name or remove it first") from None
        os.unlink(temporary)
    sync_directory(path.parent)
    if temporary.parent != path.parent:
        sync_directory(temporary.parent)


def write_temporaries(files: Sequence[tuple[Path, bytes]], *, mode: int = 0o666) -> None:
    """The first half of ``write_file``, for several: finished and fsynced files under names of ``temporary_path``.

    All are written before the first is synced, and the kernel is asked to begin with each: on a journalling file system
    the first fsync then does the work of all.

    Raises:
        StorageError: if a system call fails; the caller removes what there is.
    """
    with contextlib.ExitStack() as opened:
        descriptors = []
        for temporary, data in files:
            with reported("write", temporary):
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                opened.callback(os.close, descriptor)
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                start_writeback(descriptor, 0, len(data))
                descriptors.append((temporary, descriptor))
        for temporary, descriptor in descriptors:
            with reported("write", temporary):
                os.fsync(descriptor)


def publish_all(finished: Sequence[tuple[Path, Path]]) -> None:
    """The second half, for several: give each finished file its final name, replacing what is there, durably.

    Each directory is synced once, after the last rename.

    Args:
        finished: temporary file and final name, beside each other.

    Raises:
        StorageError: if a system call fails; some may have their names then.
    """
    for temporary, path in finished:
        with reported("write", path):
            os.rename(temporary, path)
    for directory in sorted({path.parent for _, path in finished}):
        with reported("write into", directory):
            sync_directory(directory)


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing part of a file to disk, so that a later fsync finds little left to do.

    A hint: it promises nothing, and does nothing where there is no ``sync_file_range``. Errors of the disk are still
    reported by fsync.
    """
    function = _sync_file_range()
    if function is not None:
        function(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)


@functools.cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    import ctypes

    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    function.restype = ctypes.c_int
    return cast("Callable[[int, int, int, int], int]", function)


def sweep(directory: Path) -> list[Path]:
    """Remove the temporary files an interrupted write left in ``directory`` (not below it); answers what it removed.

    Call it only while no other process writes there.
    """
    removed = []
    with reported("sweep", directory):
        for entry in directory.iterdir():
            if entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX):
                entry.unlink(missing_ok=True)
                removed.append(entry)
    return removed
