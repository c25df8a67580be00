# SPDX-License-Identifier: Apache-2.0
"""The grant statement: one recipient may read one sealed release, or no longer (docs/spec/grants.md).

``wrapped`` is the release's content key under the recipient's public key (``crypto.recipient``); null withdraws. The
statements about one release and one recipient are a hash chain like a tag's: ``sequence`` counts from 1, ``previous``
is the payload digest of the statement before, and there must have been a grant to withdraw. The in-toto subject is the
repository with the release digest. Nothing names an algorithm: it belongs to the recipient's key.

What the wrapped bytes hold, whether the grant is in force, and whether its signer may grant, is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.chain import check_lifetime, check_link
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id, parse_recipient_id
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.name import RepositoryName
from pq_registry.format.recipientfile import Kem
from pq_registry.format.statement import GRANT_PREDICATE, encode_statement, take_predicate, take_subject
from pq_registry.format.strict_json import encode_base64

_WRAPPED_BYTES: Final = tuple(sorted(kem.wrapped_bytes for kem in Kem))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantStatement:
    """One position of a recipient's access to a release."""

    repository: RepositoryName
    release: Digest
    signer: str
    recipient: str
    sequence: int
    previous: Digest | None
    wrapped: bytes | None
    issued: datetime
    expires: datetime | None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.signer)
        parse_recipient_id(self.recipient)
        check_lifetime("the grant", self.issued, self.expires)
        check_link("the grant", sequence=self.sequence, previous=self.previous)
        if self.wrapped is None:
            if self.previous is None or self.expires is not None:
                raise FormatError(
                    "the statement withdraws a grant in an impossible way",
                    expected="a sequence above 1, and expires: null",
                    found=f"sequence {self.sequence}, expires {self.expires}",
                )
        elif len(self.wrapped) not in _WRAPPED_BYTES:
            raise FormatError(
                "the wrapped content key has a wrong length",
                expected=" or ".join(f"{size} bytes" for size in _WRAPPED_BYTES),
                found=f"{len(self.wrapped)} bytes",
            )

    @property
    def withdrawn(self) -> bool:
        """Whether the statement takes the grant back."""
        return self.wrapped is None

    def encode(self) -> bytes:
        """The payload: the exact bytes that are signed."""
        return encode_statement(
            GRANT_PREDICATE,
            str(self.repository),
            self.release,
            {
                "expires": None if self.expires is None else format_instant(self.expires),
                "issued": format_instant(self.issued),
                "previous": None if self.previous is None else str(self.previous),
                "recipient": self.recipient,
                "sequence": self.sequence,
                "signer": self.signer,
                "wrapped": None if self.wrapped is None else encode_base64(self.wrapped),
            },
        )

    @classmethod
    def parse(cls, payload: bytes) -> GrantStatement:
        """Read a grant statement; ``parse(payload).encode() == payload``.

        Raises:
            FormatError: if ``payload`` is not a statement of exactly our form.
            StatementMismatch: if it is of another predicate type.
        """
        subject, predicate = take_predicate(
            payload, GRANT_PREDICATE, what="the grant statement", limit=limits.GRANT_STATEMENT_BYTES
        )
        name, release = take_subject(subject)
        statement = cls(
            repository=_parse_subject_name(name),
            release=release,
            signer=predicate.parsed("signer", parse_identity_id),
            recipient=predicate.parsed("recipient", parse_recipient_id),
            sequence=predicate.integer("sequence", minimum=1),
            previous=predicate.optional("previous", Digest.parse),
            wrapped=predicate.optional_base64("wrapped", limit=max(_WRAPPED_BYTES)),
            issued=predicate.parsed("issued", parse_instant),
            expires=predicate.optional("expires", parse_instant),
        )
        predicate.done()
        return statement


def _parse_subject_name(name: str) -> RepositoryName:
    try:
        return RepositoryName.parse(name)
    except NameSyntaxError as error:
        raise FormatError(
            f"the grant's subject: {error.message}", expected="namespace/name", found=error.found
        ) from None
