# SPDX-License-Identifier: Apache-2.0
"""The directory to push, as it stands: which files it holds, and how they are opened.

A push takes every regular file, hidden ones included, except at the root:

* the names of ``IGNORE_PATHS``: what version control and hubs leave there, and the evidence of an earlier release;
* ``pqreg.json``, which every release writes anew.

Both are reported as skipped. Everything else that is not a regular file is refused, because it could not be put back
the same way elsewhere. One kind of symbolic link is followed: a Hugging Face cache keeps a snapshot's files as links to
``../../blobs/<40 or 64 hex digits>`` (with more ``../`` in sub-directories), and nothing but that form is accepted.

Every directory and file is opened one component at a time without following links, at the scan and again at each
pass, so nobody who may write to the directory can point the publisher at a file outside it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pq_registry import limits
from pq_registry.durable import reported
from pq_registry.errors import FormatError, PolicyError, SourceChanged, UsageError
from pq_registry.format.manifest import MANIFEST_NAME, is_reserved
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.statement import IGNORE_PATHS

_BLOB_LINK = re.compile(r"((?:\.\./)+)blobs/([0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: a FIFO must not hang the open
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SKIPPED = (*IGNORE_PATHS, MANIFEST_NAME)
_COPY = "copy the directory with its links resolved (cp -rL DIR COPY) and push the copy"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to push; ``blob`` is the name of the blob a Hugging Face snapshot's link leads to."""

    path: ReleasePath
    size: int
    mtime_ns: int
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a directory holds: the files by code point, and the root names that were left out."""

    files: tuple[SourceFile, ...]
    skipped: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class SourceDirectory:
    """An open directory; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, which may itself be reached through links.

        Raises:
            UsageError: if there is no directory.
            StorageError: if it cannot be opened.
        """
        self.path = path.resolve()
        if not self.path.is_dir():
            raise UsageError(f"{path} is not a directory", hint="give the directory that holds the model's files")
        with reported("open", self.path):
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory; files opened from it stay open."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def scan(self) -> Scan:
        """List what would be pushed.

        Raises:
            UsageError: if there is nothing to push.
            FormatError: for a name no release can carry, two names that collide, or too many files.
            PolicyError: for links, sockets, devices and the like.
            StorageError: if a directory cannot be read.
        """
        files: list[SourceFile] = []
        skipped: list[str] = []
        for entry in self._walk((), skipped):
            if len(files) == limits.FILES:
                raise FormatError(f"{self.path} holds too many files", expected=f"at most {limits.FILES}")
            files.append(entry)
        if not files:
            raise UsageError(f"{self.path} holds no file to push", found=", ".join(sorted(skipped)) or "nothing")
        files.sort(key=lambda file: file.path)
        _check_names(files)
        return Scan(tuple(files), tuple(sorted(skipped)))

    def open(self, file: SourceFile) -> int:
        """A descriptor of a file of the scan; the caller closes it.

        Raises:
            SourceChanged: if it is gone, was replaced by something else, or has another size.
            StorageError: if it cannot be opened for another reason.
        """
        try:
            descriptor = self._open_blob(file.blob) if file.blob else self._open_below(file.path.parts, _OPEN_FILE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise changed(file, "it is no longer there") from None
            with reported("open", file.path.under(self.path)):
                raise
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size == file.size:
            return descriptor
        os.close(descriptor)
        if stat.S_ISREG(status.st_mode):
            raise changed(file, f"it had {file.size} bytes and has {status.st_size}")
        raise changed(file, f"it is now {_kind(status.st_mode)}")

    def _walk(self, parents: tuple[str, ...], skipped: list[str]) -> Iterator[SourceFile]:
        with reported("read the directory", self.path.joinpath(*parents)):
            descriptor = self._open_below(parents, _OPEN_DIRECTORY) if parents else os.dup(self._root)
            try:
                with os.scandir(descriptor) as listing:
                    entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in listing]
                links = {
                    name: os.readlink(name, dir_fd=descriptor)
                    for name, status in entries
                    if stat.S_ISLNK(status.st_mode) and "/".join((*parents, name)) not in _SKIPPED
                }
            finally:
                os.close(descriptor)
        for name, status in entries:
            text = "/".join((*parents, name))
            if text in _SKIPPED:
                skipped.append(text)
            elif stat.S_ISDIR(status.st_mode):
                _release_path(text)  # also bounds the depth of this recursion
                yield from self._walk((*parents, name), skipped)
            elif name in links:
                yield self._linked(text, links[name], len(parents))
            elif stat.S_ISREG(status.st_mode):
                yield SourceFile(_release_path(text), status.st_size, status.st_mtime_ns)
            else:
                raise PolicyError(
                    f"{text!r} is not a regular file", expected="regular files", found=_kind(status.st_mode),
                    hint="move it out of the directory",
                )  # fmt: skip

    def _linked(self, text: str, link: str, depth: int) -> SourceFile:
        match = _BLOB_LINK.fullmatch(link)
        if match is None or len(match[1]) != len("../") * (depth + 2):
            raise PolicyError(
                f"{text!r} is a symbolic link",
                expected="regular files, or a Hugging Face snapshot's links to its ../../blobs",
                found=f"a link to {link!r}",
                hint=_COPY,
            )
        try:
            descriptor = self._open_blob(match[2])
        except OSError as error:
            raise PolicyError(
                f"the link {text!r} leads nowhere", expected=f"a regular file at {link}",
                found=os.strerror(error.errno or 0), hint="download the snapshot again",
            ) from None  # fmt: skip
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PolicyError(f"the link {text!r} leads to no regular file", found=_kind(status.st_mode), hint=_COPY)
        return SourceFile(_release_path(text), status.st_size, status.st_mtime_ns, match[2])

    def _open_blob(self, name: str) -> int:
        blobs = os.open(self.path.parent.parent / "blobs", _OPEN_DIRECTORY)
        try:
            return os.open(name, _OPEN_FILE, dir_fd=blobs)
        finally:
            os.close(blobs)

    def _open_below(self, parts: tuple[str, ...], flags: int) -> int:
        current = self._root
        try:
            for part in parts[:-1]:
                below = os.open(part, _OPEN_DIRECTORY, dir_fd=current)
                if current != self._root:
                    os.close(current)
                current = below
            return os.open(parts[-1], flags, dir_fd=current)
        finally:
            if current != self._root:
                os.close(current)


def changed(file: SourceFile, how: str) -> SourceChanged:
    """The error for a file that is no longer what the scan or the plan says; ``how`` completes the sentence."""
    return SourceChanged(
        f"{file.path.text!r} changed while it was being pushed: {how}",
        hint="let whatever writes there finish, then run the same push again; nothing was published",
    )


def check_untouched(file: SourceFile, descriptor: int) -> None:
    """Whether an open file was written to since the scan; a read of it may then be a mixture.

    Raises:
        SourceChanged: if its size or modification time differs.
    """
    status = os.fstat(descriptor)
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise changed(file, "it was written to")


def read_exactly(file: SourceFile, descriptor: int, view: memoryview, offset: int) -> None:
    """Fill ``view`` from ``offset`` of a file.

    Raises:
        SourceChanged: if the file ends before.
        StorageError: if it cannot be read.
    """
    filled = 0
    while filled < len(view):
        with reported("read", Path(file.path.text)):
            count = os.preadv(descriptor, [view[filled:]], offset + filled)
        if not count:
            raise changed(file, f"it ends after {offset + filled} bytes")
        filled += count


def _release_path(text: str) -> ReleasePath:
    try:
        return ReleasePath(text)
    except FormatError as error:
        raise FormatError(
            "a file's name cannot be part of a release", expected=error.expected, found=error.found,
            hint="rename it, or move it out of the directory",
        ) from None  # fmt: skip


def _check_names(files: list[SourceFile]) -> None:
    for file in files:
        if is_reserved(file.path):
            raise FormatError(
                f"{file.path.text!r} would meet a name this project needs where names fold case",
                expected=f"no other spelling of {', '.join(_SKIPPED)}",
                hint="rename it, or move it out of the directory",
            )
    check_distinct(file.path for file in files)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "of an unknown kind")
