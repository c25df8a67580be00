# SPDX-License-Identifier: Apache-2.0
"""Stored bytes, on their way to a device that checks them: neither hashed nor decrypted by this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pq_registry.client.meter import Meter
from pq_registry.client.source import ShardSource
from pq_registry.client.unsealing import Unsealed
from pq_registry.crypto.sealing import FileSealer
from pq_registry.format.manifest import FileEntry
from pq_registry.loader.device.accelerator import Shards
from pq_registry.loader.selection import Run


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is stored: ``size`` bytes from ``offset`` of ``file``, sealed unless there is no ``sealer``."""

    file: FileEntry
    sealer: FileSealer | None
    offset: int
    size: int
    shards: Shards


class StoredFiles:
    """Which stored file, and which of its bytes, a run of plaintext is made of."""

    def __init__(self, unsealed: Unsealed | None) -> None:
        """The files of a release that is not sealed, or of one that was ``unsealed``."""
        self.sealed = unsealed is not None
        self._stored: dict[str, tuple[FileEntry, FileSealer]] = {}
        if unsealed is not None:
            files = zip(unsealed.inner.files, unsealed.release.manifest.sealed_files, strict=True)
            self._stored = {
                plain.path.text: (stored, unsealed.key.file(stored.path, plain.size)) for plain, stored in files
            }

    def of(self, run: Run) -> StoredRun:
        """What ``run`` is made of."""
        file, sealer = self._stored[run.file.path.text] if self.sealed else (run.file, None)
        offset, _ = file.shard_range(run.first)
        begin, last = file.shard_range(run.first + run.count - 1)
        shards = Shards(file.slice_size, file.slice_size, last, run.count)
        return StoredRun(file, sealer, offset, begin + last - offset, shards)


class Untouched:
    """A filler that reads stored bytes and leaves everything else to the device."""

    def __init__(self, source: ShardSource, files: StoredFiles, *, request: int, meter: Meter) -> None:
        """Read from ``source``, which is closed with this, ``request`` shards at a time."""
        self._source = source
        self._files = files
        self._request = request
        self._meter = meter

    def fill(self, run: Run, view: memoryview, stopped: Callable[[], bool]) -> None:
        """Fill ``view`` with the stored bytes of ``run``. Raises PqregError."""
        stored = self._files.of(run)
        step = self._request * stored.shards.stride
        for begin in range(0, stored.size, step):
            if stopped():
                return
            part = view[begin : min(begin + step, stored.size)]
            with self._meter.timed("read", len(part)):
                self._source.read_into(stored.file, stored.offset + begin, part)

    def again(self, stored: StoredRun, number: int, view: memoryview) -> None:
        """Read one shard of a run once more, into its place in ``view``. Raises PqregError."""
        begin = number * stored.shards.stride
        length = stored.shards.last if number == stored.shards.count - 1 else stored.shards.size
        with self._meter.timed("read", length):
            self._source.read_into(stored.file, stored.offset + begin, view[begin : begin + length])

    def abort(self) -> None:
        """End every read under way."""
        self._source.abort()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
