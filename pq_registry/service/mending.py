# SPDX-License-Identifier: Apache-2.0
"""``pqreg fsck --repair``: what ``storage.repair`` and ``storage.logrepair`` mend, each with its event.

A blob's event is written in the transaction that changes its row. The log's files are in no transaction: one event says
how many were made again, also if the work ended with an error; there is none if nothing was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.service import audit
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import LogStateRow
from pq_registry.storage.logrepair import Repaired, rebuild_log
from pq_registry.storage.repair import BlobSource, repair_blobs
from pq_registry.storage.tiles import LogFiles


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
