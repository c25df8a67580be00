# SPDX-License-Identifier: Apache-2.0
"""A directory held open, and everything below it reached one component at a time without following links.

Whoever else may write to the directory can therefore swap what is inside it, but cannot lead a reader or a writer
outside. Methods raise OSError; callers say what they were doing (``durable.reported``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pq_registry.errors import UsageError

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: a FIFO must not hang the open
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """Something below the root that is not a directory; ``link`` is the target of a symbolic link."""

    text: str
    mode: int
    size: int
    link: str | None

    @property
    def regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Tree:
    """An open directory; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, which may itself be reached through links.

        Raises:
            UsageError: if it is not a directory, or cannot be opened.
        """
        try:
            self.path = path.resolve(strict=True)
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, RuntimeError, ValueError) as error:
            found = error.strerror if isinstance(error, OSError) else "a path that cannot exist"
            raise UsageError(f"cannot open the directory {path}", found=found) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the root; files opened from it stay open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def walk(self, *, below: tuple[str, ...] = (), skip: frozenset[str] = frozenset()) -> Iterator[TreeEntry]:
        """Everything below a directory that is none itself, except the paths in ``skip`` and what is below them."""
        # Not recursive: a hostile tree may be deeper than Python's stack.
        waiting: list[tuple[str, ...]] = [below]
        while waiting:
            parents = waiting.pop()
            with self.directory(parents) as descriptor, os.scandir(descriptor) as listing:
                for entry in listing:
                    parts = (*parents, entry.name)
                    text = "/".join(parts)
                    if text in skip:
                        continue
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(parts)
                        continue
                    link = os.readlink(entry.name, dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else None
                    yield TreeEntry(text, status.st_mode, status.st_size, link)

    @contextlib.contextmanager
    def directory(self, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory ``parts`` below the root, created durably if wanted."""
        current = os.dup(self.descriptor)
        try:
            for part in parts:
                if create:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, dir_fd=current)
                        os.fsync(current)
                below = os.open(part, _DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)

    def open(self, parts: tuple[str, ...], flags: int = READ, mode: int = 0o666) -> int:
        """A descriptor of a file below the root; the caller closes it."""
        with self.directory(parts[:-1]) as parent:
            return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)

    def status(self, parts: tuple[str, ...]) -> os.stat_result | None:
        """What stands at a path, links not followed; None if nothing does."""
        try:
            with self.directory(parts[:-1]) as parent:
                return os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def unlink(self, parts: tuple[str, ...]) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.directory(parts[:-1]) as parent:
            os.unlink(parts[-1], dir_fd=parent)

    def prune(self, parts: tuple[str, ...]) -> None:
        """Remove the directory ``parts`` and its parents below the root, as far as they are empty."""
        while parts:
            try:
                with self.directory(parts[:-1]) as parent:
                    os.rmdir(parts[-1], dir_fd=parent)
            except OSError:
                return
            parts = parts[:-1]

    def remove_empty(self, parts: tuple[str, ...]) -> None:
        """Remove the directory ``parts`` and those below it, except what holds files."""
        found: list[tuple[str, ...]] = []
        waiting = [parts]
        while waiting:
            folder = waiting.pop()
            found.append(folder)
            with self.directory(folder) as descriptor, os.scandir(descriptor) as listing:
                waiting += [(*folder, entry.name) for entry in listing if entry.is_dir(follow_symlinks=False)]
        for folder in reversed(found):
            try:
                with self.directory(folder[:-1]) as parent:
                    os.rmdir(folder[-1], dir_fd=parent)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                    raise


def read_fully(descriptor: int, view: memoryview, offset: int) -> int:
    """Fill ``view`` from ``offset`` of a file; answers how much of it there was."""
    done = 0
    while done < len(view) and (count := os.preadv(descriptor, [view[done:]], offset + done)):
        done += count
    return done


def write_fully(descriptor: int, view: memoryview, offset: int) -> None:
    """Write all of ``view`` at ``offset`` of a file."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)
