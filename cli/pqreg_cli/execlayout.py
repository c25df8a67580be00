# SPDX-License-Identifier: Apache-2.0
"""A verified release laid out for a program: files in a private directory, or one file in sealed memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import count_text, size_text
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.format.manifest import FileEntry
    from pq_registry.loader.opening import OpenRelease


@dataclass(frozen=True, slots=True)
class Layout:
    """What of a release is given to the command.

    Attributes:
        session: says where, and shows how it goes.
        opened: the release.
        directory: whether there is to be a directory.
        with_weights: whether it is to hold everything.
        memfd: the file that is to be in sealed memory.
    """

    session: Session
    opened: OpenRelease
    directory: bool
    with_weights: bool
    memfd: str | None

    @property
    def complete(self) -> bool:
        """Whether the command needs nothing more of the release."""
        return self.with_weights or self.memfd is not None

    @contextlib.contextmanager
    def made(self) -> Iterator[tuple[Path | None, int | None]]:
        """The directory, and the descriptor of the sealed memory; each None if it is not asked for."""
        from pq_registry.loader.integrations.memfd import sealed_memfd

        in_memory = self._in_memory()  # before anything is written
        for note in self.opened.verified.notes:
            self.session.output.note(note)
        with contextlib.ExitStack() as held:
            directory = held.enter_context(self._filled()) if self.directory else None
            descriptor = None
            if in_memory is not None:
                with self.session.progress() as progress:
                    descriptor = sealed_memfd(self.opened, in_memory, progress=progress)
                held.callback(os.close, descriptor)
                self._tell(f"{in_memory.path}, {size_text(in_memory.size)}, in sealed memory")
            yield directory, descriptor

    @contextlib.contextmanager
    def _filled(self) -> Iterator[Path]:
        from pq_registry.loader.integrations.headers import write_headers
        from pq_registry.loader.integrations.materialise import materialise
        from pq_registry.loader.integrations.private import private_directory

        wanted = [file for file in self.opened.files if self._wanted(file)]
        size = sum(file.size for file in wanted)
        sealed = self.opened.unsealed is not None
        with private_directory(self.session.settings, room=size, secret=sealed) as directory:
            with self.session.progress() as progress:
                materialise(self.opened, directory, include=self._wanted, progress=progress)
            headers = 0 if self.with_weights else write_headers(self.opened.files, directory)
            more = f" and {count_text(headers, 'header')} of weights" if headers else ""
            self._tell(f"{count_text(len(wanted), 'file')}, {size_text(size)},{more} in {directory}")
            given = {file.path.text for file in wanted} | {self.memfd}
            left = [file.path.text for file in self.opened.files if file.tensors is None]
            left = [path for path in left if path not in given]
            if left:
                self.session.output.note(f"left out, for their size: {', '.join(left)[:300]}; see --with-weights")
            yield directory

    def _wanted(self, file: FileEntry) -> bool:
        return self.with_weights or (file.tensors is None and file.size <= limits.READ_FILE_BYTES)

    def _in_memory(self) -> FileEntry | None:
        if self.memfd is None:
            return None
        for file in self.opened.files:
            if file.path.text == self.memfd:
                return file
        raise UsageError(
            f"the release has no file {self.memfd!r}",
            found=", ".join(file.path.text for file in self.opened.files)[:300],
        )

    def _tell(self, what: str) -> None:
        verified = self.opened.verified
        self.session.output.note(f"verified {verified.release.name}@{verified.release.digest}: {what}")
