# SPDX-License-Identifier: Apache-2.0
"""What is to be sealed: the files of a directory, or those of a sealed release that is unsealed while it is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pq_registry import limits
from pq_registry.client.hashing import hash_files
from pq_registry.client.progress import Progress
from pq_registry.client.scan import Scan, SourceDirectory, SourceFile, changed, check_untouched, read_exactly
from pq_registry.client.unsealing import Unsealed, UnsealingSource
from pq_registry.errors import SourceChanged
from pq_registry.format.manifest import FileEntry
from pq_registry.format.path import ReleasePath

ReadInto = Callable[[memoryview, int], None]
"""Fills a view from an offset of one file."""


@dataclass(frozen=True, slots=True)
class PlainFile:
    """One file. ``reading`` opens it; with ``whole`` it also tells at the end whether it was written to meanwhile."""

    path: ReleasePath
    size: int
    reading: Callable[[bool], contextlib.AbstractContextManager[ReadInto]]
    changed: Callable[[str], SourceChanged]


class Plaintext(Protocol):
    """Files to be sealed; ``place`` names where they are, for the plan."""

    @property
    def place(self) -> str:
        """Where they are."""

    @property
    def files(self) -> tuple[PlainFile, ...]:
        """The files, by code point of the path."""

    def entries(self, progress: Progress) -> tuple[FileEntry, ...]:
        """What pqreg.inner says of them, which may take as long as it takes to read them all.

        Raises:
            SourceChanged, FormatError, StorageError: if they cannot be read as they were found.
        """


class DirectoryPlaintext:
    """The files a scan of a directory found."""

    def __init__(self, source: SourceDirectory, scan: Scan) -> None:
        self._source = source
        self._scan = scan
        self._entries: tuple[FileEntry, ...] | None = None
        self.place = os.fspath(source.path)
        self.files = tuple(
            PlainFile(file.path, file.size, partial(self._reading, file), partial(changed, file)) for file in scan.files
        )

    def entries(self, progress: Progress) -> tuple[FileEntry, ...]:
        """Hash the files, once. Raises SourceChanged, FormatError or StorageError."""
        if self._entries is not None:
            return self._entries
        progress.start(f"hash {self._source.path.name}", self._scan.size)
        try:
            self._entries = hash_files(self._source, self._scan.files, workers=workers(), progress=progress)
        finally:
            progress.done()
        return self._entries

    @contextlib.contextmanager
    def _reading(self, file: SourceFile, whole: bool) -> Iterator[ReadInto]:
        descriptor = self._source.open(file)
        try:
            yield partial(read_exactly, file, descriptor)
            if whole:
                check_untouched(file, descriptor)
        finally:
            os.close(descriptor)


class ReleasePlaintext:
    """The files of a sealed release, unsealed from a source of its stored files, and never written anywhere."""

    def __init__(self, unsealed: Unsealed, source: UnsealingSource) -> None:
        self._unsealed = unsealed
        self._source = source
        self.place = f"release {unsealed.release.digest}"
        self.files = tuple(
            PlainFile(entry.path, entry.size, partial(self._reading, entry), partial(_altered, entry))
            for entry in unsealed.inner.files
        )

    def entries(self, progress: Progress) -> tuple[FileEntry, ...]:  # noqa: ARG002  it is known already
        """As pqreg.inner says, which is verified."""
        return self._unsealed.inner.files

    @contextlib.contextmanager
    def _reading(self, entry: FileEntry, whole: bool) -> Iterator[ReadInto]:  # noqa: ARG002  a release never changes
        def read(view: memoryview, offset: int) -> None:
            self._source.read_into(entry, offset, view)

        yield read


def workers() -> int:
    """Threads that hash and seal."""
    return max(1, min(len(os.sched_getaffinity(0)), limits.HASH_THREADS))


def _altered(entry: FileEntry, how: str) -> SourceChanged:
    return SourceChanged(
        f"{entry.path.text!r} is not what pqreg.inner says: {how}",
        hint="the publisher sealed a release that contradicts itself; seal it again from its directory",
    )
