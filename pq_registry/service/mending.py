# SPDX-License-Identifier: Apache-2.0
"""What follows from a ``pqreg fsck``, each change with its event.

* A blob whose bytes are lost is marked: nobody is served what stands in its place, and whoever pushes it sends it
  again. The mark goes when its bytes are seen to be right, by a later fsck, a repair or an upload.
* ``--repair``: what ``storage.repair`` and ``storage.logrepair`` mend.

A blob's event is written in the transaction that changes its row. The log's files are in no transaction: one event says
how many were made again, also if the work ended with an error; there is none if nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.service import audit
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, LogStateRow
from pq_registry.storage.chains import Finding
from pq_registry.storage.logrepair import Repaired, rebuild_log
from pq_registry.storage.repair import BlobSource, repair_blobs
from pq_registry.storage.tiles import LogFiles


def mark_blobs(catalogue: Catalogue, findings: Sequence[Finding], *, begun: datetime, now: datetime) -> int:
    """Mark the blobs whose bytes a whole ``check_registry`` found to be lost, and clear those it found to be right.

    A blob about which the store could not be asked keeps the mark it has; one that was verified after ``begun``, when
    the check began, is left alone.

    Returns:
        How many blobs are marked now.

    Raises:
        StorageError: if the catalogue fails.
    """
    lost = {finding.blob.hex for finding in findings if finding.blob is not None and finding.lost}
    unclear = {finding.blob.hex for finding in findings if finding.blob is not None} - lost
    with catalogue.reading() as session:
        marked = set(session.scalars(select(BlobRow.digest).where(BlobRow.damaged.is_not(None))))
    if not lost ^ marked:
        return len(marked)
    with catalogue.writing() as session:
        for digest in sorted(lost - marked):
            row = session.get(BlobRow, digest)
            if row is not None and row.damaged is None and row.verified_at <= begun:
                row.damaged = now
                audit.record(session, host_caller(), now, audit.Action.BLOB_DAMAGED, Digest(digest))
        for digest in sorted(marked - lost - unclear):
            row = session.get(BlobRow, digest)
            if row is not None and row.damaged is not None:
                row.damaged = None
                what = "its bytes are right again"
                audit.record(session, host_caller(), now, audit.Action.BLOB_REPAIRED, Digest(digest), what=what)
        session.flush()
        return session.scalar(select(func.count()).where(BlobRow.damaged.is_not(None))) or 0


def mend_blobs(
    catalogue: Catalogue,
    blobs: BlobStore,
    digests: Iterable[Digest],
    sources: Sequence[BlobSource],
    *,
    now: datetime,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[Repaired]:
    """``repair_blobs``, with an event for each blob that was changed.

    Raises:
        StorageError: if the catalogue fails.
    """

    def record(session: Session, digest: Digest, what: str) -> None:
        audit.record(session, host_caller(), now, audit.Action.BLOB_REPAIRED, digest, what=what)

    yield from repair_blobs(catalogue, blobs, digests, sources, now=now, record=record, advance=advance)


def mend_log(catalogue: Catalogue, tiles: LogFiles, *, now: datetime) -> Iterator[Repaired]:
    """``rebuild_log``, with an event if a file was changed.

    Raises:
        StorageError: if catalogue or tile store fail.
    """
    files = 0
    try:
        for one in rebuild_log(catalogue, tiles):
            files += one.done
            yield one
    finally:
        if files:
            with catalogue.writing() as session:
                note = session.scalars(select(LogStateRow.note)).one()
                origin = parse_checkpoint_note(note)[0].origin
                audit.record(session, host_caller(), now, audit.Action.LOG_REPAIRED, origin, files=files)
