# SPDX-License-Identifier: Apache-2.0
"""Keeping grants: signed statements about one sealed release and one recipient, each the successor of the one before.

The service refuses a statement that no identity of the namespace signed, that is not the next one of its release and
recipient (sequence and hash of the one before), that has expired or was issued in the future, or whose release is not a
sealed release of the repository. The same payload sent again is fine. What a grant wraps it can neither read nor make.
A history is several statements at once, which may have expired (``service.tags``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from pq_registry.errors import Conflict, FormatError, GrantExpired, GrantMismatch, NotFound, SequenceUsed
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.identities import genuine_signers, require_signer
from pq_registry.service.names import find_repository
from pq_registry.service.statements import Received, is_recorded, record_statement, require_issued
from pq_registry.service.visible import find_visible
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import GrantRow, ReleaseRow, RepositoryRow, StatementRow

GRANT = "grant"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantItem:
    """The newest statement about one release and one recipient, in a listing."""

    release: Digest
    recipient: str
    statement: Digest
    sequence: int
    issued: datetime
    expires: datetime | None
    withdrawn: bool
    signer: str

    @property
    def position(self) -> str:
        """Its place in a listing."""
        return f"{self.release.hex}.{self.recipient}"


class Granting:
    """Keeps grants, and hands them out as they came."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def list(
        self,
        repository: RepositoryName,
        *,
        release: Digest | None,
        recipient: str | None,
        after: str | None,
        limit: int,
    ) -> tuple[list[GrantItem], str | None]:
        """One page of a repository's grants, of all or of those named, and the ``after`` of the next page.

        Raises:
            NotFound: if there is no such repository.
            FormatError: if ``after`` is no place in a listing.
        """
        with self._catalogue.reading() as session:
            row = find_visible(session, repository)
            query = select(GrantRow).where(GrantRow.repository_id == row.id)
            if release is not None:
                query = query.where(GrantRow.release_digest == release.hex)
            if recipient is not None:
                query = query.where(GrantRow.recipient == recipient)
            if after is not None:
                last = _parse_position(after)
                later = and_(GrantRow.release_digest == last[0].hex, GrantRow.recipient > last[1])
                query = query.where(or_(GrantRow.release_digest > last[0].hex, later))
            query = query.order_by(GrantRow.release_digest, GrantRow.recipient).limit(limit + 1)
            items = [_item(grant) for grant in session.scalars(query)]
        return items[:limit], items[limit - 1].position if len(items) > limit else None

    def envelope(self, repository: RepositoryName, release: Digest, recipient: str) -> tuple[Digest, bytes]:
        """The newest statement about a release and a recipient: payload digest and exact envelope.

        Raises:
            NotFound: if there is none.
        """
        with self._catalogue.reading() as session:
            row = session.get(GrantRow, (find_visible(session, repository).id, release.hex, recipient))
            statement = None if row is None else session.get(StatementRow, row.statement)
            if statement is None:
                raise NotFound(f"no grant of {repository}@{release} for {recipient}")
            return Digest(statement.digest), statement.envelope

    def put(
        self, caller: Caller, repository: RepositoryName, release: Digest, recipient: str, body: bytes
    ) -> tuple[Digest, bool]:
        """Record the grant statement whose envelope is ``body``; answers its digest and whether it is new.

        Raises:
            FormatError: if a document is not what its specification says.
            VerificationError: if the statement is about something else, expired, or not signed as it must be.
            AccessDenied: if the signer is not registered for the namespace.
            NotFound: if the repository has no such release.
            SequenceUsed: if it is not the next statement about this release and recipient.
            Conflict: if the release is not sealed.
        """
        with self._catalogue.reading() as session:
            statement, received = _read(session, repository, release, recipient, body)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = find_repository(session, repository, lock=True)
            if is_recorded(session, received.digest):
                return received.digest, False
            _require_current(statement, now)
            _require_sealed(session, row, statement)
            _require_next(session, row, statement)
            _write(session, caller, row, statement, received, now)
        return received.digest, True

    def add_history(
        self, caller: Caller, repository: RepositoryName, release: Digest, recipient: str, bodies: Sequence[bytes]
    ) -> tuple[Digest, bool]:
        """Record the statements whose envelopes are ``bodies``, oldest first, all or none; as ``put`` for the last.

        Raises:
            SequenceUsed: if they do not follow the present one, or one another.
            PqregError: as ``put``, except for what has expired.
        """
        with self._catalogue.reading() as session:
            given = [_read(session, repository, release, recipient, body) for body in bodies]
        now = self._clock()
        with self._catalogue.writing() as session:
            row = find_repository(session, repository, lock=True)
            added = [
                (statement, received) for statement, received in given if not is_recorded(session, received.digest)
            ]
            for statement, received in added:
                require_issued("the grant statement", statement.issued, now)
                _require_sealed(session, row, statement)
                _require_next(session, row, statement)
                _write(session, caller, row, statement, received, now)
        return given[-1][1].digest, bool(added)


def _read(
    session: Session, repository: RepositoryName, release: Digest, recipient: str, body: bytes
) -> tuple[GrantStatement, Received]:
    """The statement in an envelope that an identity of the namespace signed, about this release and recipient."""
    envelope = Envelope.parse(body)
    genuine = genuine_signers(session, repository.namespace, envelope)
    statement = GrantStatement.parse(envelope.payload)
    require_signer(statement.signer, genuine)
    if (statement.repository, statement.release, statement.recipient) != (repository, release, recipient):
        raise GrantMismatch(
            "the statement is about another release or recipient",
            expected=f"{repository}@{release} for {recipient}",
            found=f"{statement.repository}@{statement.release} for {statement.recipient}",
        )
    received = Received(
        kind=GRANT,
        digest=envelope.payload_digest,
        signer=statement.signer,
        envelope=body,
        release=release,
        recipient=recipient,
        sequence=statement.sequence,
    )
    return statement, received


def _require_current(statement: GrantStatement, now: datetime) -> None:
    if statement.expires is not None and is_expired(now, statement.expires):
        raise GrantExpired(
            "the grant has expired",
            expected=f"expiry after {format_instant(now)}",
            found=format_instant(statement.expires),
        )
    require_issued("the grant statement", statement.issued, now)


def _require_sealed(session: Session, row: RepositoryRow, statement: GrantStatement) -> None:
    query = select(ReleaseRow.sealed).where(
        ReleaseRow.digest == statement.release.hex, ReleaseRow.repository_id == row.id
    )
    sealed = session.scalars(query).one_or_none()
    if sealed is None:
        raise NotFound(f"no release {statement.release} in {row.name}", hint="commit the release first")
    if not sealed:
        raise Conflict(
            f"release {statement.release} is not sealed",
            expected="a sealed release",
            hint="everybody who may read the repository can read it; there is nothing to grant",
        )


def _require_next(session: Session, row: RepositoryRow, statement: GrantStatement) -> None:
    current = session.get(GrantRow, (row.id, statement.release.hex, statement.recipient))
    sequence = 0 if current is None else current.sequence
    previous = None if current is None else Digest(current.statement)
    if (statement.sequence, statement.previous) != (sequence + 1, previous):
        raise SequenceUsed(
            f"the statement is not the next one about recipient {statement.recipient}",
            expected=f"sequence {sequence + 1} after {previous or 'none'}",
            found=f"sequence {statement.sequence} after {statement.previous or 'none'}",
            hint="read the grant again and sign the statement that follows it",
        )


def _write(
    session: Session, caller: Caller, row: RepositoryRow, statement: GrantStatement, received: Received, now: datetime
) -> None:
    record_statement(session, received, row, now)
    session.merge(
        GrantRow(
            repository_id=row.id,
            release_digest=statement.release.hex,
            recipient=statement.recipient,
            sequence=statement.sequence,
            statement=received.digest.hex,
            withdrawn=statement.withdrawn,
            signer=statement.signer,
            issued=statement.issued,
            expires=statement.expires,
        )
    )
    action = audit.Action.GRANT_WITHDRAWN if statement.withdrawn else audit.Action.GRANT_SET
    audit.record(
        session, caller, now, action, f"{statement.repository}@{statement.release}",
        recipient=statement.recipient, sequence=statement.sequence, signer=statement.signer,
    )  # fmt: skip


def _item(row: GrantRow) -> GrantItem:
    return GrantItem(
        release=Digest(row.release_digest),
        recipient=row.recipient,
        statement=Digest(row.statement),
        sequence=row.sequence,
        issued=row.issued,
        expires=row.expires,
        withdrawn=row.withdrawn,
        signer=row.signer,
    )


def _parse_position(text: str) -> tuple[Digest, str]:
    release, separator, recipient = text.partition(".")
    if not separator:
        raise FormatError("not a place in the listing", expected="the 'next' of the page before", found=text[:160])
    return Digest(release), parse_recipient_id(recipient)
