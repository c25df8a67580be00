# SPDX-License-Identifier: Apache-2.0
"""Verified files of a release in a private directory, for programs that read models from one.

Each file passes the whole of step 8 (DESIGN §5): BLAKE3 of every shard in memory before a byte is written, and before
the file gets its name SHA-256 of the whole and, for safetensors, that its header is the signed tensor table: another
program will parse that header. Files of a sealed release are written in the clear.

The directory must be this user's alone (mode 0700), as those it makes below; files have mode 0600. A file is written
under a temporary name and renamed once it is complete, so every other name in the directory is a verified file. Nothing
is synced to a disk: the directory is not meant to outlive the process (``private_directory``).

Whoever may write as this user, or is root, can still change the files; for one file, a sealed memfd cannot be changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pq_registry import limits
from pq_registry.client.content import Head, check_whole
from pq_registry.client.crew import Crew, Shared
from pq_registry.client.meter import Meter
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.tree import Tree, write_fully
from pq_registry.durable import TEMPORARY_SUFFIX, reported
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.fill import Filler
from pq_registry.loader.integrations.private import check_private, private_directory
from pq_registry.loader.opening import OpenRelease
from pq_registry.loader.selection import Run

__all__ = ["everything", "materialise", "private_directory"]


def everything(_file: FileEntry) -> bool:
    """Include every file."""
    return True


def materialise(
    opened: OpenRelease,
    directory: Path,
    *,
    include: Callable[[FileEntry], bool] = everything,
    progress: Progress | None = None,
    meter: Meter | None = None,
) -> tuple[FileEntry, ...]:
    """Write files of a verified release, in the clear, into a private directory.

    Args:
        opened: the release.
        directory: an existing directory of this user, mode 0700. Files of the same names are replaced.
        include: which files.
        progress: told of every verified byte.
        meter: told where the time goes.

    Returns:
        The entries of the files that are there now, by code point of the path.

    Raises:
        ContentError: if a file is not what was signed; those before it are left.
        StorageError: if the directory is not private, or a file cannot be written.
        PqregError: if a file cannot be had.
    """
    chosen = tuple(file for file in opened.files if include(file))
    watcher = progress or NullProgress()
    with Tree(directory) as tree:
        check_private(directory, tree.descriptor)
        watcher.start(f"write {opened.verified.release.name}", sum(file.size for file in chosen))
        filler = opened.filler(watcher, meter or Meter())
        crew = Crew(filler.abort)
        writer = _Writer(tree, filler, crew.stopped, longest=opened.longest)
        waiting = Shared(sorted(chosen, key=lambda file: -file.size))
        try:
            crew.run(lambda: writer.write_all(waiting), max(1, min(opened.workers, len(chosen))))
        finally:
            watcher.done()
            if crew.ended:
                filler.close()
    return chosen


class _Writer:
    """Writes files below ``tree``; used by several threads at once."""

    def __init__(self, tree: Tree, filler: Filler, stopped: Callable[[], bool], *, longest: int) -> None:
        self._tree = tree
        self._filler = filler
        self._stopped = stopped
        self._longest = longest

    def write_all(self, files: Shared[FileEntry]) -> None:
        buffer = memoryview(bytearray(self._longest * limits.SHARD_BYTES))
        for file in files:
            if self._stopped():
                return
            with reported("write", file.path.under(self._tree.path)):
                self._write(file, buffer)

    def _write(self, file: FileEntry, buffer: memoryview) -> None:
        name = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        with self._folder(file.path.parts[:-1]) as folder:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
            try:
                try:
                    os.fchmod(descriptor, 0o600)  # whatever the umask
                    complete = self._copy(file, descriptor, buffer)
                finally:
                    os.close(descriptor)
                if complete:
                    os.rename(name, file.path.parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
                    return
            except BaseException:
                _remove(name, folder)
                raise
            _remove(name, folder)

    def _copy(self, file: FileEntry, descriptor: int, buffer: memoryview) -> bool:
        """Write what is verified; answers whether the file is complete and right as a whole."""
        sha256 = hashlib.sha256()
        head = Head(file)
        for first in range(0, file.shard_count, self._longest):
            run = Run(file, first, min(self._longest, file.shard_count - first), range(0), None)
            view = buffer[: run.size]
            self._filler.fill(run, view, self._stopped)
            if self._stopped():
                return False
            sha256.update(view)
            head.take(view)
            write_fully(descriptor, view, run.offset)
        check_whole(file, sha256.hexdigest(), head)
        return True

    @contextlib.contextmanager
    def _folder(self, parts: Sequence[str]) -> Iterator[int]:
        """A descriptor of a folder below the directory, made for this user alone."""
        current = os.dup(self._tree.descriptor)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
                os.close(current)
                current = below
            yield current
        finally:
            os.close(current)


def _remove(name: str, folder: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
