# SPDX-License-Identifier: Apache-2.0
"""A log's files in a local directory, exactly as readers see them: any web server may serve it.

::

    ROOT/checkpoint                       replaced
    ROOT/vkey                             the log's verifier keys; replaced
    ROOT/tile/0/x001/x234/067[.p/5]        tiles and entry bundles; never changed

A tile that exists with other bytes is never overwritten: the log halts. One with the same bytes is written again all
the same, because its being readable does not mean that it is durable. Several files are written with one fsync each and
one for each directory they are in; as system calls, of two tiles in one directory::

    openat(TILE, O_RDONLY) = ENOENT                         (twice)
    openat(.TMP, O_CREAT|O_EXCL)  write  sync_file_range    (twice)
    fsync(.TMP)  (twice)   close  (twice)
    renameat(.TMP, TILE)                                    (twice)
    fsync(DIRECTORY)

Nothing below ROOT is secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pq_registry import durable, limits
from pq_registry.errors import FormatError, LogHalted, NotFound, StorageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.tile import WIDTH, TilePath
from pq_registry.log.stores import CHECKPOINT_PATH, TileStore

VKEY_PATH = "vkey"
_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o755
_HINT = "see docs/operations/log.md, and run pqreg fsck"
_MOST_BYTES = max(limits.ENTRY_BUNDLE_BYTES, limits.NOTE_BYTES)
_GROUP = re.compile(r"x?\d{3}\.p|x\d{3}", re.ASCII)


class LogFiles(TileStore, Protocol):
    """A tile store that can be looked through: what the service and fsck need beyond the sequencer."""

    def names(self) -> Iterator[str]:
        """The path of every file, sorted, whether or not it is one of a log.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put ``data`` in the place of a file that is damaged or lost. Only for repairs: ``write`` refuses this.

        Raises:
            FormatError: if ``path`` is not that of a file of a log.
            StorageError: if the store fails.
        """
        ...

    def sweep(self) -> None:
        """Remove what an interrupted write left. Only while nobody else writes here.

        Raises:
            StorageError: if the store fails.
        """
        ...


class LocalTiles:
    """A ``TileStore`` in a directory of its own."""

    def __init__(self, root: Path) -> None:
        """Make nothing: the directory appears with the first file, so its being there means that there is a log."""
        self.root = root
        self._known: set[Path] = set()

    def path(self, name: str) -> Path:
        """Where a file stands.

        Raises:
            FormatError: if ``name`` is not the path of a file of a log.
        """
        if name not in {CHECKPOINT_PATH, VKEY_PATH}:
            TilePath.parse(name)
        return self.root / name

    def read(self, path: str) -> bytes:
        """The file at ``path``.

        Raises:
            FormatError: if ``path`` is not that of a file of a log.
            NotFound: if there is no such file.
            StorageError: if it cannot be read, or is larger than any file of a log.
        """
        return self._read(self.path(path), path)

    def write(self, tiles: Sequence[tuple[str, bytes]]) -> None:
        """Write tiles, durably.

        Raises:
            LogHalted: if other bytes stand under one of the paths.
            StorageError: if the file system fails; some of them may then be there, each whole.
        """
        finished: list[tuple[Path, Path]] = []
        try:
            for name, data in tiles:
                target = self.path(name)
                self._require_free(target, name, data)
                self._make_parent(target.parent)
                finished.append((durable.temporary_path(target), target))
            contents = [(temporary, data) for (temporary, _), (_, data) in zip(finished, tiles, strict=True)]
            durable.write_temporaries(contents, mode=_FILE_MODE)
            durable.publish_all(finished)
        except BaseException:
            for temporary, _ in finished:
                with contextlib.suppress(OSError):
                    temporary.unlink()
            raise
        for name, _ in tiles:
            self._drop_partial(name)

    def write_checkpoint(self, note: bytes) -> None:
        """Replace the checkpoint, unless that would show less than before.

        Raises:
            LogHalted: if the present one is of a larger tree, or of another log, or damaged.
            StorageError: if the file system fails.
        """
        new, _ = parse_checkpoint_note(note)
        self._make_parent(self.root)
        with self._alone():
            try:
                present, _ = parse_checkpoint_note(self.read(CHECKPOINT_PATH))
            except NotFound:
                present = None
            except FormatError as error:
                raise LogHalted("the checkpoint in the tile store is damaged", found=error, hint=_HINT) from error
            if present is not None and (present.origin != new.origin or present.size > new.size):
                raise LogHalted(
                    "the tile store shows a larger tree, or another log",
                    expected=f"at most {new.size} leaves of {new.origin}",
                    found=f"{present.size} of {present.origin}",
                    hint=_HINT,
                )
            durable.write_file(self.root / CHECKPOINT_PATH, note, mode=_FILE_MODE)

    def replace(self, path: str, data: bytes) -> None:
        """Put ``data`` in the place of a file that is damaged or lost.

        Raises:
            FormatError: if ``path`` is not that of a file of a log.
            StorageError: if the file system fails.
        """
        target = self.path(path)
        self._make_parent(target.parent)
        durable.write_file(target, data, mode=_FILE_MODE)

    def write_vkey(self, text: bytes) -> None:
        """Replace the verifier keys' text.

        Raises:
            StorageError: if the file system fails.
        """
        self._make_parent(self.root)
        durable.write_file(self.root / VKEY_PATH, text, mode=_FILE_MODE)

    def has_tiles(self) -> bool:
        """Whether there is any tile.

        Raises:
            StorageError: if the directory cannot be read.
        """
        with durable.reported("look at", self.root):
            return (self.root / "tile").exists()

    def names(self) -> Iterator[str]:
        """The path of every file below the root, sorted, whether or not it is one of a log.

        Raises:
            StorageError: if a directory cannot be listed.
        """
        with durable.reported("list", self.root):
            if not self.root.exists():
                return
            for folder, folders, files in os.walk(self.root, onerror=_raise):
                folders.sort()
                for name in sorted(files):
                    yield (Path(folder) / name).relative_to(self.root).as_posix()

    def sweep(self) -> None:
        """Remove the temporary files of an interrupted write. Only while nobody else writes here.

        A write that was cut off left them beside the newest tiles; those directories alone are looked at, so that a
        start does not read the whole log.

        Raises:
            StorageError: if a directory cannot be read.
        """
        if not self.root.exists():
            return
        durable.sweep(self.root)
        with durable.reported("sweep", self.root):
            for level in sorted(_folders(self.root / "tile")):
                for folder in self._newest(level):
                    durable.sweep(folder)

    def _newest(self, level: Path) -> Iterator[Path]:
        folder = level
        while True:
            yield folder
            deeper = sorted(each for each in _folders(folder) if _GROUP.fullmatch(each.name))
            yield from (each for each in deeper[-2:] if each.suffix == ".p")
            groups = [each for each in deeper if each.suffix != ".p"]
            if not groups:
                return
            folder = groups[-1]

    def _read(self, path: Path, name: str) -> bytes:
        with durable.reported("read", path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                raise NotFound(f"the log has no {name}") from None
            with open(descriptor, "rb", buffering=0) as file:
                data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise StorageError(f"{name} is larger than any file of a log", expected=f"at most {_MOST_BYTES} bytes")
        return data

    def _require_free(self, path: Path, name: str, data: bytes) -> None:
        try:
            present = self._read(path, name)
        except NotFound:
            return
        if present != data:
            raise LogHalted(
                f"{name} stands in the tile store with other bytes", expected=f"{len(data)} bytes as signed", hint=_HINT
            )

    def _make_parent(self, directory: Path) -> None:
        # Known directories are not asked for again: a batch writes into the same ones as the batch before.
        if directory not in self._known:
            durable.make_directory(directory, _DIRECTORY_MODE)
            self._known.add(directory)

    def _drop_partial(self, name: str) -> None:
        """Remove the partial tiles that a full one has replaced: readers of old checkpoints take the full one."""
        if TilePath.parse(name).width != WIDTH:
            return
        full = self.path(name)
        folder = full.with_name(f"{full.name}.p")
        # What cannot be removed only takes room, and is removed by whoever cares for it (docs/operations/log.md).
        with contextlib.suppress(OSError):
            for partial in folder.iterdir():
                partial.unlink()
            folder.rmdir()
            self._known.discard(folder)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        # Two processes that replace the checkpoint at once must not both have read the old one.
        with durable.reported("lock", self.root):
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []


def _raise(error: OSError) -> None:
    raise error
