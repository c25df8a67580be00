# SPDX-License-Identifier: Apache-2.0
"""Mending what fsck found, as far as the truth can be had elsewhere.

* A blob whose bytes are lost or damaged is fetched from other sources: other registries, copies of a blob directory.
  None of them is believed. Nothing takes the blob's place before its SHA-256 was seen to be the blob's; in an object
  store that place is a new object, and the catalogue then says that it is the blob.
* A blob whose bytes are right and whose row is not (its size, the digests of its slices): the row is made again.
* The log's files are made again from the catalogue (``storage.logrepair``).

Statements, releases, tags and grants are in the catalogue alone: for those there is the backup (``storage.restore``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import NotFound, PqregError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import BlobStore, DirectUploads, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, BlobSlicingRow
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.logrepair import Repaired

_READ_SLICES = 8

Record = Callable[[Session, Digest, str], None]
"""Called in the transaction that changes a blob's row, with what was done: the audit trail is the caller's."""


class BlobSource(Protocol):
    """Somewhere else that may have a blob. Its name, as ``str``, stands in reports: no secrets."""

    def fetch(self, digest: Digest, size: int) -> Iterator[bytes]:
        """The bytes of a blob that should have ``size`` of them; unverified.

        Raises:
            PqregError: if they cannot be had, also while they come.
        """
        ...


def repair_blobs(
    catalogue: Catalogue,
    blobs: BlobStore,
    digests: Iterable[Digest],
    sources: Sequence[BlobSource],
    *,
    now: datetime,
    record: Record,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Repaired]:
    """Mend each of these blobs, or say why it cannot be.

    Args:
        catalogue: of the registry.
        blobs: its blob store.
        digests: what fsck found damaged.
        sources: asked in this order.
        now: when.
        record: called for each change.
        advance: told the number of bytes that were fetched, as they are.

    Raises:
        StorageError: if the catalogue fails.
    """
    for digest in digests:
        with catalogue.reading() as session:
            found = session.execute(
                select(BlobRow.copy, BlobRow.size).where(BlobRow.digest == digest.hex)
            ).one_or_none()
        if found is None:
            continue
        stored, subject = StoredBlob(digest, found.copy), f"blob {digest}"
        try:
            if _is_whole(blobs, stored):
                _record_again(catalogue, blobs, stored, record)
                yield Repaired(subject, "its bytes are right; its row was made again from them")
            else:
                yield _fetched(catalogue, blobs, stored, found.size, sources, now, record, advance)
        except PqregError as error:
            yield Repaired(subject, f"it cannot be repaired: {error}", done=False)


def _is_whole(blobs: BlobStore, stored: StoredBlob) -> bool:
    try:
        return hash_blob(blobs, stored) == stored.digest
    except PqregError:
        return False


def _fetched(
    catalogue: Catalogue,
    blobs: BlobStore,
    stored: StoredBlob,
    size: int,
    sources: Sequence[BlobSource],
    now: datetime,
    record: Record,
    advance: Callable[[int], None],
) -> Repaired:
    subject = f"blob {stored}"
    if not sources:
        return Repaired(subject, "its bytes must come from elsewhere: give --repair-from", done=False)
    direct = isinstance(blobs, DirectUploads)
    new = StoredBlob(stored.digest, new_upload_id() if direct else "")
    reasons = []
    for source in sources:
        try:
            blobs.write(new, _counted(source.fetch(stored.digest, size), advance), size=size)
        except PqregError as error:
            reasons.append(f"{source}: {error}")
            continue
        with catalogue.writing() as session:
            _point_to(session, stored, new, now)
            record(session, stored.digest, f"fetched from {source}")
        if direct:
            _drop(blobs, stored)
        return Repaired(subject, f"its bytes were fetched from {source} and verified")
    return Repaired(subject, f"no source has it: {'; '.join(reasons)}", done=False)


def _counted(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk


def _point_to(session: Session, old: StoredBlob, new: StoredBlob, now: datetime) -> None:
    session.execute(
        update(BlobRow)
        .where(BlobRow.digest == old.digest.hex, BlobRow.copy == old.copy)
        .values(copy=new.copy, verified_at=now, damaged=None)
    )


def _drop(blobs: BlobStore, blob: StoredBlob) -> None:
    try:
        blobs.remove(blob)
    except PqregError:  # held by Object Lock, or the store fails: it stays as an object nobody knows
        return


def _record_again(catalogue: Catalogue, blobs: BlobStore, stored: StoredBlob, record: Record) -> None:
    with catalogue.reading() as session:
        row = session.get(BlobRow, stored.digest.hex)
        if row is None:
            raise NotFound(f"no blob {stored}")
        further = select(BlobSlicingRow.slice_size).where(BlobSlicingRow.digest == stored.digest.hex)
        sizes = [row.slice_size, *session.scalars(further)]
    shards = {slice_size: _shards(blobs, stored, slice_size) for slice_size in sizes}
    size = blobs.size(stored)
    with catalogue.writing() as session:
        session.execute(
            update(BlobRow)
            .where(BlobRow.digest == stored.digest.hex)
            .values(size=size, shards=shards[sizes[0]], damaged=None)
        )
        for slice_size in sizes[1:]:
            session.execute(
                update(BlobSlicingRow)
                .where(BlobSlicingRow.digest == stored.digest.hex, BlobSlicingRow.slice_size == slice_size)
                .values(shards=shards[slice_size])
            )
        record(session, stored.digest, "row made again")


def _shards(blobs: BlobStore, stored: StoredBlob, slice_size: int) -> bytes:
    """The digests of the slices of bytes that were just seen to be the blob; seen again, because they are read anew."""
    reader = blobs.open(stored)
    try:
        sha256, shards, step = hashlib.sha256(), bytearray(), _READ_SLICES * slice_size
        for offset in range(0, reader.size, step):
            data = reader.read(offset, min(step, reader.size - offset))
            sha256.update(data)
            shards += shard_digests(data, slice_size)
        if sha256.hexdigest() != stored.digest.hex:
            raise NotFound(f"blob {stored} changed while it was read")
        return bytes(shards)
    finally:
        reader.close()
