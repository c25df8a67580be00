# SPDX-License-Identifier: Apache-2.0
"""Keeping key statements: signed certificates of recipients' public keys, per namespace.

The service takes one that an identity registered for the namespace signed, so that its listing is not spam. Whether
that identity may vouch for anybody is said in the trust files of those who grant, who therefore need not believe what
this service lists. Of a recipient the newest statement counts: one issued before the present one is refused, so that
an old certificate cannot take the place of what replaced it. The same payload sent again is fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.errors import Conflict, NotFound, RecipientUncertified, StatementMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.name import Namespace
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.identities import genuine_signers, require_signer
from pq_registry.service.names import find_namespace, obtain_namespace
from pq_registry.service.statements import Received, is_recorded, record_statement, require_issued
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import KeyRow, NamespaceRow, StatementRow

KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyItem:
    """The newest key statement about one recipient, in a listing."""

    recipient: str
    node: str
    statement: Digest
    not_after: datetime | None
    signer: str


class RecipientKeys:
    """Keeps key statements, and hands them out as they came."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def list(self, namespace: Namespace, *, after: str | None, limit: int) -> tuple[list[KeyItem], str | None]:
        """One page of a namespace's recipients, by id, and the ``after`` of the next page."""
        with self._catalogue.reading() as session:
            row = find_namespace(session, namespace)
            if row is None:
                return [], None
            query = select(KeyRow).where(KeyRow.namespace_id == row.id).order_by(KeyRow.recipient).limit(limit + 1)
            if after is not None:
                query = query.where(KeyRow.recipient > after)
            items = [_item(key) for key in session.scalars(query)]
        return items[:limit], items[limit - 1].recipient if len(items) > limit else None

    def envelope(self, namespace: Namespace, recipient: str) -> tuple[Digest, bytes]:
        """The newest key statement about a recipient: payload digest and exact envelope.

        Raises:
            NotFound: if there is none.
        """
        with self._catalogue.reading() as session:
            owner = find_namespace(session, namespace)
            row = None if owner is None else session.get(KeyRow, (owner.id, recipient))
            statement = None if row is None else session.get(StatementRow, row.statement)
            if statement is None:
                raise NotFound(f"no key statement about {recipient} in {namespace}")
            return Digest(statement.digest), statement.envelope

    def put(self, caller: Caller, namespace: Namespace, recipient: str, body: bytes) -> tuple[Digest, bool]:
        """Record the key statement whose envelope is ``body``; answers its digest and whether it is new.

        Raises:
            FormatError: if a document is not what its specification says, or the key is none.
            VerificationError: if the statement is about another recipient or namespace, or not signed as it must be.
            AccessDenied: if the signer is not registered for the namespace.
            RecipientUncertified: if it has lapsed.
            Conflict: if it was issued before the present one, or in the future.
        """
        envelope = Envelope.parse(body)
        with self._catalogue.reading() as session:
            genuine = genuine_signers(session, namespace, envelope)
        statement = KeyStatement.parse(envelope.payload)
        require_signer(statement.signer, genuine)
        if (statement.namespace, statement.recipient) != (namespace, recipient):
            raise StatementMismatch(
                "the statement is about another recipient or namespace",
                expected=f"{recipient} in {namespace}",
                found=f"{statement.recipient} in {statement.namespace}",
            )
        PublicRecipient(statement.kem, statement.public_key)  # what nobody can wrap for is refused already here
        received = Received(
            kind=KEY, digest=envelope.payload_digest, signer=statement.signer, envelope=body, recipient=recipient
        )
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_namespace(session, namespace, now)
            if is_recorded(session, received.digest):
                return received.digest, False
            _require_current(statement, now)
            _require_newer(session, row, statement)
            record_statement(session, received, row, now)
            session.merge(_row(row, statement, received.digest))
            audit.record(
                session, caller, now, audit.Action.KEY_CERTIFIED, namespace,
                recipient=recipient, node=statement.node, signer=statement.signer,
            )  # fmt: skip
        return received.digest, True


def _require_current(statement: KeyStatement, now: datetime) -> None:
    if statement.not_after is not None and is_expired(now, statement.not_after):
        raise RecipientUncertified(
            "the key statement has lapsed",
            expected=f"not_after later than {format_instant(now)}",
            found=format_instant(statement.not_after),
            hint="certify the key again",
        )
    require_issued("the key statement", statement.issued, now)


def _require_newer(session: Session, row: NamespaceRow, statement: KeyStatement) -> None:
    current = session.get(KeyRow, (row.id, statement.recipient))
    if current is not None and statement.issued < current.issued:
        raise Conflict(
            f"there is a newer key statement about recipient {statement.recipient}",
            expected=f"issued at {format_instant(current.issued)} or later",
            found=format_instant(statement.issued),
        )


def _row(owner: NamespaceRow, statement: KeyStatement, digest: Digest) -> KeyRow:
    return KeyRow(
        namespace_id=owner.id,
        recipient=statement.recipient,
        node=statement.node,
        statement=digest.hex,
        signer=statement.signer,
        issued=statement.issued,
        not_after=statement.not_after,
    )


def _item(row: KeyRow) -> KeyItem:
    return KeyItem(
        recipient=row.recipient,
        node=row.node,
        statement=Digest(row.statement),
        not_after=row.not_after,
        signer=row.signer,
    )
