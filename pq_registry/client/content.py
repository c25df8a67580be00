# SPDX-License-Identifier: Apache-2.0
"""Step 8 for one file: every shard's BLAKE3, the whole file's SHA-256, and the safetensors header.

The first is enough to know that bytes are those that were signed. The other two make sure that a publisher did not
sign two different models at once, one for readers of shards and one for readers of files or headers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from pq_registry.crypto.shards import check_shard
from pq_registry.errors import FileDigestMismatch, FormatError, TensorTableMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.safetensors import parse_header

ReadInto = Callable[[int, memoryview], None]
"""Fills a view from an offset of the file in question."""


def check_file(
    entry: FileEntry,
    read_into: ReadInto,
    buffer: memoryview,
    *,
    advance: Callable[[int], None],
    stopped: Callable[[], bool],
) -> None:
    """Check one file completely, in one pass.

    Args:
        entry: what is signed.
        read_into: reads the file.
        buffer: at least one shard large; overwritten.
        advance: told of every verified shard's size.
        stopped: whether to give up; then nothing is known about the file.

    Raises:
        ContentError: ShardMismatch, FileDigestMismatch or TensorTableMismatch.
        PqregError: whatever ``read_into`` raises.
    """
    sha256 = hashlib.sha256()
    head = Head(entry)
    for index in range(entry.shard_count):
        if stopped():
            return
        offset, length = entry.shard_range(index)
        view = buffer[:length]
        read_into(offset, view)
        check_shard(entry.shard_digest(index), view, path=entry.path, index=index)
        sha256.update(view)
        head.take(view)
        advance(length)
    check_whole(entry, sha256.hexdigest(), head)


class Head:
    """The first bytes of a file with tensors, as many as its signed table says the header has."""

    def __init__(self, entry: FileEntry) -> None:
        self._wanted = 0 if entry.tensors is None else entry.tensors.header_size
        self.bytes = bytearray()

    def take(self, view: memoryview) -> None:
        """The next bytes of the file, in order; only those still wanted are kept."""
        left = self._wanted - len(self.bytes)
        if left > 0:
            self.bytes += view[:left]


def check_whole(entry: FileEntry, sha256_hex: str, head: Head) -> None:
    """Check what can only be known once the whole file was seen.

    Raises:
        FileDigestMismatch: if the SHA-256 digest is another.
        TensorTableMismatch: if the safetensors header says something else than the signed table.
    """
    if sha256_hex != entry.sha256.hex:
        raise FileDigestMismatch(
            f"{entry.path} has another SHA-256 digest than was signed, although its shards are right",
            expected=entry.sha256,
            found=Digest(sha256_hex),
            hint="the publisher signed a manifest that contradicts itself; tell them, and do not use this release",
        )
    if entry.tensors is None:
        return
    try:
        found = parse_header(bytes(head.bytes), entry.size)
    except FormatError as error:
        raise _other_table(entry, str(error)) from None
    if found != entry.tensors:
        raise _other_table(entry, f"{len(found.tensors)} tensors or metadata that differ")


def _other_table(entry: FileEntry, found: str) -> TensorTableMismatch:
    return TensorTableMismatch(
        f"the safetensors header of {entry.path} is not the signed tensor table",
        expected=f"{len(entry.tensors.tensors) if entry.tensors else 0} tensors as signed",
        found=found,
        hint="the publisher signed a manifest that contradicts its file; tell them, and do not use this release",
    )
