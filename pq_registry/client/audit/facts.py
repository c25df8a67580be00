# SPDX-License-Identifier: Apache-2.0
"""What a logged statement says, reduced to what an audit has to remember of it.

A fact is small and of one shape for all kinds, so that histories can be compared without the statements at hand.
``subject`` is what the statements of one chain have in common: ``ns/name:tag``, ``ns/name@release/recipient``, the
namespace of a status; for a release its repository and for a certificate the namespace. Names are in lower case, as
they are compared; tags are not.
"""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.grant import GrantStatement
from pq_registry.format.instant import format_instant
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.status import Revocation, StatusStatement
from pq_registry.format.tag import TagStatement

Statement = TagStatement | GrantStatement | KeyStatement | StatusStatement | Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One statement: who, about what, and its place in a chain.

    ``target`` is the release of a tag or grant, and None where a tag or grant is withdrawn; ``recipient`` that of a
    grant or certificate; ``until`` when it ends, if it does.
    """

    kind: Kind
    name: str
    signer: str
    subject: str
    sequence: int | None = None
    previous: Digest | None = None
    target: Digest | None = None
    recipient: str | None = None
    issued: str | None = None
    until: str | None = None
    revoked: tuple[Revocation, ...] = ()


def read_statement(kind: Kind, payload: bytes) -> Statement:
    """Parse a statement of every kind but release, whose facts are in its manifest.

    Raises:
        FormatError, StatementMismatch: if ``payload`` is not a statement of that kind.
    """
    if kind is Kind.TAG:
        return TagStatement.parse(payload)
    if kind is Kind.GRANT:
        return GrantStatement.parse(payload)
    if kind is Kind.KEY:
        return KeyStatement.parse(payload)
    if kind is Kind.STATUS:
        return StatusStatement.parse(payload)
    raise FormatError(f"statements of kind {kind.value} are not known to this version", hint="use a newer version")


def fact_of(statement: Statement, payload: Digest) -> Fact:
    """What a statement says; ``payload`` is the digest of its payload, for a release the release's digest."""
    if isinstance(statement, Manifest):
        repository = statement.name
        return Fact(kind=Kind.RELEASE, name=str(repository), signer=statement.signer, subject=repository.key,
                    target=payload, issued=format_instant(statement.created))  # fmt: skip
    if isinstance(statement, TagStatement):
        return Fact(
            kind=Kind.TAG,
            name=str(statement.repository),
            signer=statement.signer,
            subject=f"{statement.repository.key}:{statement.tag}",
            sequence=statement.sequence,
            previous=statement.previous,
            target=statement.target,
            issued=format_instant(statement.issued),
            until=format_instant(statement.expires),
        )
    if isinstance(statement, GrantStatement):
        return Fact(
            kind=Kind.GRANT,
            name=str(statement.repository),
            signer=statement.signer,
            subject=_grant_subject(statement.repository, statement.release, statement.recipient),
            sequence=statement.sequence,
            previous=statement.previous,
            target=None if statement.withdrawn else statement.release,
            recipient=statement.recipient,
            issued=format_instant(statement.issued),
            until=None if statement.expires is None else format_instant(statement.expires),
        )
    if isinstance(statement, KeyStatement):
        return Fact(
            kind=Kind.KEY,
            name=str(statement.namespace),
            signer=statement.signer,
            subject=statement.namespace.key,
            recipient=statement.recipient,
            issued=format_instant(statement.issued),
            until=None if statement.not_after is None else format_instant(statement.not_after),
        )
    return Fact(
        kind=Kind.STATUS,
        name=str(statement.namespace),
        signer=statement.signer,
        subject=statement.namespace.key,
        sequence=statement.sequence,
        previous=statement.previous,
        issued=format_instant(statement.issued),
        until=format_instant(statement.expires),
        revoked=statement.revoked,
    )


def _grant_subject(repository: RepositoryName, release: Digest, recipient: str) -> str:
    return f"{repository.key}@{release}/{recipient}"
