# SPDX-License-Identifier: Apache-2.0
"""Verify a release where it is: a directory, or a registry without fetching its weights.

A directory passes steps 2 to 6 of DESIGN §5 by its evidence, then step 8: the BLAKE3 digest of every shard, in as
many threads as there are processors, each reading into a small buffer that stays in its cache. ``full`` also checks
what publishing and pulling check: SHA-256 of every file, and safetensors headers against the signed tensor tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import limits
from pq_registry.client.content import check_file
from pq_registry.client.contents import Contents, read_contents
from pq_registry.client.crew import Crew, Shared, cores
from pq_registry.client.directory import ReleaseDirectory
from pq_registry.client.foreign import verify_oms
from pq_registry.client.progress import NullProgress, Progress
from pq_registry.client.source import DirectorySource, ShardSource
from pq_registry.client.trust import VerifiedRelease, Verifier
from pq_registry.crypto.shards import check_shard
from pq_registry.durable import reported
from pq_registry.errors import DigestMismatch, FileSetMismatch, NameMismatch, NotFound, UsageError
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import Reference
from pq_registry.format.sealing import SLICE_BYTES

if TYPE_CHECKING:
    # Verifying a directory needs no network, and is to start fast.
    from pq_registry.client.resolve import Resolved
    from pq_registry.client.transport import RegistryClient

__all__ = ["check_content", "verify_contents", "verify_directory", "verify_oms", "verify_remote"]


def verify_directory(
    path: Path,
    verifier: Verifier,
    *,
    expected: Reference | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    full: bool = False,
    state_dir: Path | None = None,
) -> VerifiedRelease:
    """As ``verify_contents``, for who wants to know the release only."""
    return verify_contents(
        path, verifier, expected=expected, progress=progress, workers=workers, full=full, state_dir=state_dir
    ).verified


def verify_contents(
    path: Path,
    verifier: Verifier,
    *,
    expected: Reference | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    full: bool = False,
    state_dir: Path | None = None,
) -> Contents:
    """Verify the release in a directory, sealed or unsealed; neither needs a key.

    Args:
        path: the directory, which may be a snapshot of a Hugging Face cache.
        verifier: what to believe.
        expected: the repository, and the digest if it has one, that this must be. A tag in it proves nothing here.
        progress: told of every verified byte.
        workers: threads; by default one per processor.
        full: whether to check SHA-256 and tensor tables as well.
        state_dir: where this client remembers what it has seen of statuses and logs, if that is to count.

    Raises:
        VerificationError: a subclass of the step that refused.
        FormatError: for malformed evidence, with its step.
        UsageError: if there is no such directory.
        StorageError: if it cannot be read.
    """
    with reported("verify", path), ReleaseDirectory(path) as directory:
        # 2 to 6.
        contents = read_contents(directory, verifier, expected=expected, state_dir=state_dir)
        # 8. The content.
        with DirectorySource(directory) as source:
            check_content(
                source,
                contents.files,
                progress=progress or NullProgress(),
                workers=cores() if workers is None else workers,
                full=full,
            )
    return contents


def check_content(
    source: ShardSource, files: Sequence[FileEntry], *, progress: Progress, workers: int, full: bool = False
) -> None:
    """Step 8 for every one of ``files``; with ``full`` also SHA-256 and tensor tables.

    Raises:
        ContentError: naming the first file that was found not to be as signed.
        FileSetMismatch: if a file vanished or shrank meanwhile.
        StorageError: if a file cannot be read.
    """
    if workers < 1:
        raise UsageError("nothing can be verified by no threads", expected="at least 1", found=workers)
    progress.start("verify", sum(entry.size for entry in files))
    try:
        crew = Crew(source.abort)
        check = _Check(source, crew, progress)
        if full:
            shared = Shared(iter(sorted(files, key=lambda entry: -entry.size)))
            crew.run(lambda: check.whole_files(shared), min(workers, len(files)))
        else:
            runs = Shared(_runs(files))
            crew.run(lambda: check.runs(runs), workers)
    finally:
        progress.done()


def verify_remote(
    resolved: Resolved, client: RegistryClient, *, expected: Reference | None = None, connections: int = 4
) -> VerifiedRelease:
    """Verify a release in a registry as far as that goes without fetching its weights.

    Args:
        resolved: the release, which passed steps 1 to 6 when it was resolved.
        client: the registry it came from.
        expected: the repository, and the digest if it has one, that this must be.
        connections: requests at once.

    Raises:
        NameMismatch: step 6, if it is of another repository than expected.
        DigestMismatch: step 6, if it is another release than expected.
        FileSetMismatch: step 6, if the registry lacks a file or has one of another size.
        TransportError: if the registry cannot be asked.
    """
    release = resolved.verified.release
    if expected is not None and release.name != expected.repository:
        raise NameMismatch("this is a release of another repository", expected=expected.repository, found=release.name)
    if expected is not None and expected.digest is not None and release.digest != expected.digest:
        raise DigestMismatch(
            f"this is another release of {release.name}", expected=expected.digest, found=release.digest
        )
    # 6. As far as a registry can be believed: it says that it has every file, in its signed size.
    files = Shared({entry.sha256: entry for entry in release.manifest.files}.values())
    crew = Crew(client.abort)
    crew.run(lambda: _ask_sizes(client, crew, files), connections)
    return resolved.verified


def _ask_sizes(client: RegistryClient, crew: Crew, files: Shared[FileEntry]) -> None:
    for entry in files:
        if crew.stopped():
            return
        try:
            size: int | None = client.blob_size(entry.sha256)
        except NotFound:
            size = None
        if size != entry.size:
            raise FileSetMismatch(
                f"the registry does not have {entry.path} as signed",
                expected=f"{entry.size} bytes",
                found="nothing" if size is None else f"{size} bytes",
                hint="tell the registry's operator: pqreg fsck finds what is damaged",
            )


class _Check:
    """What each thread does."""

    def __init__(self, source: ShardSource, crew: Crew, progress: Progress) -> None:
        self._source = source
        self._crew = crew
        self._progress = progress

    def runs(self, runs: Shared[tuple[FileEntry, int, int]]) -> None:
        """Shards only, of runs of neighbouring shards."""
        buffer = memoryview(bytearray(SLICE_BYTES))
        for entry, first, end in runs:
            for index in range(first, end):
                if self._crew.stopped():
                    return
                offset, length = entry.shard_range(index)
                view = buffer[:length]
                self._source.read_into(entry, offset, view)
                check_shard(entry.shard_digest(index), view, path=entry.path, index=index)
                self._progress.advance(length)

    def whole_files(self, files: Shared[FileEntry]) -> None:
        """Shards, SHA-256 and the tensor table, in one pass over each file."""
        buffer = memoryview(bytearray(SLICE_BYTES))
        for entry in files:
            check_file(
                entry, partial(self._source.read_into, entry), buffer, advance=self._progress.advance,
                stopped=self._crew.stopped,
            )  # fmt: skip


def _runs(files: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, int, int]]:
    for entry in files:
        for first in range(0, entry.shard_count, limits.RANGE_SHARDS):
            yield entry, first, min(first + limits.RANGE_SHARDS, entry.shard_count)
