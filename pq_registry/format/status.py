# SPDX-License-Identifier: Apache-2.0
"""The status statement: what a namespace has revoked, from when, and until when this news is good.

The statements of one namespace are a hash chain: ``sequence`` counts from 1 and ``previous`` is the payload digest of
the statement before. The list is complete and only grows: ``extends`` says whether a statement keeps every entry of an
earlier one, where ``from`` may move to an earlier time and never to a later one. A revocation is not taken back.

Whether the signer may revoke for the namespace, and what a revocation means for a release, is the verifier's business
(docs/spec/status.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import pairwise

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, StatementMismatch
from pq_registry.format.chain import check_lifetime, check_link
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id, parse_recipient_id
from pq_registry.format.instant import check_instant, format_instant, parse_instant
from pq_registry.format.name import Namespace
from pq_registry.format.statement import STATUS_PREDICATE, encode_statement, take_predicate, take_subject
from pq_registry.format.strict_json import Fields, Value


class RevocationKind(StrEnum):
    """What can be revoked."""

    IDENTITY = "identity"
    RELEASE = "release"
    RECIPIENT = "recipient"
    GRANT = "grant"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry: an identity's or recipient's id, or a release's or grant's digest, and since when."""

    kind: RevocationKind
    subject: str
    since: datetime

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if ``since`` is not an instant or an id is malformed.
            NameSyntaxError: if a digest is malformed.
        """
        check_instant(self.since, "a revocation's field 'from'")
        if self.kind is RevocationKind.IDENTITY:
            parse_identity_id(self.subject)
        elif self.kind is RevocationKind.RECIPIENT:
            parse_recipient_id(self.subject)
        else:
            Digest.parse(self.subject)

    @property
    def key(self) -> tuple[str, str]:
        """What is revoked; entries are sorted by it, and each stands once."""
        return self.kind.value, self.subject

    def to_json(self) -> dict[str, Value]:
        """The entry as it stands in the statement."""
        return {self.kind.value: self.subject, "from": format_instant(self.since)}

    @classmethod
    def take(cls, fields: Fields) -> Revocation:
        """Read an entry.

        Raises:
            FormatError: if it is none, or revokes more than one thing.
        """
        since = fields.parsed("from", parse_instant)
        kind = next((kind for kind in RevocationKind if fields.has(kind.value)), None)
        if kind is None:
            raise FormatError(
                f"{fields.where}: revokes nothing known",
                expected="one of " + ", ".join(kind.value for kind in RevocationKind),
            )
        entry = fields.parsed(kind.value, partial(cls, kind, since=since))
        fields.done()
        return entry


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusStatement:
    """The state of a namespace's revocations."""

    namespace: Namespace
    signer: str
    sequence: int
    previous: Digest | None
    revoked: tuple[Revocation, ...]
    issued: datetime
    expires: datetime

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.signer)
        check_lifetime("the status statement", self.issued, self.expires)
        check_link("the status statement", sequence=self.sequence, previous=self.previous)
        if len(self.revoked) > limits.REVOCATIONS:
            raise FormatError(
                "the status statement revokes too much",
                expected=f"at most {limits.REVOCATIONS} entries",
                found=len(self.revoked),
            )
        for one, next_one in pairwise(self.revoked):
            if one.key >= next_one.key:
                raise FormatError(
                    "the status statement's entries are not sorted",
                    expected="sorted by kind and subject, each once",
                    found=f"{one.key} before {next_one.key}",
                )

    @property
    def subject(self) -> Digest:
        """The digest of the in-toto subject: of the namespace's name, in lower case."""
        return Digest.of(self.namespace.key.encode("utf-8"))

    def extends(self, previous: StatusStatement) -> bool:
        """Whether this keeps every entry of ``previous`` (same namespace), from the same time or earlier."""
        since = {entry.key: entry.since for entry in self.revoked}
        return self.namespace.key == previous.namespace.key and all(
            entry.key in since and since[entry.key] <= entry.since for entry in previous.revoked
        )

    def encode(self) -> bytes:
        """The payload: the exact bytes that are signed."""
        return encode_statement(
            STATUS_PREDICATE,
            str(self.namespace),
            self.subject,
            {
                "expires": format_instant(self.expires),
                "issued": format_instant(self.issued),
                "previous": None if self.previous is None else str(self.previous),
                "revoked": [entry.to_json() for entry in self.revoked],
                "sequence": self.sequence,
                "signer": self.signer,
            },
        )

    @classmethod
    def parse(cls, payload: bytes) -> StatusStatement:
        """Read a status statement; ``parse(payload).encode() == payload``.

        Raises:
            FormatError: if ``payload`` is not a statement of exactly our form.
            StatementMismatch: if it is of another predicate type, or its subject is not the namespace's.
        """
        subject, predicate = take_predicate(
            payload, STATUS_PREDICATE, what="the status statement", limit=limits.STATUS_STATEMENT_BYTES
        )
        name, digest = take_subject(subject)
        try:
            namespace = Namespace(name)
        except NameSyntaxError as error:
            raise FormatError(
                f"the status statement's subject: {error.message}", expected=error.expected, found=error.found
            ) from None
        statement = cls(
            namespace=namespace,
            signer=predicate.parsed("signer", parse_identity_id),
            sequence=predicate.integer("sequence", minimum=1),
            previous=predicate.optional("previous", Digest.parse),
            revoked=tuple(Revocation.take(entry) for entry in predicate.objects("revoked", limit=limits.REVOCATIONS)),
            issued=predicate.parsed("issued", parse_instant),
            expires=predicate.parsed("expires", parse_instant),
        )
        predicate.done()
        if digest != statement.subject:
            raise StatementMismatch(
                "the status statement's subject is not its namespace", expected=statement.subject, found=digest
            )
        return statement
