# SPDX-License-Identifier: Apache-2.0
"""The directory a backup is written into: a new one, or what an interrupted backup left of its own.

A backup that is finished is never written over, and neither is a directory with anything in it that no backup makes.
While one is being written, the directory is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from pq_registry import durable
from pq_registry.errors import AlreadyExists


@contextlib.contextmanager
def backup_directory(target: Path, *, parts: Collection[str]) -> Iterator[None]:
    """Make ``target`` an empty, private directory, for the duration of the body nobody else's.

    Args:
        target: the directory.
        parts: the files an unfinished backup may hold, as paths below it; those are removed.

    Raises:
        AlreadyExists: if something else is there, or another process writes its backup there.
        StorageError: if a system call fails.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise _occupied(target, "no directory")
    durable.make_directory(target, 0o700)
    with durable.reported("open", target):
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with durable.reported("lock", target):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _occupied(target, "another backup is being written there") from None
        with durable.reported("clear", target):
            for path in list(_left_over(target, parts)):  # all of it is looked at before any of it goes
                path.unlink()
            target.chmod(0o700)
        yield
    finally:
        os.close(descriptor)


def _left_over(target: Path, parts: Collection[str]) -> Iterator[Path]:
    folders = {part.rpartition("/")[0] for part in parts} - {""}
    for path in target.iterdir():
        is_folder = path.name in folders and path.is_dir() and not path.is_symlink()
        for file in path.iterdir() if is_folder else [path]:
            name = str(file.relative_to(target))
            temporary = file.name.startswith(".") and file.name.endswith(durable.TEMPORARY_SUFFIX)
            if file.is_symlink() or not file.is_file() or not (temporary or name in parts):
                raise _occupied(target, name)
            yield file


def _occupied(target: Path, found: str) -> AlreadyExists:
    return AlreadyExists(
        f"{target} is there already", expected="a new directory, or what an interrupted backup left",
        found=found, hint="give a backup a new directory",
    )  # fmt: skip
