# SPDX-License-Identifier: Apache-2.0
"""fsck's fourth part: what the catalogue says of tags, grants, keys and statuses against their statements.

* The statements of a tag, those about one release and one recipient, and the statuses of a namespace are an unbroken
  chain, recorded under the name, release, recipient and sequence they state. The catalogue's entry repeats the last
  one. The target a tag has now is a release of the repository, and what is granted a sealed one. A status keeps what
  the one before it revoked.
* A key statement is recorded under the namespace and recipient it states; the entry repeats one that no other is newer
  than.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pq_registry.errors import PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.grant import GrantStatement
from pq_registry.format.keystatement import KeyStatement
from pq_registry.format.leaf import Kind
from pq_registry.format.status import StatusStatement
from pq_registry.format.tag import TagStatement
from pq_registry.storage.catalogue.tables import (
    GrantRow,
    KeyRow,
    NamespaceRow,
    ReleaseRow,
    RepositoryRow,
    StatementRow,
    StatusRow,
    TagRow,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. Notes waste space; everything else is damage.

    ``blob`` is the blob whose bytes or row are damaged, for whoever repairs (``storage.repair``); ``lost`` says that
    its bytes are not what stands in its place: it must not be served.
    """

    subject: str
    problem: str
    note: bool = False
    blob: Digest | None = None
    lost: bool = False


class _Chained(Protocol):
    @property
    def sequence(self) -> int: ...

    @property
    def previous(self) -> Digest | None: ...


S = TypeVar("S")
C = TypeVar("C", bound=_Chained)


@dataclass(frozen=True, slots=True)
class _Stated(Generic[S]):
    """A statement that could be read, and where it is recorded."""

    key: tuple[Hashable, ...]
    subject: str
    row: StatementRow
    owner: str
    statement: S
    digest: Digest


def check_chains(session: Session) -> Iterator[Finding]:
    """Compare every tag, grant, key and status with its statements; answers what does not fit."""
    rows = session.execute(select(ReleaseRow.repository_id, ReleaseRow.digest, ReleaseRow.sealed))
    releases = {(repository_id, digest): sealed for repository_id, digest, sealed in rows}
    yield from _tags(session, releases)
    yield from _grants(session, releases)
    yield from _keys(session)
    yield from _statuses(session)


def _tags(session: Session, releases: dict[tuple[int, str], bool]) -> Iterator[Finding]:
    last: dict[tuple[Hashable, ...], _Stated[TagStatement]] = {}
    astray: list[_Stated[TagStatement]] = []
    for found in _of_repositories(session, StatementRow.tag.is_not(None), TagStatement.parse):
        if isinstance(found, Finding):
            yield found
            continue
        statement, row = found.statement, found.row
        recorded = (found.owner, row.tag, row.sequence)
        if (str(statement.repository), str(statement.tag), statement.sequence) != recorded:
            yield Finding(found.subject, "it is recorded under another name or sequence")
        yield from _follow(last, found)
        if statement.target is not None and (row.repository_id, statement.target.hex) not in releases:
            astray.append(found)
    for stated in astray:
        # Where a tag pointed once need not be here: a replica keeps the history, and not what was revoked before it.
        past = last[stated.key] is not stated
        yield Finding(stated.subject, f"its target {stated.statement.target} is not a release of the repository", past)
    named = select(TagRow, RepositoryRow.name).join(RepositoryRow, RepositoryRow.id == TagRow.repository_id)
    for tag, name in session.execute(named):
        now = last.pop((tag.repository_id, tag.tag, None, None), None)
        entry = (tag.sequence, tag.statement, tag.target, tag.signer, tag.issued, tag.expires)
        if now is None or entry != _tag_entry(now):
            yield Finding(f"tag {tag.tag} of {name}", "it does not repeat its last statement")
    yield from (Finding(stated.subject, "it has statements but no entry") for stated in last.values())


def _tag_entry(stated: _Stated[TagStatement]) -> tuple[object, ...]:
    statement = stated.statement
    target = None if statement.target is None else statement.target.hex
    return (
        statement.sequence, stated.digest.hex, target, statement.signer, statement.issued, statement.expires,
    )  # fmt: skip


def _grants(session: Session, releases: dict[tuple[int, str], bool]) -> Iterator[Finding]:
    last: dict[tuple[Hashable, ...], _Stated[GrantStatement]] = {}
    for found in _of_repositories(session, StatementRow.recipient.is_not(None), GrantStatement.parse):
        if isinstance(found, Finding):
            yield found
            continue
        statement, row = found.statement, found.row
        recorded = (found.owner, row.release_digest, row.recipient, row.sequence, row.signer)
        stated = (str(statement.repository), statement.release.hex, statement.recipient)
        if (*stated, statement.sequence, statement.signer) != recorded:
            yield Finding(found.subject, "it is recorded under another release, recipient, sequence or signer")
        yield from _follow(last, found)
        if not releases.get((row.repository_id or 0, statement.release.hex), False):
            yield Finding(found.subject, f"{statement.release} is not a sealed release of the repository")
    for grant in session.scalars(select(GrantRow)):
        now = last.pop((grant.repository_id, None, grant.release_digest, grant.recipient), None)
        entry = (grant.sequence, grant.statement, grant.withdrawn, grant.signer, grant.issued, grant.expires)
        if now is None or entry != _grant_entry(now):
            subject = f"grant of sha256:{grant.release_digest} for {grant.recipient}"
            yield Finding(subject, "it does not repeat its last statement")
    yield from (Finding(stated.subject, "it has statements but no entry") for stated in last.values())


def _grant_entry(stated: _Stated[GrantStatement]) -> tuple[object, ...]:
    statement = stated.statement
    return (
        statement.sequence, stated.digest.hex, statement.withdrawn, statement.signer, statement.issued,
        statement.expires,
    )  # fmt: skip


def _keys(session: Session) -> Iterator[Finding]:
    known: dict[tuple[int, str], list[_Stated[KeyStatement]]] = {}
    for found in _of_namespaces(session, StatementRow.kind != Kind.STATUS.value, KeyStatement.parse):
        if isinstance(found, Finding):
            yield found
            continue
        statement, row, name = found.statement, found.row, found.owner
        if (str(statement.namespace), statement.recipient, statement.signer) != (name, row.recipient, row.signer):
            yield Finding(found.subject, "it is recorded under another namespace, recipient or signer")
        known.setdefault((row.namespace_id, row.recipient or ""), []).append(found)
    for key in session.scalars(select(KeyRow)):
        stated = known.pop((key.namespace_id, key.recipient), [])
        newest = max((one.statement.issued for one in stated), default=None)
        entry = (key.statement, key.node, key.signer, key.issued, key.not_after)
        if entry not in [_key_entry(one) for one in stated if one.statement.issued == newest]:
            yield Finding(f"key {key.recipient}", "it does not repeat its newest statement")
    yield from (Finding(stated[0].subject, "it has statements but no entry") for stated in known.values())


def _key_entry(stated: _Stated[KeyStatement]) -> tuple[object, ...]:
    statement = stated.statement
    return stated.digest.hex, statement.node, statement.signer, statement.issued, statement.not_after


def _statuses(session: Session) -> Iterator[Finding]:
    last: dict[tuple[Hashable, ...], _Stated[StatusStatement]] = {}
    for found in _of_namespaces(session, StatementRow.kind == Kind.STATUS.value, StatusStatement.parse):
        if isinstance(found, Finding):
            yield found
            continue
        statement, row = found.statement, found.row
        if (str(statement.namespace), statement.sequence, statement.signer) != (found.owner, row.sequence, row.signer):
            yield Finding(found.subject, "it is recorded under another namespace, sequence or signer")
        before = last.get(found.key)
        if before is not None and not statement.extends(before.statement):
            yield Finding(found.subject, "it takes back what the statement before it revoked")
        yield from _follow(last, found)
    for status in session.scalars(select(StatusRow)):
        now = last.pop((status.namespace_id,), None)
        entry = (status.sequence, status.statement, status.signer, status.issued, status.expires)
        if now is None or entry != _status_entry(now):
            yield Finding(f"status of namespace {status.namespace_id}", "it does not repeat its last statement")
    yield from (Finding(stated.subject, "it has statements but no entry") for stated in last.values())


def _status_entry(stated: _Stated[StatusStatement]) -> tuple[object, ...]:
    statement = stated.statement
    return statement.sequence, stated.digest.hex, statement.signer, statement.issued, statement.expires


def _of_namespaces(
    session: Session, among: ColumnElement[bool], parse: Callable[[bytes], S]
) -> Iterator[_Stated[S] | Finding]:
    """The statements about a namespace as a whole, in the order of its chain where they have one."""
    query = (
        select(StatementRow, NamespaceRow.name)
        .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
        .where(StatementRow.repository_id.is_(None), among)
        .order_by(StatementRow.namespace_id, StatementRow.sequence)
        .execution_options(yield_per=16)
    )
    for row, name in session.execute(query):
        what = f"status of {name} statement {row.sequence}"
        if row.recipient is not None:
            what = f"key {name}/{row.recipient} statement sha256:{row.digest}"
        yield _read(row, name, (row.namespace_id,), what, parse)


def _of_repositories(
    session: Session, among: ColumnElement[bool], parse: Callable[[bytes], S]
) -> Iterator[_Stated[S] | Finding]:
    """The statements of a kind, in the order of their chains."""
    query = (
        select(StatementRow, RepositoryRow.name)
        .join(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
        .where(among)
        .order_by(
            StatementRow.repository_id,
            StatementRow.tag,
            StatementRow.release_digest,
            StatementRow.recipient,
            StatementRow.sequence,
        )
        .execution_options(yield_per=16)
    )
    for row, name in session.execute(query):
        what = f"tag {name}:{row.tag}"
        if row.tag is None:
            what = f"grant of {name}@sha256:{row.release_digest} for {row.recipient}"
        key = (row.repository_id, row.tag, row.release_digest, row.recipient)
        yield _read(row, name, key, f"{what} statement {row.sequence}", parse)


def _read(
    row: StatementRow, owner: str, key: tuple[Hashable, ...], subject: str, parse: Callable[[bytes], S]
) -> _Stated[S] | Finding:
    try:
        envelope = Envelope.parse(row.envelope)
        return _Stated(key, subject, row, owner, parse(envelope.payload), envelope.payload_digest)
    except PqregError as error:
        return Finding(subject, str(error))


def _follow(last: dict[tuple[Hashable, ...], _Stated[C]], found: _Stated[C]) -> Iterator[Finding]:
    before = last.get(found.key)
    expected = (1, None) if before is None else (before.statement.sequence + 1, before.digest)
    if (found.statement.sequence, found.statement.previous) != expected:
        yield Finding(found.subject, "it does not follow the statement before it")
    last[found.key] = found
