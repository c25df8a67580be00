# SPDX-License-Identifier: Apache-2.0
"""From volumes to a release on disk, as ``client.pull`` does it from a registry.

Steps 0 to 6 are behind once the first volume's documents are accepted. Then, for every segment of every volume:

8. Each shard is read into memory and its BLAKE3 compared with the signed manifest before a byte of it is written.
   A complete file's SHA-256 is compared and its safetensors header held against the signed table.
9. Files are staged, complete and fsynced, before any of them gets its final name (``client.destination``).

Volumes come in any order, in one call or in several: what was verified stays staged, is hashed again by the next call,
and is not needed again. A shard that is there already is passed over. When all volumes were read and shards are
missing, the error names the volumes that have them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pq_registry.client.bundle.documents import Accepted, accept
from pq_registry.client.bundle.layout import check_layout
from pq_registry.client.bundle.volume import Stream, VolumeReader
from pq_registry.client.destination import Destination
from pq_registry.client.keptgrants import write_grants
from pq_registry.client.progress import Progress
from pq_registry.client.staging import StagedFile
from pq_registry.client.trust import Verifier
from pq_registry.crypto.shards import check_shard
from pq_registry.durable import reported
from pq_registry.errors import BundleIncomplete, BundleMismatch, StorageError, UsageError, VerificationError
from pq_registry.format.bundleindex import Segment
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Reference
from pq_registry.format.sealing import SLICE_BYTES

Opener = Callable[[], AbstractContextManager[Stream]]


@dataclass(frozen=True, slots=True)
class Source:
    """A volume to read: how to open it, and what to call it."""

    label: str
    open: Opener


@dataclass(frozen=True, slots=True)
class Brought:
    """What an import did. ``read`` are bytes of content taken from the volumes, ``present`` were there already."""

    accepted: Accepted
    bundle: Digest
    path: Path
    volumes: int
    size: int
    read: int
    present: int


def bring(
    volumes: Iterable[Source],
    destination: Callable[[Digest], Destination],
    verifier: Verifier,
    *,
    expected: Reference | None,
    state_dir: Path,
    progress: Progress,
) -> Brought:
    """Bring the release of a bundle to disk.

    Args:
        volumes: those at hand, in any order.
        destination: where it goes, given the bundle's id.
        verifier: what to believe.
        expected: what it must be, if the caller knows.
        state_dir: where this client remembers what it has seen.
        progress: told of every verified byte.

    Raises:
        VerificationError: a subclass of the step that refused.
        FormatError: if a volume is malformed or cut off.
        BundleMismatch: if a volume is of another bundle, or given twice.
        BundleIncomplete: naming the volumes that are missing; what came is kept.
        StorageError: if the disk fails or is full; the same call continues.
    """
    work: _Import | None = None
    try:
        for source in volumes:
            with source.open() as stream:
                volume = VolumeReader(stream, source.label)
                if work is None:
                    accepted = accept(
                        volume.bundle, volume.documents(), verifier, expected=expected, state_dir=state_dir
                    )
                    work = _Import(volume, accepted, destination(volume.id), progress)
                    work.begin()
                else:
                    work.require_sibling(volume)
                    volume.documents()
                work.take(volume)
        if work is None:
            raise UsageError("no volume was given", expected="the files that pqreg bundle export wrote")
        return work.publish()
    finally:
        if work is not None:
            work.end()


class _Import:
    """One release on its way from volumes into the staging directory."""

    def __init__(self, first: VolumeReader, accepted: Accepted, place: Destination, progress: Progress) -> None:
        self._bundle = first.bundle
        self._id = first.id
        self._accepted = accepted
        self._place = place
        self._progress = progress
        self._entries = check_layout(first.bundle, accepted.verified.release.manifest.files)
        self._files: dict[Digest, StagedFile] = {}
        self._came: dict[int, str] = {}
        self._buffer = memoryview(bytearray(SLICE_BYTES))
        self._scratch = memoryview(bytearray(SLICE_BYTES))
        self._read = 0
        self._present = 0

    def begin(self) -> None:
        """Prepare the destination, and find what an earlier import left."""
        entries = self._entries.values()
        with reported("import into", self._place.path):
            self._place.begin(self._accepted.verified)
            self._progress.start(f"import {self._accepted.verified.release.name}", sum(entry.size for entry in entries))
            for digest, entry in self._entries.items():
                file = self._files[digest] = StagedFile(self._place.staging, entry)
                if self._place.staging.holds(entry) or not file.missing:
                    file.open()
                    try:
                        file.restore(self._buffer, self._found, lambda: False)
                        if not file.missing:
                            file.finish()
                    finally:
                        file.close()
            self._check_space()

    def require_sibling(self, volume: VolumeReader) -> None:
        """Refuse a volume of another bundle, and one that was read before."""
        if volume.id != self._id:
            raise BundleMismatch(
                f"{volume.label} is a volume of another bundle",
                expected=f"bundle {self._id}, as {next(iter(self._came.values()))}",
                found=f"volume {volume.number} of bundle {volume.id}, of {volume.bundle.name}",
                hint="import one bundle at a time",
            )

    def take(self, volume: VolumeReader) -> None:
        """Read the segments of a volume, to its end."""
        if volume.number in self._came:
            raise BundleMismatch(
                f"{volume.label} is volume {volume.number}, which was given already",
                expected="each volume once", found=f"{self._came[volume.number]} and {volume.label}",
            )  # fmt: skip
        self._came[volume.number] = volume.label
        with reported("import into", self._place.path):
            for segment in volume.segments():
                self._segment(volume, segment)
        volume.finish()

    def publish(self) -> Brought:
        """Give the files their names, if none is missing."""
        missing = [
            number
            for number, segments in enumerate(self._bundle.volumes, 1)
            if any(self._lacks(segment) for segment in segments)
        ]
        if missing:
            numbers = ", ".join(map(str, missing[:20])) + (", …" if len(missing) > 20 else "")
            raise BundleIncomplete(
                f"{'volume' if len(missing) == 1 else 'volumes'} {numbers} of {len(self._bundle.volumes)} of bundle "
                f"{self._id} {'is' if len(missing) == 1 else 'are'} missing",
                expected=f"all {len(self._bundle.volumes)} volumes",
                found=", ".join(self._came.values())[:500],
                hint="run the same command with the missing ones; what was verified is kept",
            )
        verified = self._accepted.verified
        path = self._place.publish(verified, set())
        if self._accepted.grants:
            write_grants(path, self._accepted.grants)
        size = sum(entry.size for entry in verified.release.manifest.files)
        return Brought(self._accepted, self._id, path, len(self._came), size, self._read, self._present)

    def end(self) -> None:
        """Let others at the destination."""
        self._progress.done()
        self._place.end()

    def _segment(self, volume: VolumeReader, segment: Segment) -> None:
        file, entry = self._files[segment.blob], self._entries[segment.blob]
        wanted = self._lacks(segment)
        if wanted:
            file.open()
        try:
            for index in range(segment.first, segment.first + segment.shards):
                view = self._buffer[: entry.shard_range(index)[1]]
                volume.read(view)
                if wanted and file.lacks(index):
                    self._shard(volume, file, entry, index, view)
        finally:
            file.close()

    def _shard(self, volume: VolumeReader, file: StagedFile, entry: FileEntry, index: int, view: memoryview) -> None:
        # 8. Before a byte of it is written anywhere.
        try:
            check_shard(entry.shard_digest(index), view, path=entry.path, index=index)
        except VerificationError as error:
            error.hint = f"{volume.label} was altered or damaged: get another copy; what was verified is kept"
            raise
        complete = file.put(index, view, self._scratch)
        self._read += len(view)
        self._progress.advance(len(view))
        if complete:
            file.finish()

    def _lacks(self, segment: Segment) -> bool:
        file = self._files[segment.blob]
        return any(file.lacks(index) for index in range(segment.first, segment.first + segment.shards))

    def _found(self, count: int) -> None:
        self._present += count
        self._progress.advance(count)

    def _check_space(self) -> None:
        needed = sum(file.missing_bytes for file in self._files.values())
        files = self._accepted.verified.release.manifest.files
        if self._place.copies:
            needed += sum(entry.size for entry in files) - sum(entry.size for entry in self._entries.values())
        status = os.statvfs(self._place.staging.path)
        if needed > (free := status.f_bavail * status.f_frsize):
            raise StorageError(
                f"there is not enough space for {self._place.path}", expected=f"{needed} bytes", found=f"{free} bytes",
                hint="free some space and run the same command again",
            )  # fmt: skip
