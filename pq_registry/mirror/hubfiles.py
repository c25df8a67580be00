# SPDX-License-Identifier: Apache-2.0
"""The files of a model on a Hub at one commit: which there are, what the Hub says of each, and their bytes.

A revision is pinned first: everything else is asked of the commit, so nobody can move a branch under a transfer. What
the Hub says is checked before it is used: a commit is 40 hex digits, a path one that a release may have, a digest a
digest. ``fetch`` compares what came with what the Hub states, because the library's own download does not: the SHA-256
of a large file, git's blob id of a small one, and the size of both.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.durable import reported
from pq_registry.errors import FormatError, ResponseInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.mirror.hub import Hub, HubReference, library

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class HubEntry:
    """A file as the Hub states it: by ``sha256`` if it is large, by git's blob id ``git_sha1`` if it is small."""

    path: ReleasePath
    size: int
    sha256: Digest | None = None
    git_sha1: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a file turned out to be, by every byte of it."""

    size: int
    sha256: Digest
    git_sha1: str


def pin(hub: Hub, reference: HubReference) -> str:
    """The commit that a revision is now: 40 hex digits.

    Raises:
        NotFound, RevisionNotFound: if there is none.
        ResponseInvalid: if the Hub names something else.
        PqregError: what the Hub or the network refuse.
    """
    what = f"looking up {reference}"
    info = hub.patiently(lambda: hub.api.model_info(reference.repository, revision=reference.revision), what=what)
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ResponseInvalid(f"{hub.origin} names no commit for {reference}", found=repr(commit)[:80])
    if _COMMIT.fullmatch(reference.revision) and commit != reference.revision:
        raise ResponseInvalid(f"{hub.origin} answers with another commit", expected=reference.revision, found=commit)
    return commit


def list_files(hub: Hub, repository: str, commit: str) -> tuple[HubEntry, ...]:
    """Every file at a commit, by code point of the path.

    Raises:
        FormatError: if there are more files than a release may have, or a path is not one a release may have.
        ResponseInvalid: if the Hub's statements make no sense.
        PqregError: what the Hub or the network refuse.
    """
    what = f"listing {repository}"

    def listed() -> list[HubEntry]:
        entries: list[HubEntry] = []
        for item in hub.api.list_repo_tree(repository, revision=commit, recursive=True):
            if isinstance(item, library().hf_api.RepoFile):
                if len(entries) == limits.FILES:
                    raise FormatError(f"{repository} has too many files", expected=f"at most {limits.FILES}")
                entries.append(_entry(item, repository))
        return entries

    entries = sorted(hub.patiently(listed, what=what))
    check_distinct(entry.path for entry in entries)
    return tuple(entries)


def fetch(
    hub: Hub,
    repository: str,
    commit: str,
    entry: HubEntry,
    into: Path,
    *,
    advance: Callable[[int], None] = ignored,
) -> Found:
    """Bring one file to its path below the directory ``into``, unless it is there; what it is either way.

    Nobody but the caller may write to ``into``. What is found to be other than stated is removed and fetched once more.

    Args:
        hub: where from.
        repository: the model.
        commit: at which commit.
        entry: the file, as ``list_files`` answered it.
        into: a directory; the library keeps notes in ``.cache/huggingface`` there.
        advance: told of every byte that arrived or was there.

    Raises:
        ResponseInvalid: if the Hub sends other bytes than it states.
        StorageError: if the disk fails.
        PqregError: what the Hub or the network refuse.
    """
    place = entry.path.under(into)
    for last in (False, True):
        _, counted = _download(hub, repository, commit, entry, advance=advance, local_dir=into, force_download=last)
        found = measure(place)
        if _as_stated(entry, found):
            advance(entry.size - counted)
            return found
        advance(-counted)
        with reported("remove", place):
            place.unlink()
    raise ResponseInvalid(
        f"{hub.origin} sends other bytes for {entry.path} of {repository} than it states",
        expected=f"{entry.size} bytes, {entry.sha256 or f'git blob {entry.git_sha1}'}",
        found=f"{found.size} bytes, {found.sha256 if entry.sha256 else f'git blob {found.git_sha1}'}",
        hint="run it again later; if it stays so, the copy on the Hub is damaged",
    )


def fetch_to_cache(
    hub: Hub,
    repository: str,
    commit: str,
    entry: HubEntry,
    cache: Path,
    *,
    advance: Callable[[int], None] = ignored,
) -> Path:
    """Bring one file into the Hugging Face cache, unless it is there; its path in the snapshot of the commit.

    Nothing but its size is compared with what the Hub states: this is for what is verified afterwards.

    Raises:
        ResponseInvalid: if the Hub sends more than it states, or another commit's file.
        StorageError: if the disk fails.
        PqregError: what the Hub or the network refuse.
    """
    place, counted = _download(hub, repository, commit, entry, advance=advance, cache_dir=cache)
    if place.parts[-len(entry.path.parts) - 1] != commit:
        raise ResponseInvalid(f"{hub.origin} answers for another commit", expected=commit, found=entry.path)
    advance(entry.size - counted)
    return place


def measure(path: Path) -> Found:
    """Read a file once: its size, its SHA-256, and what git calls it.

    Raises:
        StorageError: if it cannot be read.
    """
    with reported("read", path), path.open("rb", 0) as file:
        size = os.fstat(file.fileno()).st_size
        sha256 = hashlib.sha256()
        git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        buffer = memoryview(bytearray(limits.SHARD_BYTES))
        count = 0
        while read := file.readinto(buffer):
            sha256.update(buffer[:read])
            git.update(buffer[:read])
            count += read
    return Found(count, Digest(sha256.hexdigest()), git.hexdigest())


def _entry(item: Any, repository: str) -> HubEntry:
    where = f"what the Hub says of a file of {repository}"
    if not isinstance(item.path, str):
        raise ResponseInvalid(f"{where} makes no sense", expected="a path", found=repr(item.path)[:80])
    try:
        path = ReleasePath(item.path)
    except FormatError as error:
        raise FormatError(
            f"{repository} has a file that no release can hold", expected=error.expected, found=error.found
        ) from None
    size, blob, lfs = item.size, item.blob_id, item.lfs
    if type(size) is not int or not 0 <= size <= limits.FILE_BYTES:
        raise ResponseInvalid(f"{where} makes no sense", expected=f"{path} has a size", found=repr(size)[:80])
    if lfs is not None:
        if lfs.size != size or not isinstance(lfs.sha256, str) or not _SHA256.fullmatch(lfs.sha256):
            raise ResponseInvalid(f"{where} makes no sense", expected=f"{path} has one size and a SHA-256")
        return HubEntry(path, size, sha256=Digest(lfs.sha256))
    if not isinstance(blob, str) or not _COMMIT.fullmatch(blob):
        raise ResponseInvalid(f"{where} makes no sense", expected=f"{path} has a digest", found=repr(blob)[:80])
    return HubEntry(path, size, git_sha1=blob)


def _as_stated(entry: HubEntry, found: Found) -> bool:
    if found.size != entry.size:
        return False
    return found.sha256 == entry.sha256 if entry.sha256 is not None else found.git_sha1 == entry.git_sha1


def _download(
    hub: Hub, repository: str, commit: str, entry: HubEntry, *, advance: Callable[[int], None], **options: Any
) -> tuple[Path, int]:
    """Let the library download one file; where it is, and how many bytes were counted."""
    meter = metered(entry.path.text, entry.size, advance)

    def download() -> str:
        path = entry.path.text
        return str(hub.api.hf_hub_download(repository, path, revision=commit, tqdm_class=meter, **options))

    place = hub.patiently(download, what=f"fetching {entry.path} of {repository}")
    return Path(place), int(meter.counted)


def metered(name: str, size: int, advance: Callable[[int], None] = ignored) -> Any:
    """The class of a progress bar, as the library wants one, that ends a download which brings more than it should."""

    class Meter:
        counted = 0
        total = size

        def __init__(self, *_: object, **__: object) -> None:
            """Take what a bar is told about its looks, and forget it."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing is on the screen."""

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

        def update(self, count: float | None = 1) -> None:
            """``count`` more bytes came, or fewer when the library begins again."""
            step = int(count or 0)
            Meter.counted += step
            advance(step)
            # A repeated download counts from the start again.
            if Meter.counted > (limits.ATTEMPTS + 1) * size + limits.HUB_EXCESS_BYTES:
                raise ResponseInvalid(f"the Hub sends more of {name} than it states", expected=f"{size} bytes")

    return Meter
