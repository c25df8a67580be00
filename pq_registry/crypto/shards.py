# SPDX-License-Identifier: Apache-2.0
"""Digests of content: SHA-256 of a whole file, BLAKE3 of each shard, both in one pass.

A file is cut into shards of ``limits.SHARD_BYTES``, the stored bytes of a sealed file into slices of a tag more (its
``FileEntry`` knows the ``slice_size``); the last may be shorter, and an empty file has none. ``shards`` is always the
concatenation of the 32-byte BLAKE3 digests, never a list: a 1 TB manifest has half a million of them.

Both hash functions release the interpreter lock on buffers of this size, so callers get throughput from threads, one
file or one run of shards each. Each piece goes to SHA-256 and to BLAKE3 while it is still in the core's cache.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NamedTuple

from blake3 import blake3

from pq_registry import limits
from pq_registry.errors import ShardMismatch
from pq_registry.format.digest import Digest

SHARD_DIGEST_BYTES: Final = 32
Buffer = bytes | bytearray | memoryview


class FileDigests(NamedTuple):
    """What a manifest records of a file's bytes."""

    size: int
    sha256: Digest
    shards: bytes


class ShardHasher:
    """Digests a file that arrives in pieces of any size, in order.

    >>> hasher = ShardHasher()
    >>> hasher.update(b"abc")
    >>> hasher.result().size
    3
    """

    __slots__ = ("_open", "_room", "_sha256", "_shards", "_size", "_slice_size")

    def __init__(self, slice_size: int = limits.SHARD_BYTES) -> None:
        self._slice_size = slice_size
        self._sha256 = hashlib.sha256()
        self._shards = bytearray()
        self._open: blake3 | None = None
        self._room = slice_size
        self._size = 0

    def update(self, data: Buffer) -> None:
        """Take the next piece; multiples of a shard are fastest."""
        with memoryview(data).cast("B") as view:
            start = 0
            while start < len(view):
                piece = view[start : start + self._room]
                self._sha256.update(piece)
                self._take(piece)
                start += len(piece)
            self._size += len(view)

    def _take(self, piece: memoryview) -> None:
        if self._open is None:
            self._open = blake3(piece)
        else:
            self._open.update(piece)
        self._room -= len(piece)
        if self._room == 0:
            self._shards += self._open.digest()
            self._open = None
            self._room = self._slice_size

    def result(self) -> FileDigests:
        """Size, SHA-256 and shard digests of everything taken so far; more may be taken afterwards."""
        last = b"" if self._open is None else self._open.digest()
        return FileDigests(self._size, Digest(self._sha256.hexdigest()), bytes(self._shards) + last)


def shard_count(size: int, slice_size: int = limits.SHARD_BYTES) -> int:
    """Shards of a file of ``size`` bytes."""
    return -(-size // slice_size)


def shard_digest(data: Buffer) -> bytes:
    """BLAKE3 of one shard."""
    return blake3(data).digest()


def shard_digests(buffer: Buffer, slice_size: int = limits.SHARD_BYTES) -> bytes:
    """The concatenated BLAKE3 digests of the shards in ``buffer``, which begins at a shard's beginning."""
    with memoryview(buffer).cast("B") as view:
        return b"".join(blake3(view[start : start + slice_size]).digest() for start in range(0, len(view), slice_size))


def check_shard(expected: bytes, data: Buffer, *, path: object, index: int) -> None:
    """Check one shard of ``path``.

    Raises:
        ShardMismatch: if ``expected`` is not the BLAKE3 digest of ``data``.
    """
    require_digest(expected, blake3(data).digest(), path=path, index=index)


def require_digest(expected: bytes, found: bytes, *, path: object, index: int) -> None:
    """Compare the digest of one shard of ``path``, computed wherever, with the signed one.

    Raises:
        ShardMismatch: if they differ.
    """
    # Compared in constant time out of habit; nothing here is secret. A wrong length never compares equal.
    if not hmac.compare_digest(found, bytes(expected)):
        raise ShardMismatch(
            f"shard {index} of {path} is not what was signed",
            expected=f"BLAKE3 {bytes(expected).hex()}",
            found=found.hex(),
            hint="the copy is damaged or was altered; fetch this file again, or from another mirror",
        )


def check_shards(
    expected: Buffer, buffer: Buffer, *, path: object, first_index: int = 0, slice_size: int = limits.SHARD_BYTES
) -> None:
    """Check consecutive shards; ``expected`` holds exactly their digests, ``buffer`` begins at shard ``first_index``.

    Raises:
        ShardMismatch: naming the first shard that differs, or if the number of shards does.
    """
    with memoryview(buffer).cast("B") as view, memoryview(expected).cast("B") as digests:
        count = shard_count(len(view), slice_size)
        if len(digests) != count * SHARD_DIGEST_BYTES:
            raise ShardMismatch(
                f"{path} has another number of shards than was signed",
                expected=f"{len(digests) / SHARD_DIGEST_BYTES:g} from shard {first_index}",
                found=f"{count} in {len(view)} bytes",
            )
        for number in range(count):
            check_shard(
                bytes(digests[number * SHARD_DIGEST_BYTES : (number + 1) * SHARD_DIGEST_BYTES]),
                view[number * slice_size : (number + 1) * slice_size],
                path=path,
                index=first_index + number,
            )
