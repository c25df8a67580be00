# SPDX-License-Identifier: Apache-2.0
"""Which identities may publish in a namespace, as far as this service is concerned.

This is a guard against spam and mistakes, not a root of trust: clients believe their trust file. An identity may be
registered in several namespaces; none of its halves may occur in another identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.signing import signers_of
from pq_registry.errors import AccessDenied, Conflict, UntrustedSigner
from pq_registry.format.dsse import Envelope
from pq_registry.format.name import Namespace
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.names import find_namespace, obtain_namespace
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import IdentityRow, NamespaceIdentityRow


@dataclass(frozen=True, slots=True)
class RegisteredIdentity:
    """An identity as it is listed: its id and its public file."""

    id: str
    public: str


class Identities:
    """Listing and registering identities."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock

    def list(self, namespace: Namespace) -> list[RegisteredIdentity]:
        """The namespace's identities, in order of registration; none for a namespace that does not exist."""
        with self._catalogue.reading() as session:
            row = find_namespace(session, namespace)
            if row is None:
                return []
            found = session.scalars(
                select(IdentityRow)
                .join(NamespaceIdentityRow, NamespaceIdentityRow.identity_id == IdentityRow.id)
                .where(NamespaceIdentityRow.namespace_id == row.id)
                .order_by(NamespaceIdentityRow.registered, IdentityRow.id)
            ).all()
            return [RegisteredIdentity(identity.id, identity.public) for identity in found]

    def register(self, caller: Caller, namespace: Namespace, public: PublicIdentity) -> bool:
        """Let an identity publish in the namespace; answers False if it already could.

        Raises:
            Conflict: if a half belongs to another identity, or the namespace has as many as a trust file may name.
        """
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_namespace(session, namespace, now)
            if session.get(NamespaceIdentityRow, (row.id, public.id)) is not None:
                return False
            registered = select(func.count()).where(NamespaceIdentityRow.namespace_id == row.id)
            if session.scalars(registered).one() >= limits.NAMESPACE_IDENTITIES:
                raise Conflict(
                    f"{namespace} has too many identities", expected=f"at most {limits.NAMESPACE_IDENTITIES}"
                )
            if session.get(IdentityRow, public.id) is None:
                _add_identity(session, public, now)
            session.add(NamespaceIdentityRow(namespace_id=row.id, identity_id=public.id, registered=now))
            audit.record(session, caller, now, audit.Action.IDENTITY_REGISTERED, namespace, identity=public.id)
        return True


def genuine_signers(session: Session, namespace: Namespace, envelope: Envelope) -> frozenset[str]:
    """Ids of the namespace's identities that signed ``envelope``; nothing of its payload is parsed.

    Raises:
        SignatureInvalid: if only one half of a signature verifies.
        AccessDenied: if no identity registered for the namespace signed it.
    """
    row = find_namespace(session, namespace)
    registered = (
        []
        if row is None
        else session.scalars(
            select(IdentityRow.public)
            .join(NamespaceIdentityRow, NamespaceIdentityRow.identity_id == IdentityRow.id)
            .where(NamespaceIdentityRow.namespace_id == row.id)
        ).all()
    )
    candidates = [PublicIdentity.from_pem(public.encode("ascii")) for public in registered]
    try:
        genuine = signers_of(envelope, candidates, among=f"the identities registered for {namespace}")
    except UntrustedSigner as error:
        raise AccessDenied(
            f"the signer is not registered for {namespace}",
            expected="a signature by an identity registered for the namespace",
            found=error.found,
            hint=f"an owner of {namespace} registers it; pqreg push does so with an owner's token",
        ) from None
    return frozenset(identity.id for identity in genuine)


def require_signer(signer: str, genuine: frozenset[str]) -> None:
    """Check that the signer a payload names is one of those who signed it.

    Raises:
        AccessDenied: if it is not.
    """
    if signer not in genuine:
        raise AccessDenied(
            "the statement names another signer than the one who signed it",
            expected=", ".join(sorted(genuine)),
            found=signer,
        )


def _add_identity(session: Session, public: PublicIdentity, now: datetime) -> None:
    ec_half, pq_half = public.half_ids
    taken = select(IdentityRow.id).where(or_(IdentityRow.ec_half == ec_half, IdentityRow.pq_half == pq_half))
    if session.scalars(taken).first() is not None:
        raise Conflict(
            "a half of this identity belongs to another identity",
            expected="a pair of keys of its own",
            hint="generate a new identity: pqreg key generate",
        )
    session.add(
        IdentityRow(
            id=public.id,
            public=public.to_pem().decode("ascii"),
            ec_half=ec_half,
            pq_half=pq_half,
            created=now,
        )
    )
    session.flush()
