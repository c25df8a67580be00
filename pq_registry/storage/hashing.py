# SPDX-License-Identifier: Apache-2.0
"""Hashing what is stored, to compare it with its name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pq_registry import limits
from pq_registry.errors import FileDigestMismatch, FormatError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import BlobStore, StoredBlob


def hash_blob(blobs: BlobStore, blob: StoredBlob) -> Digest:
    """The SHA-256 of the bytes stored as ``blob``; the two differ only if the store is damaged.

    Raises:
        NotFound: if there is no such blob.
        StorageError: if the store fails.
    """
    reader = blobs.open(blob)
    try:
        sha256 = hashlib.sha256()
        for offset in range(0, reader.size, limits.HASH_CHUNK_BYTES):
            sha256.update(reader.read(offset, min(limits.HASH_CHUNK_BYTES, reader.size - offset)))
        return Digest(sha256.hexdigest())
    finally:
        reader.close()


def read_blob(blobs: BlobStore, blob: StoredBlob, *, limit: int) -> bytes:
    """The whole of a small blob.

    Raises:
        FormatError: if it has more than ``limit`` bytes.
        NotFound: if there is no such blob.
        StorageError: if the store fails.
    """
    reader = blobs.open(blob)
    try:
        if reader.size > limit:
            raise FormatError(f"blob {blob} is too large", expected=f"at most {limit}", found=f"{reader.size} bytes")
        return reader.read(0, reader.size)
    finally:
        reader.close()


def require_blob(digest: Digest, chunks: Iterable[bytes], *, size: int) -> None:
    """Run through ``chunks`` and make sure that together they are the blob; stops at the first byte too many.

    Raises:
        FileDigestMismatch: if they are not.
    """
    sha256, count = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        count += len(chunk)
        if count > size:
            break
    if (count, sha256.hexdigest()) != (size, digest.hex):
        raise FileDigestMismatch(
            "the bytes that arrived are another file's",
            expected=f"{size} bytes, {digest}",
            found=f"more than {size} bytes" if count > size else f"{count} bytes, sha256:{sha256.hexdigest()}",
        )
