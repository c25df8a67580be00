# SPDX-License-Identifier: Apache-2.0
"""Cutting a bundle into volumes: which shards of which file go where, decided before a byte is written.

Every volume begins with ``bundle.json``, ``volume.json`` and all documents, so that each verifies by itself and in any
order. What is left of it is filled with segments: whole shards, of at most ``limits.BUNDLE_SEGMENT_BYTES``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pq_registry import limits
from pq_registry.client.pull import by_content
from pq_registry.errors import BundleMismatch, UsageError
from pq_registry.format.bundleindex import Bundle, Document, Segment, Volume
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import RepositoryName
from pq_registry.format.tarstream import BLOCK, END, member_bytes

_ROUNDS = 16
"""How often the cut is tried: ``bundle.json`` is in each volume, and grows with the number of segments."""


def lay_out(
    name: RepositoryName,
    release: Digest,
    files: Sequence[FileEntry],
    documents: Mapping[str, bytes],
    *,
    created: datetime,
    volume_size: int | None,
) -> Bundle:
    """Decide what goes where.

    Args:
        name: the repository.
        release: the release's digest.
        files: of the manifest.
        documents: by role.
        created: the time that the bundle states; nothing depends on it.
        volume_size: bytes of one volume; None for a single one.

    Raises:
        UsageError: if volumes of this size cannot hold it.
        FileDigestMismatch: if the manifest contradicts itself.
    """
    if volume_size is not None and volume_size < limits.BUNDLE_VOLUME_BYTES:
        raise UsageError(
            "the volumes are too small", expected=f"at least {limits.BUNDLE_VOLUME_BYTES} bytes", found=volume_size
        )
    contents = [entries[0] for entries in by_content(files)]
    listed = tuple(Document(role, len(data), Digest.of(data)) for role, data in sorted(documents.items()))
    bundle = Bundle(name, release, created, listed, ((),))
    carried = sum(member_bytes(document.size) for document in listed) + len(END)
    index = len(bundle.encode())
    for _round in range(_ROUNDS):
        head = carried + member_bytes(index) + member_bytes(len(Volume(release, limits.BUNDLE_VOLUMES).encode()))
        room = None if volume_size is None else volume_size - head
        bundle = replace(bundle, volumes=_fill(contents, room))
        needed = len(bundle.encode())
        if needed > limits.BUNDLE_INDEX_BYTES or len(bundle.volumes) > limits.BUNDLE_VOLUMES:
            raise _too_many(volume_size)
        if room is None or needed <= index:
            return bundle
        index = needed + BLOCK
    raise _too_many(volume_size)


def check_layout(bundle: Bundle, files: Sequence[FileEntry]) -> dict[Digest, FileEntry]:
    """See that the segments of all volumes together are every file of a verified manifest once; answers the files.

    Raises:
        BundleMismatch: if they are not.
        FileDigestMismatch: if the manifest contradicts itself.
    """
    contents = {entries[0].sha256: entries[0] for entries in by_content(files)}
    following = dict.fromkeys(contents, 0)
    for segment in sorted(
        (segment for volume in bundle.volumes for segment in volume), key=lambda one: (one.blob, one.first)
    ):
        entry = contents.get(segment.blob)
        if entry is None:
            raise _unfit(f"a segment of {segment.blob}", "segments of the files of the manifest")
        end = segment.first + segment.shards
        if segment.first != following[segment.blob] or end > entry.shard_count:
            raise _unfit(f"shards {segment.first} to {end} of {entry.path}", "each shard once")
        if segment.size != _size(entry, segment.first, end):
            raise _unfit(f"{segment.size} bytes for shards {segment.first} to {end} of {entry.path}", "their size")
        following[segment.blob] = end
    for digest, entry in contents.items():
        if following[digest] != entry.shard_count:
            raise _unfit(f"{following[digest]} of {entry.shard_count} shards of {entry.path}", "each shard once")
    return contents


def _fill(contents: Sequence[FileEntry], room: int | None) -> tuple[tuple[Segment, ...], ...]:
    volumes: list[list[Segment]] = [[]]
    left = room
    for entry in contents:
        first = 0
        while first < entry.shard_count:
            end = min(entry.shard_count, first + limits.BUNDLE_SEGMENT_BYTES // entry.slice_size)
            while left is not None and end > first and member_bytes(_size(entry, first, end)) > left:
                end -= max(1, (member_bytes(_size(entry, first, end)) - left) // entry.slice_size)
            if end <= first:
                if not volumes[-1]:
                    raise _too_many(room)
                volumes.append([])
                left = room
                continue
            size = _size(entry, first, end)
            volumes[-1].append(Segment(entry.sha256, first, end - first, size))
            left = None if left is None else left - member_bytes(size)
            first = end
    return tuple(tuple(volume) for volume in volumes)


def _size(entry: FileEntry, first: int, end: int) -> int:
    return min(end * entry.slice_size, entry.size) - first * entry.slice_size


def _too_many(volume_size: int | None) -> UsageError:
    return UsageError(
        "the release does not fit volumes of this size",
        expected=f"at most {limits.BUNDLE_VOLUMES} volumes, each with all documents and at least one shard",
        found=None if volume_size is None else f"{volume_size} bytes",
        hint="choose a larger --volume-size",
    )


def _unfit(found: str, expected: str) -> BundleMismatch:
    return BundleMismatch(
        "the bundle's index does not fit the signed manifest", expected=expected, found=found,
        hint="it was not made by pqreg bundle export, or was altered; get another copy",
    )  # fmt: skip
