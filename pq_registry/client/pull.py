# SPDX-License-Identifier: Apache-2.0
"""Pull: bring a verified release to disk, at the speed of the network, and never as anything but itself.

Steps 0 to 6 are behind when a pull starts (``client.resolve``). What remains is steps 8 and 9 of DESIGN §5:

* What is in place already is verified and kept; what an interrupted pull staged is hashed and only its gaps are
  fetched. Both are done by as many threads as there are processors.
* ``connections`` threads each fetch runs of up to ``limits.RANGE_SHARDS`` shards into a buffer of their own, as
  ``client.schedule`` deals them out: across files, and within one large file.
* 8. Each shard's BLAKE3 is checked while it is still in the processor's cache, before it is written anywhere. A shard
  that is wrong is fetched again by itself, up to ``limits.ATTEMPTS`` times in all. A complete file's SHA-256 is
  compared and its safetensors header held against the signed table.
* 9. A file is staged, complete and fsynced, before any file gets its final name (``client.destination``).

Memory is ``connections`` times one run and a shard, whatever the release's size. An error or an interrupt leaves what
was staged for the next pull.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pq_registry import limits
from pq_registry.client.content import check_file
from pq_registry.client.crew import Crew, Shared, cores
from pq_registry.client.destination import Destination, PlainDirectory
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.resolve import Resolved
from pq_registry.client.run import Run
from pq_registry.client.schedule import Schedule
from pq_registry.client.source import ShardSource
from pq_registry.client.staging import StagedFile
from pq_registry.client.tree import read_fully
from pq_registry.durable import reported
from pq_registry.errors import ContentError, FileDigestMismatch, ShardMismatch, StorageError, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import RepositoryName
from pq_registry.format.sealing import SLICE_BYTES


@dataclass(frozen=True, slots=True)
class PullResult:
    """What a pull did. ``path`` is the release directory; ``fetched`` and ``present`` are bytes of content."""

    name: RepositoryName
    digest: Digest
    path: Path
    files: int
    size: int
    fetched: int
    present: int
    notes: tuple[str, ...]


def pull(
    resolved: Resolved,
    source: ShardSource,
    destination: Destination | Path,
    *,
    progress: Progress | None = None,
    connections: int = 4,
    files: Sequence[FileEntry] | None = None,
) -> PullResult:
    """Bring a release to ``destination``.

    Args:
        resolved: the release, verified up to step 6.
        source: where its bytes come from; aborted if the pull fails, and left for the caller to close.
        destination: a directory, or another kind of destination such as ``hfcache.HubCache``.
        progress: told of every verified byte.
        connections: threads that fetch.
        files: what ``source`` delivers, if not the files of the manifest: those of pqreg.inner.

    Raises:
        ContentError: step 8, if bytes are not those that were signed.
        TransportError: if the source fails.
        UsageError: if the destination holds foreign files.
        Conflict: if another pull works there.
        StorageError: if the disk fails or is full.
    """
    if not 1 <= connections <= limits.CONNECTIONS:
        raise UsageError("impossible number of connections", expected=f"1 to {limits.CONNECTIONS}", found=connections)
    place = PlainDirectory(destination) if isinstance(destination, Path) else destination
    verified = resolved.verified
    manifest = verified.release.manifest
    files = manifest.files if files is None else files
    transfer = _Transfer(manifest.name, files, source, place, progress or NullProgress())
    with reported("pull into", place.path):
        try:
            place.begin(verified)
            transfer.run(connections)
            path = place.publish(verified, transfer.in_place)
        finally:
            place.end()
    return PullResult(
        name=manifest.name,
        digest=verified.release.digest,
        path=path,
        files=len(files),
        size=sum(entry.size for entry in files),
        fetched=transfer.fetched,
        present=transfer.present,
        notes=verified.notes,
    )


class _Transfer:
    """The content of one release on its way into the staging directory."""

    def __init__(
        self,
        name: RepositoryName,
        files: Sequence[FileEntry],
        source: ShardSource,
        place: Destination,
        progress: Progress,
    ) -> None:
        self.in_place: set[str] = set()
        self.fetched = 0
        self.present = 0
        self._name = name
        self._files = files
        self._source = source
        self._place = place
        self._progress = progress
        self._lock = threading.Lock()
        self._wanted: list[StagedFile] = []
        self._open: list[StagedFile] = []

    def run(self, connections: int) -> None:
        """Find what is there, then fetch the rest."""
        contents = by_content(self._files)
        self._progress.start(f"pull {self._name}", sum(entries[0].size for entries in contents))
        looking, fetching = Crew(), Crew(self._source.abort)
        try:
            shared = Shared(contents)
            looking.run(lambda: self._look(looking, shared), min(max(cores(), connections), len(contents)))
            self._check_space(contents)
            # The largest first: one begun last would be fetched while the other connections have nothing to do.
            self._wanted.sort(key=lambda file: -file.entry.size)
            schedule = Schedule(self._wanted, self._opened)
            fetching.run(lambda: self._fetch(fetching, schedule), connections)
        finally:
            self._progress.done()
            if looking.ended and fetching.ended:  # else a descriptor may still be written to
                for file in self._open:
                    file.close()

    def _look(self, crew: Crew, contents: Shared[tuple[FileEntry, ...]]) -> None:
        """Find files in place and staged shards."""
        buffer = memoryview(bytearray(SLICE_BYTES))
        for entries in contents:
            kept = [entry.path.text for entry in entries if self._is_in_place(crew, entry, buffer)]
            if crew.stopped():
                return
            with self._lock:
                self.in_place.update(kept)
            if kept:
                self._found(entries[0].size)
                continue
            file = StagedFile(self._place.staging, entries[0])
            if self._place.staging.holds(file.entry) or not file.missing:
                self._opened(file)
                file.restore(buffer, self._found, crew.stopped)
                if crew.stopped():
                    return
                if not file.missing:
                    self._complete(file)
                    continue
                self._closed(file)
            with self._lock:
                self._wanted.append(file)

    def _is_in_place(self, crew: Crew, entry: FileEntry, buffer: memoryview) -> bool:
        descriptor = self._place.open_kept(entry)
        if descriptor is None:
            return False

        def read_into(offset: int, view: memoryview) -> None:
            if read_fully(descriptor, view, offset) != len(view):
                raise ShardMismatch(f"{entry.path} became shorter")

        try:
            check_file(entry, read_into, buffer, advance=lambda _count: None, stopped=crew.stopped)
        except ContentError:
            return False
        finally:
            os.close(descriptor)
        return not crew.stopped()

    def _check_space(self, contents: Sequence[tuple[FileEntry, ...]]) -> None:
        needed = sum(file.missing_bytes for file in self._wanted)
        for entries in contents if self._place.copies else ():
            absent = sum(entry.path.text not in self.in_place for entry in entries)
            needed += entries[0].size * min(absent, len(entries) - 1)  # one of them is in place or staged, not copied
        path = self._place.staging.path
        status = os.statvfs(path)
        if needed > (free := status.f_bavail * status.f_frsize):
            raise StorageError(
                f"there is not enough space for {path}", expected=f"{needed} bytes", found=f"{free} bytes",
                hint="free some space and run the same command again",
            )  # fmt: skip

    def _fetch(self, crew: Crew, schedule: Schedule) -> None:
        buffer = memoryview(bytearray(limits.RANGE_SHARDS * SLICE_BYTES))
        scratch = memoryview(bytearray(SLICE_BYTES))
        file: StagedFile | None = None
        while not crew.stopped() and (gap := schedule.next(file)) is not None:
            file, first, end = gap
            Run(file, first, end, memory=buffer, verified=partial(self._take, scratch)).fetch(self._source)

    def _take(self, scratch: memoryview, file: StagedFile, index: int, view: memoryview) -> None:
        """Write a verified shard."""
        complete = file.put(index, view, scratch)
        with self._lock:
            self.fetched += len(view)
        self._progress.advance(len(view))
        if complete:
            self._complete(file)

    def _complete(self, file: StagedFile) -> None:
        file.finish()
        self._closed(file)

    def _found(self, count: int) -> None:
        with self._lock:
            self.present += count
        self._progress.advance(count)

    def _opened(self, file: StagedFile) -> None:
        file.open()
        with self._lock:
            self._open.append(file)

    def _closed(self, file: StagedFile) -> None:
        with self._lock:
            self._open.remove(file)
        file.close()


def by_content(files: Sequence[FileEntry]) -> list[tuple[FileEntry, ...]]:
    """The files, those of equal content together; one with a tensor table comes first, so that it is checked.

    Raises:
        FileDigestMismatch: if two of them are signed as the same file and as different ones.
    """
    groups: dict[Digest, list[FileEntry]] = {}
    for entry in files:
        groups.setdefault(entry.sha256, []).append(entry)
    for entries in groups.values():
        entries.sort(key=lambda entry: entry.tensors is None)
        first = entries[0]
        for other in entries[1:]:
            same_table = other.tensors is None or other.tensors == first.tensors
            if (other.size, other.shards) != (first.size, first.shards) or not same_table:
                raise FileDigestMismatch(
                    f"{first.path} and {other.path} are signed as the same file and as different ones",
                    expected="equal shards and tensor tables for equal SHA-256 digests",
                    hint="the publisher signed a manifest that contradicts itself; tell them",
                )
    return [tuple(entries) for entries in groups.values()]
