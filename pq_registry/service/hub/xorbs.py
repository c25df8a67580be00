# SPDX-License-Identifier: Apache-2.0
"""Xorbs that were sent, and what became of their chunks.

A xorb is unpacked and checked as it arrives (``xorb``), and kept until files are made of it. It is there for the token
that sent it, and for whoever may publish in the namespace it was sent to: they could read the files made of it anyway.
For everybody else there is no such xorb.

Once every chunk of a xorb is part of a file, its bytes go, and so they do after ``limits.XORB_SECONDS``. What stays is
which file has which chunk at which offset: for three weeks, clients refer to chunks they sent before, whatever became
of the xorb, and have no means to learn that they are gone.

What a client remembers, it remembers by URL. So the URL of a repository's uploads has a random *place* in it; when a
client refers to what is gone (its files were collected, the repository was made anew), the place becomes another one,
and the next try sends everything.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, or_, select, true, update
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.format.xetshard import Term
from pq_registry.service.access import PERMISSIONS, Caller, Permission
from pq_registry.service.clock import Clock
from pq_registry.service.hub.arriving import ArrivingXorb
from pq_registry.service.names import find_repository, obtain_repository
from pq_registry.service.quotas import QuotaKeeper
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.intaketables import XetPlaceRow, XorbRow, XorbSourceRow
from pq_registry.storage.catalogue.tables import NamespaceRow, RepositoryRow

_BATCH = 500
_PLACE_BYTES = 8
_OFFSET: np.dtype[Any] = np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the chunks ``first`` to ``end`` (exclusive) of a xorb are: in a file, from ``offset`` on."""

    first: int
    end: int
    digest: Digest
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Xorb:
    """A xorb that is there for a caller.

    ``block`` is None once its bytes went; ``own`` is whether the caller sent it.
    """

    id: str
    block: StoredBlob | None
    size: int
    ends: NDArray[np.uint32]
    own: bool
    sources: tuple[Source, ...]

    def span(self, term: Term) -> tuple[int, int]:
        """Offset and length of a run of chunks.

        Raises:
            FormatError: if the xorb has no such chunks, or they have another length together.
        """
        found = len(self.ends)
        if term.end <= found:
            start, end = self.start(term.first), int(self.ends[term.end - 1])
            if end - start == term.size:
                return start, term.size
            found = end - start
        raise FormatError(
            f"xorb {term.xorb} has other chunks than the upload says", found=found,
            expected=f"chunks {term.first} to {term.end} of {term.size} bytes",
        )  # fmt: skip

    def start(self, chunk: int) -> int:
        """The offset at which a chunk begins."""
        return int(self.ends[chunk - 1]) if chunk else 0


@dataclass(frozen=True, slots=True)
class Made:
    """A run of chunks of a xorb, which is now part of the file ``digest``, at ``offset``."""

    xorb_id: str
    first: int
    end: int
    digest: Digest
    offset: int


class Xorbs:
    """The xorbs of a registry."""

    def __init__(self, catalogue: Catalogue, blocks: Blocks, quotas: QuotaKeeper, clock: Clock) -> None:
        self._catalogue = catalogue
        self._blocks = blocks
        self._quotas = quotas
        self._clock = clock

    def place(self, repository: RepositoryName) -> str:
        """The place of a repository's uploads.

        Raises:
            NotFound: if there is no such repository.
            StorageError: if the catalogue fails.
        """
        with self._catalogue.reading() as session:
            owner = find_repository(session, repository)
            row = session.get(XetPlaceRow, owner.id)
        return self.move(repository) if row is None else row.place

    def move(self, repository: RepositoryName) -> str:
        """Give a repository's uploads another place, where nothing has been sent as far as clients know.

        Raises:
            NotFound: if there is no such repository.
            StorageError: if the catalogue fails.
        """
        place = secrets.token_hex(_PLACE_BYTES)
        with self._catalogue.writing() as session:
            owner = find_repository(session, repository, lock=True)
            session.merge(XetPlaceRow(repository_id=owner.id, place=place))
        return place

    def begin(self, caller: Caller, repository: RepositoryName, name: str, announced: int) -> ArrivingXorb | None:
        """Take in a xorb of ``announced`` bytes, packed; None if it is there.

        Raises:
            QuotaExceeded: if the namespace has no room for it.
            StorageError: if the store fails.
        """
        query = (
            select(XorbRow.id)
            .join(RepositoryRow, RepositoryRow.id == XorbRow.repository_id)
            .where(RepositoryRow.key == repository.key, XorbRow.token_id == caller.token_id)
            .where(XorbRow.hash == name, XorbRow.stored.is_(True))
        )
        with self._catalogue.reading() as session:
            if session.scalars(query).first() is not None:
                return None
        self._quotas.admit_block(repository, announced)
        return ArrivingXorb(self._blocks, name, announced)

    def finish(self, caller: Caller, repository: RepositoryName, arrived: ArrivingXorb) -> bool:
        """All of a xorb has arrived; whether it is new.

        Raises:
            FormatError: if it is not the one it was announced as.
            QuotaExceeded: if the namespace has no room for what it unpacks to.
            Conflict: if the repository's name exists in another spelling.
            StorageError: if the store or the catalogue fails.
        """
        block, size, ends = arrived.finish()
        self._quotas.admit_block(repository, max(0, size - arrived.announced))  # it may unpack to far more
        now = self._clock()
        with self._catalogue.writing() as session:
            owner = obtain_repository(session, repository, now)
            mine = (XorbRow.repository_id == owner.id, XorbRow.token_id == caller.token_id)
            row = session.scalars(select(XorbRow).where(*mine, XorbRow.hash == arrived.name)).one_or_none()
            if row is not None and row.stored:
                row.touched = now  # another request was quicker, and its bytes stay
                return False
            if row is not None:
                _forget(session, [row.id])
            session.add(
                XorbRow(
                    id=block.copy, repository_id=owner.id, token_id=caller.token_id, hash=arrived.name,
                    digest=block.digest.hex, size=size, ends=np.array(ends, dtype=_OFFSET).tobytes(), stored=True,
                    touched=now,
                )
            )  # fmt: skip
        arrived.is_known = True
        return True

    def find(self, caller: Caller, name: str) -> list[Xorb]:
        """The xorbs of this name that are there for the caller, those with bytes first.

        Raises:
            StorageError: if the catalogue fails.
        """
        rights = caller.rights
        allowed = XorbRow.token_id == caller.token_id
        if rights is not None and Permission.PUBLISH in PERMISSIONS[rights.role]:
            within = true() if rights.namespaces is None else NamespaceRow.key.in_(sorted(rights.namespaces))
            allowed = or_(allowed, within)
        query = (
            select(XorbRow)
            .join(RepositoryRow, RepositoryRow.id == XorbRow.repository_id)
            .join(NamespaceRow, NamespaceRow.id == RepositoryRow.namespace_id)
            .where(XorbRow.hash == name, allowed)
            .order_by(XorbRow.stored.desc(), XorbRow.touched.desc())
            .limit(limits.XORB_COPIES)
        )
        with self._catalogue.reading() as session:
            return [_xorb(session, caller, row) for row in session.scalars(query).all()]

    def made(self, runs: Iterable[Made]) -> None:
        """Note of which chunks files are made, and give up the bytes of xorbs that are of no more use.

        Raises:
            StorageError: if the catalogue or the store fails.
        """
        by_xorb: dict[str, dict[tuple[int, int], Made]] = {}
        for run in runs:
            by_xorb.setdefault(run.xorb_id, {})[run.first, run.end] = run
        now = self._clock()
        going: list[StoredBlob] = []
        with self._catalogue.writing() as session:
            for xorb_id, found in sorted(by_xorb.items()):
                row = session.get(XorbRow, xorb_id)
                if row is None:
                    continue  # given up meanwhile
                row.touched = now
                for run in found.values():
                    session.merge(
                        XorbSourceRow(
                            xorb_id=xorb_id, first=run.first, end=run.end, digest=run.digest.hex, offset=run.offset
                        )
                    )
                session.flush()
                if row.stored and _is_covered(session, row):
                    row.stored = False
                    going.append(StoredBlob(Digest(row.digest), row.id))
        self.discard(going)

    def discard(self, blocks: Iterable[StoredBlob]) -> None:
        """Remove the bytes of xorbs that no row has any more.

        Raises:
            StorageError: if the store fails.
        """
        for block in blocks:
            self._blocks.remove(block)

    def sweep(self, *, starting: bool) -> int:
        """Give up bytes nobody made a file of in time, and forget what no client refers to any more.

        Raises:
            StorageError: if the catalogue or the store fails; the next sweep goes on.
        """
        now = self._clock()
        idle = XorbRow.touched <= now - timedelta(seconds=limits.XORB_SECONDS)
        stale = XorbRow.touched <= now - timedelta(seconds=limits.XORB_MEMORY_SECONDS)
        with self._catalogue.writing() as session:
            rows = session.scalars(select(XorbRow).where(XorbRow.stored.is_(True), idle).limit(_BATCH)).all()
            going = [StoredBlob(Digest(row.digest), row.id) for row in rows]
            session.execute(update(XorbRow).where(XorbRow.id.in_([row.id for row in rows])).values(stored=False))
            forgotten = select(XorbRow.id).where(XorbRow.stored.is_(False), stale).limit(_BATCH)
            _forget(session, session.scalars(forgotten).all())
            known = session.scalars(select(XorbRow.id).where(XorbRow.stored.is_(True))).all() if starting else ()
        if starting:
            self._blocks.sweep(frozenset(known))
        self.discard(going)
        return len(going)


def _xorb(session: Session, caller: Caller, row: XorbRow) -> Xorb:
    sources = select(XorbSourceRow).where(XorbSourceRow.xorb_id == row.id)
    return Xorb(
        id=row.id,
        block=StoredBlob(Digest(row.digest), row.id) if row.stored else None,
        size=row.size,
        ends=np.frombuffer(row.ends, dtype=_OFFSET),
        own=row.token_id == caller.token_id,
        sources=tuple(
            Source(source.first, source.end, Digest(source.digest), source.offset)
            for source in session.scalars(
                sources.order_by(XorbSourceRow.first, XorbSourceRow.end.desc()).limit(limits.XORB_SOURCES)
            )
        ),
    )


def _is_covered(session: Session, row: XorbRow) -> bool:
    query = select(XorbSourceRow.first, XorbSourceRow.end).where(XorbSourceRow.xorb_id == row.id)
    reached = 0
    for first, end in session.execute(query.order_by(XorbSourceRow.first)):
        if first > reached:
            return False
        reached = max(reached, end)
    return reached >= len(row.ends) // _OFFSET.itemsize


def _forget(session: Session, ids: Iterable[str]) -> None:
    wanted = list(ids)
    session.execute(delete(XorbSourceRow).where(XorbSourceRow.xorb_id.in_(wanted)))
    session.execute(delete(XorbRow).where(XorbRow.id.in_(wanted)))
