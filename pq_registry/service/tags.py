# SPDX-License-Identifier: Apache-2.0
"""Moving tags: signed statements with a sequence number that is used once.

The service refuses a statement that is not the next one of its tag (sequence and hash of the one before), expired
already, issued in the future, or that points to a release this repository does not have. The same payload sent again
is fine.

A history is several statements at once, as another registry recorded them: in one transaction, so that nobody sees the
tag at one of the earlier ones. They may have expired, and what the earlier ones pointed at need not be here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.errors import Conflict, NameMismatch, SequenceUsed, TagExpired
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.tag import TagStatement
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.identities import genuine_signers, require_signer
from pq_registry.service.names import find_repository
from pq_registry.service.statements import Received, is_recorded, record_statement, require_issued
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow, TagRow

TAG = "tag"


class Tagging:
    """Sets and withdraws tags."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def put(self, caller: Caller, repository: RepositoryName, tag: Tag, body: bytes) -> tuple[Digest, bool]:
        """Record the tag statement whose envelope is ``body``; answers its digest and whether it is new.

        Raises:
            FormatError: if a document is not what its specification says.
            VerificationError: if the statement is another tag's, expired, or not signed as it must be.
            AccessDenied: if the signer is not registered for the namespace.
            SequenceUsed: if it is not the next statement of this tag.
            Conflict: if its target is not a release of this repository.
        """
        with self._catalogue.reading() as session:
            statement, received = _read(session, repository, tag, body)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = find_repository(session, repository, lock=True)
            if is_recorded(session, received.digest):
                return received.digest, False
            _require_current(statement, now)
            self._require_next(session, row, statement)
            self._require_target(session, row, statement)
            _write(session, caller, row, statement, received, now)
        return received.digest, True

    def add_history(
        self, caller: Caller, repository: RepositoryName, tag: Tag, bodies: Sequence[bytes]
    ) -> tuple[Digest, bool]:
        """Record the statements whose envelopes are ``bodies``, oldest first, all or none; as ``put`` for the last.

        Raises:
            SequenceUsed: if they do not follow the present one, or one another.
            PqregError: as ``put``, except for what has expired.
        """
        with self._catalogue.reading() as session:
            given = [_read(session, repository, tag, body) for body in bodies]
        now = self._clock()
        with self._catalogue.writing() as session:
            row = find_repository(session, repository, lock=True)
            added = [
                (statement, received) for statement, received in given if not is_recorded(session, received.digest)
            ]
            for statement, received in added:
                require_issued("the tag statement", statement.issued, now)
                self._require_next(session, row, statement)
                _write(session, caller, row, statement, received, now)
            if added:
                self._require_target(session, row, added[-1][0])
        return given[-1][1].digest, bool(added)

    def _require_next(self, session: Session, row: RepositoryRow, statement: TagStatement) -> None:
        current = session.get(TagRow, (row.id, str(statement.tag)))
        sequence = 0 if current is None else current.sequence
        previous = None if current is None else Digest(current.statement)
        if (statement.sequence, statement.previous) != (sequence + 1, previous):
            raise SequenceUsed(
                f"the statement is not the next one of tag {statement.tag}",
                expected=f"sequence {sequence + 1} after {previous or 'none'}",
                found=f"sequence {statement.sequence} after {statement.previous or 'none'}",
                hint="read the tag again and sign the statement that follows it",
            )

    def _require_target(self, session: Session, row: RepositoryRow, statement: TagStatement) -> None:
        if statement.target is None:
            return
        query = select(ReleaseRow.id).where(
            ReleaseRow.digest == statement.target.hex, ReleaseRow.repository_id == row.id
        )
        if session.scalars(query).first() is None:
            raise Conflict(
                f"the tag's target is not a release of {statement.repository}",
                found=statement.target,
                hint="commit the release first",
            )


def _read(session: Session, repository: RepositoryName, tag: Tag, body: bytes) -> tuple[TagStatement, Received]:
    """The statement in an envelope that an identity of the namespace signed, about this tag."""
    envelope = Envelope.parse(body)
    genuine = genuine_signers(session, repository.namespace, envelope)
    statement = TagStatement.parse(envelope.payload)
    require_signer(statement.signer, genuine)
    if (statement.repository, statement.tag) != (repository, tag):
        raise NameMismatch(
            "the statement is about another tag",
            expected=f"{repository}:{tag}",
            found=f"{statement.repository}:{statement.tag}",
        )
    received = Received(
        kind=TAG,
        digest=envelope.payload_digest,
        signer=statement.signer,
        envelope=body,
        tag=str(tag),
        sequence=statement.sequence,
    )
    return statement, received


def _require_current(statement: TagStatement, now: datetime) -> None:
    if is_expired(now, statement.expires):
        raise TagExpired("the tag statement has expired", expected=f"expiry after {format_instant(now)}",
                         found=format_instant(statement.expires))  # fmt: skip
    require_issued("the tag statement", statement.issued, now)


def _write(
    session: Session, caller: Caller, row: RepositoryRow, statement: TagStatement, received: Received, now: datetime
) -> None:
    record_statement(session, received, row, now)
    session.merge(
        TagRow(
            repository_id=row.id,
            tag=str(statement.tag),
            sequence=statement.sequence,
            statement=received.digest.hex,
            target=None if statement.target is None else statement.target.hex,
            signer=statement.signer,
            issued=statement.issued,
            expires=statement.expires,
        )
    )
    row.updated = now
    action = audit.Action.TAG_WITHDRAWN if statement.target is None else audit.Action.TAG_SET
    audit.record(
        session, caller, now, action, f"{statement.repository}:{statement.tag}",
        sequence=statement.sequence, signer=statement.signer,
        target=None if statement.target is None else str(statement.target),
    )  # fmt: skip
