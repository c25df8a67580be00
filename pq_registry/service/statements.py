# SPDX-License-Identifier: Apache-2.0
"""Recording signed statements, each once: the exact envelope, by the digest of its payload."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant
from pq_registry.storage.catalogue.tables import NamespaceRow, RepositoryRow, StatementRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A statement as it arrived: the exact bytes of its envelope, and what its payload says it is about.

    Which of the last four are given depends on the kind; see ``StatementRow``.
    """

    kind: str
    digest: Digest
    signer: str
    envelope: bytes
    tag: str | None = None
    release: Digest | None = None
    recipient: str | None = None
    sequence: int | None = None


def is_recorded(session: Session, digest: Digest) -> bool:
    """Whether exactly this payload is recorded already."""
    return session.scalars(select(StatementRow.digest).where(StatementRow.digest == digest.hex)).first() is not None


def record_statement(session: Session, received: Received, owner: RepositoryRow | NamespaceRow, now: datetime) -> None:
    """Add a statement of a repository, or of a namespace as a whole, to the transaction."""
    session.add(
        StatementRow(
            digest=received.digest.hex,
            kind=received.kind,
            namespace_id=owner.namespace_id if isinstance(owner, RepositoryRow) else owner.id,
            repository_id=owner.id if isinstance(owner, RepositoryRow) else None,
            signer=received.signer,
            envelope=received.envelope,
            tag=received.tag,
            release_digest=None if received.release is None else received.release.hex,
            recipient=received.recipient,
            sequence=received.sequence,
            recorded=now,
        )
    )
    session.flush()


def require_issued(what: str, issued: datetime, now: datetime) -> None:
    """Refuse a statement of the future; ``what`` names it in messages.

    Raises:
        Conflict: if it claims to be issued later than clocks may differ.
    """
    latest = now + timedelta(seconds=limits.CLOCK_SKEW_SECONDS)
    if issued > latest:
        raise Conflict(
            f"{what} was issued in the future",
            expected=f"issued by {format_instant(latest)}",
            found=format_instant(issued),
            hint="check the clock of the machine that signed it",
        )
