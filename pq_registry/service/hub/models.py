# SPDX-License-Identifier: Apache-2.0
"""Models as the Hub's clients list and search them: one per repository that has anything the caller may read.

A model is shown by its main tag's release, else by its newest release, else by a draft. What is searched and filtered
for is what model cards say (``service.cards``), so drafts are listed only where nothing is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, unique
from typing import Any

from sqlalchemy import ColumnElement, UnaryExpression, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.hubjson import ModelView
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.service.access import PERMISSIONS, Caller, Permission
from pq_registry.service.cards import Card, Cards, matching
from pq_registry.service.hub.model import MAIN, Commit, Revision
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.hub.revisions import Revisions
from pq_registry.service.visible import readable_namespace
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftRow
from pq_registry.storage.catalogue.tables import NamespaceRow, ReleaseRow, RepositoryRow, TagRow

_SEPARATOR = "~"
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


@unique
class Order(StrEnum):
    """What models are sorted by; the values are the Hub's. What nobody counts here sorts by name."""

    NAME = "name"
    MODIFIED = "lastModified"
    CREATED = "createdAt"

    @classmethod
    def of(cls, sort: str | None) -> Order:
        """The order that a client asks for."""
        return next((order for order in cls if order.value == sort), cls.NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for: words, a namespace, and tags that must all be there."""

    text: str = ""
    author: str | None = None
    filters: tuple[str, ...] = ()
    order: Order = Order.NAME


class Models:
    """Lists models and says what is known about one."""

    def __init__(self, catalogue: Catalogue, revisions: Revisions, cards: Cards) -> None:
        self._catalogue = catalogue
        self._revisions = revisions
        self._cards = cards

    def page(
        self, caller: Caller, search: Search, *, after: str | None, limit: int
    ) -> tuple[list[ModelView], str | None]:
        """One page of the models the caller may read, and the ``after`` of the next page.

        Raises:
            UsageError: if more is looked for than a search may.
            FormatError: if ``after`` is none that a page ended with.
            StorageError: if the catalogue fails.
        """
        conditions = self._conditions(caller, search)
        if conditions is None:
            return [], None
        order = search.order
        query = select(RepositoryRow, _shown_release()).join(
            NamespaceRow, NamespaceRow.id == RepositoryRow.namespace_id
        )
        query = query.where(*conditions).order_by(*_sorted_by(order)).limit(limit + 1)
        if after is not None:
            query = query.where(_behind(order, after))
        with self._catalogue.reading() as session:
            rows = [(row, number) for row, number in session.execute(query)]
            views = _views(session, caller, rows[:limit])
        following = _place(order, rows[limit - 1][0]) if len(rows) > limit else None
        releases = [view.release for view in views if view.release is not None]
        cards = self._cards.of(releases)
        return [_with_card(view, cards) for view in views], following

    def view(self, caller: Caller, revision: Revision) -> ModelView:
        """What is known about one revision."""
        found = ModelView(
            name=revision.repository,
            commit=str(revision.commit),
            release=revision.release,
            sealed=revision.sealed,
            private=revision.release is None or not caller.public_read,
            created=revision.created,
            modified=revision.created,
            draft=revision.name if revision.release is None else None,
        )
        return found if found.release is None else _with_card(found, self._cards.of([found.release]))

    def namespaces(self, caller: Caller) -> list[str]:
        """The namespaces that the caller's own token reaches, as they are written; of all of them only the first."""
        rights = caller.own_rights()
        query = select(NamespaceRow.key, NamespaceRow.name).order_by(NamespaceRow.key)
        if rights.namespaces is not None:
            query = query.where(NamespaceRow.key.in_(sorted(rights.namespaces)))
        with self._catalogue.reading() as session:
            found = {row.key: row.name for row in session.execute(query.limit(limits.HUB_WHOAMI_ORGS))}
        return [found.get(key, key) for key in sorted(rights.namespaces or found)]

    def _conditions(self, caller: Caller, search: Search) -> list[ColumnElement[bool]] | None:
        """What rows must fulfil; None if none can."""
        if any("\0" in text for text in (search.text, *search.filters)):
            return None  # PostgreSQL takes no such text
        found = [readable_namespace(caller)]
        if search.author is not None:
            try:
                found.append(NamespaceRow.key == Namespace(search.author).key)
            except NameSyntaxError:
                return None
        released = exists().where(ReleaseRow.repository_id == RepositoryRow.id)
        if search.text or search.filters:
            return [*found, released, *matching(search.text, search.filters)]
        drafts = self._drafts_readable(caller)
        if drafts is None:
            return [*found, released]
        return [*found, or_(released, and_(exists().where(DraftRow.repository_id == RepositoryRow.id), drafts))]

    def _drafts_readable(self, caller: Caller) -> ColumnElement[bool] | None:
        """The condition that drafts in the namespace of a query are there for the caller; None if nowhere."""
        if self._revisions.policy is DraftPolicy.READERS:
            return readable_namespace(caller)
        rights = caller.rights
        if rights is None or Permission.PUBLISH not in PERMISSIONS[rights.role]:
            return None
        return readable_namespace(replace(caller, public_read=False))


def _shown_release() -> ColumnElement[int | None]:
    """The release by which a repository of a query is shown: that of main, else its newest."""
    main = (
        select(ReleaseRow.id)
        .join(TagRow, TagRow.target == ReleaseRow.digest)
        .where(TagRow.repository_id == RepositoryRow.id, TagRow.tag == MAIN)
    )
    newest = select(func.max(ReleaseRow.id)).where(ReleaseRow.repository_id == RepositoryRow.id)
    return func.coalesce(
        main.correlate(RepositoryRow).scalar_subquery(), newest.correlate(RepositoryRow).scalar_subquery()
    )


def _views(session: Session, caller: Caller, rows: Sequence[tuple[RepositoryRow, int | None]]) -> list[ModelView]:
    numbers = [number for _, number in rows if number is not None]
    others = [row.id for row, number in rows if number is None]
    releases: dict[int | None, ReleaseRow] = {}
    drafts: dict[int, DraftRow] = {}
    if numbers:
        wanted = select(ReleaseRow).where(ReleaseRow.id.in_(numbers))
        releases = {release.id: release for release in session.scalars(wanted)}
    if others:
        written = select(DraftRow).where(DraftRow.repository_id.in_(others)).order_by(DraftRow.updated)
        drafts = {draft.repository_id: draft for draft in session.scalars(written)}
    return [_listed(caller, row, releases.get(number), drafts.get(row.id)) for row, number in rows]


def _listed(caller: Caller, row: RepositoryRow, release: ReleaseRow | None, draft: DraftRow | None) -> ModelView:
    if release is None:
        assert draft is not None  # the query asks for one or the other
        return ModelView(
            name=RepositoryName.parse(row.name), commit=draft.head, release=None, sealed=False, private=True,
            created=row.created, modified=draft.updated, draft=draft.name,
        )  # fmt: skip
    digest = Digest(release.digest)
    return ModelView(
        name=RepositoryName.parse(row.name), commit=str(Commit.of_release(digest)), release=digest,
        sealed=release.sealed, private=not caller.public_read, created=row.created, modified=row.updated,
    )  # fmt: skip


def _with_card(view: ModelView, cards: Mapping[Digest, Card]) -> ModelView:
    card = None if view.release is None else cards.get(view.release)
    if card is None:
        return view
    return replace(view, tags=card.hub_tags, pipeline=card.pipeline, library=card.library, card=card.metadata)


def _sorted_by(order: Order) -> tuple[UnaryExpression[Any], ...]:
    if order is Order.MODIFIED:
        return RepositoryRow.updated.desc(), RepositoryRow.id.desc()
    return (RepositoryRow.id.desc(),) if order is Order.CREATED else (RepositoryRow.key.asc(),)


def _place(order: Order, row: RepositoryRow) -> str:
    """Where a page ended: what the order is by, of its last model."""
    if order is Order.MODIFIED:
        return f"{format_instant(row.updated)}{_SEPARATOR}{row.id}"
    return str(row.id) if order is Order.CREATED else row.key


def _behind(order: Order, after: str) -> ColumnElement[bool]:
    instant, _, number = after.rpartition(_SEPARATOR)
    try:
        if order is Order.NAME:
            return RepositoryRow.key > RepositoryName.parse(after).key
        at = parse_instant(instant) if order is Order.MODIFIED else None
    except (FormatError, NameSyntaxError):
        number = ""
    if not _NUMBER.fullmatch(number):
        raise FormatError("not where a page ended", expected="the URL of the header Link", found=repr(after)[:80])
    if at is None:
        return RepositoryRow.id < int(number)
    same = and_(RepositoryRow.updated == at, RepositoryRow.id < int(number))
    return or_(RepositoryRow.updated < at, same)
