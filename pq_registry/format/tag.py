# SPDX-License-Identifier: Apache-2.0
"""The tag statement: where a tag points, from when, until when, and after which statement before it.

The statements of one tag are a hash chain: ``sequence`` counts from 1 and ``previous`` is the payload digest of the
statement before. A statement without a target withdraws the tag; there must have been one to withdraw. The in-toto
subject repeats name and target (or ``previous``, when there is none), and must agree with the predicate.

Whether a statement is fresh, and whether its signer may sign for the repository, is the verifier's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, StatementMismatch
from pq_registry.format.chain import check_lifetime, check_link
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.statement import TAG_PREDICATE, encode_statement, take_predicate, take_subject


@dataclass(frozen=True, slots=True, kw_only=True)
class TagStatement:
    """One position of a tag."""

    repository: RepositoryName
    tag: Tag
    signer: str
    sequence: int
    previous: Digest | None
    target: Digest | None
    issued: datetime
    expires: datetime

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the rule that is broken.
        """
        parse_identity_id(self.signer)
        check_lifetime("the tag statement", self.issued, self.expires)
        check_link("the tag statement", sequence=self.sequence, previous=self.previous)
        if self.target is None and self.previous is None:
            raise FormatError("the tag statement withdraws a tag that never was", expected="a target for sequence 1")

    @property
    def subject(self) -> Digest:
        """The digest of the in-toto subject."""
        digest = self.previous if self.target is None else self.target
        assert digest is not None  # __post_init__
        return digest

    def encode(self) -> bytes:
        """The payload: the exact bytes that are signed."""
        return encode_statement(
            TAG_PREDICATE,
            f"{self.repository}:{self.tag}",
            self.subject,
            {
                "expires": format_instant(self.expires),
                "issued": format_instant(self.issued),
                "previous": None if self.previous is None else str(self.previous),
                "sequence": self.sequence,
                "signer": self.signer,
                "target": None if self.target is None else str(self.target),
            },
        )

    @classmethod
    def parse(cls, payload: bytes) -> TagStatement:
        """Read a tag statement; ``parse(payload).encode() == payload``.

        Raises:
            FormatError: if ``payload`` is not a statement of exactly our form.
            StatementMismatch: if it is of another predicate type, or subject and predicate disagree.
        """
        subject, predicate = take_predicate(
            payload, TAG_PREDICATE, what="the tag statement", limit=limits.TAG_STATEMENT_BYTES
        )
        name, digest = take_subject(subject)
        repository, tag = _parse_subject_name(name)
        statement = cls(
            repository=repository,
            tag=tag,
            signer=predicate.parsed("signer", parse_identity_id),
            sequence=predicate.integer("sequence", minimum=1),
            previous=predicate.optional("previous", Digest.parse),
            target=predicate.optional("target", Digest.parse),
            issued=predicate.parsed("issued", parse_instant),
            expires=predicate.parsed("expires", parse_instant),
        )
        predicate.done()
        if digest != statement.subject:
            raise StatementMismatch(
                "subject and predicate of the tag statement disagree", expected=statement.subject, found=digest
            )
        return statement


def _parse_subject_name(name: str) -> tuple[RepositoryName, Tag]:
    # partition, not Reference.parse: a reference may leave the tag out or add a digest, a subject may not.
    repository, _, tag = name.partition(":")
    try:
        return RepositoryName.parse(repository), Tag(tag)
    except NameSyntaxError as error:
        raise FormatError(
            f"the tag statement's subject: {error.message}", expected="namespace/name:tag", found=error.found
        ) from None
