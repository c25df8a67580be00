# SPDX-License-Identifier: Apache-2.0
"""Keeping statuses: of each namespace one chain of signed statements about what is revoked.

The service refuses a statement that no identity registered for the namespace signed, that is not the next one of the
chain (sequence and hash of the one before), that takes a revocation back, or that has expired or was issued in the
future. The same payload sent again is fine. Whether the signer may revoke is said in the trust files of readers, who
need not believe what this service lists; that the list only grows, they check too. A history is several statements at
once, which may have expired (``service.tags``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pq_registry.errors import NameMismatch, NotFound, SequenceUsed, StatusExpired, StatusRollback
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.leaf import Kind
from pq_registry.format.name import Namespace
from pq_registry.format.status import StatusStatement
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.identities import genuine_signers, require_signer
from pq_registry.service.names import find_namespace, obtain_namespace
from pq_registry.service.statements import Received, is_recorded, record_statement, require_issued
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import NamespaceRow, StatementRow, StatusRow


class Statuses:
    """Keeps status statements, and hands them out as they came."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def envelope(self, namespace: Namespace) -> tuple[Digest, bytes]:
        """The newest status statement of a namespace: payload digest and exact envelope.

        Raises:
            NotFound: if there is none.
        """
        with self._catalogue.reading() as session:
            owner = find_namespace(session, namespace)
            row = None if owner is None else session.get(StatusRow, owner.id)
            statement = None if row is None else session.get(StatementRow, row.statement)
            if statement is None:
                raise NotFound(f"no status of {namespace}")
            return Digest(statement.digest), statement.envelope

    def put(self, caller: Caller, namespace: Namespace, body: bytes) -> tuple[Digest, bool]:
        """Record the status statement whose envelope is ``body``; answers its digest and whether it is new.

        Raises:
            FormatError: if a document is not what its specification says.
            VerificationError: if the statement is another namespace's, expired, or not signed as it must be.
            AccessDenied: if the signer is not registered for the namespace.
            SequenceUsed: if it is not the next statement of this namespace.
            StatusRollback: if it takes a revocation back.
        """
        with self._catalogue.reading() as session:
            statement, received = _read(session, namespace, body)
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_namespace(session, namespace, now)
            if is_recorded(session, received.digest):
                return received.digest, False
            _require_current(statement, now)
            _require_next(session, row, statement)
            _write(session, caller, row, statement, received, now)
        return received.digest, True

    def add_history(self, caller: Caller, namespace: Namespace, bodies: Sequence[bytes]) -> tuple[Digest, bool]:
        """Record the statements whose envelopes are ``bodies``, oldest first, all or none; as ``put`` for the last.

        Raises:
            SequenceUsed: if they do not follow the present one, or one another.
            PqregError: as ``put``, except for what has expired.
        """
        with self._catalogue.reading() as session:
            given = [_read(session, namespace, body) for body in bodies]
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_namespace(session, namespace, now)
            added = [
                (statement, received) for statement, received in given if not is_recorded(session, received.digest)
            ]
            for statement, received in added:
                require_issued("the status statement", statement.issued, now)
                _require_next(session, row, statement)
                _write(session, caller, row, statement, received, now)
        return given[-1][1].digest, bool(added)


def _read(session: Session, namespace: Namespace, body: bytes) -> tuple[StatusStatement, Received]:
    """The statement in an envelope that an identity of the namespace signed, about this namespace."""
    envelope = Envelope.parse(body)
    genuine = genuine_signers(session, namespace, envelope)
    statement = StatusStatement.parse(envelope.payload)
    require_signer(statement.signer, genuine)
    if statement.namespace != namespace:
        raise NameMismatch("the statement is about another namespace", expected=namespace, found=statement.namespace)
    received = Received(
        kind=Kind.STATUS.value,
        digest=envelope.payload_digest,
        signer=statement.signer,
        envelope=body,
        sequence=statement.sequence,
    )
    return statement, received


def _write(
    session: Session, caller: Caller, row: NamespaceRow, statement: StatusStatement, received: Received, now: datetime
) -> None:
    record_statement(session, received, row, now)
    session.merge(_row(row, statement, received.digest))
    audit.record(
        session, caller, now, audit.Action.STATUS_ISSUED, row.name,
        sequence=statement.sequence, revoked=len(statement.revoked), signer=statement.signer,
    )  # fmt: skip


def _require_current(statement: StatusStatement, now: datetime) -> None:
    if is_expired(now, statement.expires):
        raise StatusExpired(
            "the status statement has expired",
            expected=f"expiry after {format_instant(now)}",
            found=format_instant(statement.expires),
        )
    require_issued("the status statement", statement.issued, now)


def _require_next(session: Session, row: NamespaceRow, statement: StatusStatement) -> None:
    current = session.get(StatusRow, row.id)
    sequence = 0 if current is None else current.sequence
    previous = None if current is None else Digest(current.statement)
    if (statement.sequence, statement.previous) != (sequence + 1, previous):
        raise SequenceUsed(
            f"the statement is not the next one of {row.name}",
            expected=f"sequence {sequence + 1} after {previous or 'none'}",
            found=f"sequence {statement.sequence} after {statement.previous or 'none'}",
            hint="read the status again and sign the statement that follows it",
        )
    last = None if current is None else session.get(StatementRow, current.statement)
    if last is not None and not statement.extends(StatusStatement.parse(Envelope.parse(last.envelope).payload)):
        raise StatusRollback(
            "the statement takes a revocation back, or dates it later",
            expected=f"every entry of statement {sequence}, from the same time or earlier",
            hint="what is revoked stays revoked; add to the list",
        )


def _row(owner: NamespaceRow, statement: StatusStatement, digest: Digest) -> StatusRow:
    return StatusRow(
        namespace_id=owner.id,
        sequence=statement.sequence,
        statement=digest.hex,
        signer=statement.signer,
        issued=statement.issued,
        expires=statement.expires,
    )
