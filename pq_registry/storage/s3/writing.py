# SPDX-License-Identifier: Apache-2.0
"""Writing a blob whose bytes come through the service: small ones relayed from clients, and repairs of any size."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

from pq_registry import limits
from pq_registry.errors import FileDigestMismatch, PqregError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredPart
from pq_registry.storage.s3 import parts
from pq_registry.storage.s3.session import S3Session


def write_object(session: S3Session, name: str, digest: Digest, chunks: Iterable[bytes], *, size: int) -> None:
    """Store an object in parts, holding one in memory; it appears only if all of it is what ``digest`` names.

    Raises:
        FileDigestMismatch: if the chunks are other bytes.
        StorageError: if the store fails.
    """
    pieces = _checked(_cut(chunks, part_bytes(size)), name, digest, size)
    if size <= limits.PART_BYTES:
        session.call("put_object", "store", name, **session.body(b"".join(pieces)), **session.blob_options)
        return
    storage_id = parts.begin(session, name)
    try:
        held: dict[int, StoredPart] = {}
        for number, piece in enumerate(pieces):
            held[number] = parts.upload(session, name, storage_id, number, piece)
        parts.finish(session, name, storage_id, held)
    except BaseException:
        # What cannot be given up now is swept with other idle uploads.
        with contextlib.suppress(PqregError):
            parts.abort(session, name, storage_id)
        raise


def part_bytes(size: int) -> int:
    """How large the parts of an object are: PART_BYTES, or more where that would be too many parts."""
    least = -(-size // limits.PARTS)
    return max(limits.PART_BYTES, -(-least // limits.MIB) * limits.MIB)


def _cut(chunks: Iterable[bytes], length: int) -> Iterator[bytes]:
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= length:
            yield bytes(buffer[:length])
            del buffer[:length]
    if buffer:
        yield bytes(buffer)


def _checked(pieces: Iterable[bytes], name: str, digest: Digest, size: int) -> Iterator[bytes]:
    sha256, length = hashlib.sha256(), 0
    for piece in pieces:
        sha256.update(piece)
        length += len(piece)
        if length > size:
            break
        yield piece
    if length != size or sha256.hexdigest() != digest.hex:
        raise FileDigestMismatch(
            f"what was to be stored as {name} is something else", expected=f"{digest}, {size} bytes",
            found=f"{length} bytes" if length != size else f"sha256:{sha256.hexdigest()}",
        )  # fmt: skip
