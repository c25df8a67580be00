# SPDX-License-Identifier: Apache-2.0
"""What a store holds that the catalogue does not know: fsck notes it, gc removes it.

An object is known if it is the recorded copy of a blob, or belongs to an upload that is not finished: between the first
byte under its name and its row in ``blobs`` there is always the upload's row (``service.completion``). In a directory
there is one place for each digest, so any upload of that digest counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.storage.blobs import StoredBlob, UnfinishedUpload
from pq_registry.storage.catalogue.intaketables import XorbRow
from pq_registry.storage.catalogue.tables import BlobRow, UploadRow

BATCH = 256
"""Objects that are looked up at once."""


def batches(blobs: Iterable[StoredBlob]) -> Iterator[list[StoredBlob]]:
    """``blobs``, ``BATCH`` at a time."""
    iterator = iter(blobs)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def unknown_blobs(session: Session, batch: Sequence[StoredBlob]) -> list[StoredBlob]:
    """Those of ``batch`` that no blob and no upload of the catalogue is."""
    digests = sorted({blob.digest.hex for blob in batch})
    recorded = select(BlobRow.digest, BlobRow.copy).where(BlobRow.digest.in_(digests))
    known = {(digest, copy) for digest, copy in session.execute(recorded)}
    arriving = {
        (digest, upload_id)
        for digest, upload_id in session.execute(
            select(UploadRow.digest, UploadRow.id).where(UploadRow.digest.in_(digests))
        )
    }
    arriving |= {
        (digest, xorb_id)
        for digest, xorb_id in session.execute(
            select(XorbRow.digest, XorbRow.id).where(XorbRow.digest.in_(digests), XorbRow.stored.is_(True))
        )
    }
    places = {digest for digest, _ in known | arriving}
    return [
        blob
        for blob in batch
        if (blob.digest.hex not in places if not blob.copy else (blob.digest.hex, blob.copy) not in known | arriving)
    ]


def unknown_uploads(session: Session, uploads: Sequence[UnfinishedUpload]) -> list[UnfinishedUpload]:
    """Those of ``uploads`` that are none of the catalogue's."""
    ids = sorted({upload.blob.copy for upload in uploads})
    known = set(session.scalars(select(UploadRow.id).where(UploadRow.id.in_(ids))))
    return [upload for upload in uploads if upload.blob.copy not in known]
