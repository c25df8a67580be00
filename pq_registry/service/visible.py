# SPDX-License-Identifier: Apache-2.0
"""Which blobs a caller may know of: those that a repository refers to which the caller may read.

Anything else does not exist for the caller, whether the store holds it or not. A repository itself is visible once it
has a release; before that only its uploads know it.

A blob whose bytes fsck found to be lost (``BlobRow.damaged``) counts as missing, and reading it is an error that says
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, exists, or_, select, true, update
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import BlobDamaged, FormatError, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.names import find_repository
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.catalogue.tables import (
    BlobRow,
    BlobSlicingRow,
    NamespaceRow,
    ReleaseRow,
    RepositoryBlobRow,
    RepositoryRow,
)

SLICE_SIZES = (limits.SHARD_BYTES, limits.SHARD_BYTES + limits.SEAL_TAG_BYTES)
"""Slices of plain and of sealed files."""
_BATCH = 500
"""Values in one IN clause; SQLite allows 32 766 and PostgreSQL more, plans get no better beyond this."""


@dataclass(frozen=True, slots=True)
class BlobFacts:
    """What the service has verified about a blob, ``shards`` in slices of the size that was asked for."""

    blob: StoredBlob
    size: int
    shards: bytes


def check_slice_size(slice_size: int) -> None:
    """Refuse slices that no release has.

    Raises:
        FormatError: if the size is none of the two.
    """
    if slice_size not in SLICE_SIZES:
        raise FormatError("no such slice size", expected=" or ".join(map(str, SLICE_SIZES)), found=slice_size)


def readable_namespace(caller: Caller) -> ColumnElement[bool]:
    """The condition that the namespace of a query may be read by the caller."""
    if caller.readable is None:
        return true()
    return NamespaceRow.key.in_(sorted(caller.readable))


def find_visible(session: Session, name: RepositoryName) -> RepositoryRow:
    """A repository that has a release.

    Raises:
        NotFound: if there is none of exactly this name.
    """
    row = find_repository(session, name)
    if session.scalars(select(ReleaseRow.id).where(ReleaseRow.repository_id == row.id).limit(1)).first() is None:
        raise NotFound(f"no repository {name}", hint="check the name, or push a first release")
    return row


def _visible(caller: Caller) -> ColumnElement[bool]:
    return exists().where(
        and_(
            RepositoryBlobRow.digest == BlobRow.digest,
            RepositoryRow.id == RepositoryBlobRow.repository_id,
            NamespaceRow.id == RepositoryRow.namespace_id,
            readable_namespace(caller),
        )
    )


def _shards(slice_size: int) -> ColumnElement[bytes | None]:
    # One slice or none is the same whatever the slice size.
    alike = or_(BlobRow.slice_size == slice_size, BlobRow.size <= min(SLICE_SIZES))
    other = select(BlobSlicingRow.shards).where(
        BlobSlicingRow.digest == BlobRow.digest, BlobSlicingRow.slice_size == slice_size
    )
    return case((alike, BlobRow.shards), else_=other.scalar_subquery())


def _whole() -> ColumnElement[bool]:
    return BlobRow.damaged.is_(None)


def visible_blobs(
    session: Session, caller: Caller, digests: Iterable[Digest], *, slice_size: int
) -> dict[Digest, BlobFacts]:
    """Those of ``digests`` that are whole blobs the caller may read, verified in slices of ``slice_size``."""
    found: dict[Digest, BlobFacts] = {}
    for batch in _batches(sorted({digest.hex for digest in digests})):
        query = select(BlobRow.digest, BlobRow.copy, BlobRow.size, _shards(slice_size)).where(_whole())
        for digest, copy, size, shards in session.execute(query.where(BlobRow.digest.in_(batch), _visible(caller))):
            if shards is not None:
                blob = StoredBlob(Digest(digest), copy)
                found[blob.digest] = BlobFacts(blob, size, shards)
    return found


def missing_blobs(session: Session, caller: Caller, digests: Iterable[Digest], *, slice_size: int) -> set[Digest]:
    """Those of ``digests`` that must be uploaded in slices of ``slice_size`` before the caller can refer to them."""
    wanted = set(digests)
    for batch in _batches(sorted(digest.hex for digest in wanted)):
        query = select(BlobRow.digest).where(BlobRow.digest.in_(batch), _visible(caller), _whole())
        present = session.scalars(query.where(_shards(slice_size).is_not(None)))
        wanted -= {Digest(digest) for digest in present}
    return wanted


def unpromised_blobs(session: Session, digests: Iterable[Digest], now: datetime) -> list[Digest]:
    """Those of ``digests``, which are blobs, that nobody was told of lately: collection may come for them."""
    found: list[Digest] = []
    for batch in _batches(sorted({digest.hex for digest in digests})):
        found += map(Digest, session.scalars(select(BlobRow.digest).where(BlobRow.digest.in_(batch), _stale(now))))
    return found


def promise_blobs(session: Session, digests: Iterable[Digest], now: datetime) -> None:
    """Keep ``digests`` from being collected for a while: a publisher is told that they need not be uploaded."""
    for batch in _batches(sorted({digest.hex for digest in digests})):
        session.execute(update(BlobRow).where(BlobRow.digest.in_(batch), _stale(now)).values(promised=now))


def _stale(now: datetime) -> ColumnElement[bool]:
    return or_(BlobRow.promised.is_(None), BlobRow.promised <= now - timedelta(seconds=limits.GC_PROMISE_SECONDS))


def find_blob(session: Session, caller: Caller, digest: Digest) -> tuple[StoredBlob, int]:
    """A blob the caller may read, and its length.

    Raises:
        NotFound: if there is no such blob for this caller.
        BlobDamaged: if its bytes were found to be lost.
    """
    query = select(BlobRow.copy, BlobRow.size, BlobRow.damaged).where(BlobRow.digest == digest.hex, _visible(caller))
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"no blob {digest}")
    require_whole(digest, found.damaged)
    return StoredBlob(digest, found.copy), found.size


def require_whole(digest: Digest, damaged: datetime | None) -> None:
    """Refuse a blob whose bytes are lost (``BlobRow.damaged``).

    Raises:
        BlobDamaged: if they are.
    """
    if damaged is not None:
        raise BlobDamaged(
            f"blob {digest} is damaged, and served to nobody",
            expected="bytes of this digest",
            found=f"others, or none, at {damaged:%Y-%m-%dT%H:%M:%SZ}",
            hint="who runs the registry mends it with pqreg fsck --repair-from; or push the model again",
        )


def link_blobs(session: Session, row: RepositoryRow, digests: Iterable[Digest], now: datetime) -> None:
    """Let the repository refer to ``digests``, which are verified blobs."""
    for batch in _batches(sorted({digest.hex for digest in digests})):
        present = select(RepositoryBlobRow.digest).where(
            RepositoryBlobRow.repository_id == row.id, RepositoryBlobRow.digest.in_(batch)
        )
        for digest in set(batch) - set(session.scalars(present)):
            session.add(RepositoryBlobRow(repository_id=row.id, digest=digest, added=now))


def _batches(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _BATCH] for start in range(0, len(values), _BATCH))
