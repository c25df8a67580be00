# SPDX-License-Identifier: Apache-2.0
"""The reads a registry answers all day, as calls of its use cases on a catalogue that ``cataloguesamples`` filled, and
how the database goes about each: what was asked, and its plan.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.service.access import Caller, Rights, Role, anonymous
from pq_registry.service.cards import Card, Cards, Lineage, ShownCard, matching
from pq_registry.service.hub.lookup import look_up
from pq_registry.service.hub.model import Commit
from pq_registry.service.hub.models import Models, Order, Search
from pq_registry.service.hub.revisions import Revisions
from pq_registry.service.leaves import Leaves
from pq_registry.service.logsearch import LogSearch, Wanted
from pq_registry.service.logview import LogView
from pq_registry.service.names import find_repository
from pq_registry.service.resolve import Resolving
from pq_registry.service.visible import find_blob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.loglock import CatalogueLock
from tests.cataloguesamples import BLOBS, RELEASES, Filled, hexed

PUBLIC = anonymous(public_read=True, request_id="test")
READER = Caller(
    token_id="0" * 16, rights=Rights(role=Role.READER, namespaces=frozenset({"team0"})), expires=None,
    public_read=False, request_id="test",
)  # fmt: skip
Query = Callable[[random.Random], object]
SMALL_TABLES = frozenset({"namespaces", "log_state", "namespace_identities"})
"""Tables that may be read whole: of a row for each namespace, or of one."""


def hot_queries(catalogue: Catalogue, filled: Filled) -> dict[str, Query]:
    """Each is called with the source of its choice of rows."""
    resolving = Resolving(catalogue, None)  # type: ignore[arg-type]  # no query here touches a blob's bytes
    search, view, leaves, lock = LogSearch(catalogue), LogView(catalogue), Leaves(catalogue), CatalogueLock(catalogue)

    cards = Cards(catalogue, None)  # type: ignore[arg-type]  # nor here

    def shown(choice: random.Random) -> ShownCard:
        name = repository(choice)
        return ShownCard(repository=str(name), release=digest(choice), card=Card())

    def repository(choice: random.Random) -> RepositoryName:
        return RepositoryName.parse(filled.name(choice.randrange(filled.repositories)))

    def digest(choice: random.Random, kind: str = "release", factor: int = 1) -> Digest:
        return Digest(hexed(kind, choice.randrange(filled.releases * factor)))

    def release(choice: random.Random) -> object:
        number = choice.randrange(filled.releases)
        return resolving.release(
            RepositoryName.parse(filled.name(number // RELEASES)), Digest(hexed("release", number))
        )

    def blob(choice: random.Random) -> object:
        with catalogue.reading() as session:
            return find_blob(session, PUBLIC, digest(choice, "blob", BLOBS))

    def missing(choice: random.Random, caller: Caller = PUBLIC) -> object:
        known = [digest(choice, "blob", BLOBS) for _ in range(50)]
        return resolving.missing(caller, [*known, *(Digest(hexed("new", n)) for n in range(50))])

    revisions = Revisions(catalogue, None, None)  # type: ignore[arg-type]  # nor here
    models = Models(catalogue, revisions, cards)

    def revision(choice: random.Random, name: str) -> object:
        with catalogue.reading() as session:
            return look_up(session, find_repository(session, repository(choice)), name, drafts=True)

    def listed(caller: Caller, search: Search, after: str | None = None) -> object:
        return models.page(caller, search, after=after, limit=50)

    return {
        "hub: a revision by its name": lambda choice: revision(choice, "main"),
        "hub: a revision by its commit": lambda choice: revision(choice, str(Commit.of_release(digest(choice)))),
        "hub: a revision that is not there": lambda choice: revision(choice, "absent"),
        "hub: names": lambda choice: revisions.refs(PUBLIC, repository(choice)),
        "hub: history": lambda choice: revisions.history(PUBLIC, repository(choice), "main", after=None, limit=20),
        "hub: models": lambda choice: listed(PUBLIC, Search(), str(repository(choice))),
        "hub: models, a reader of one namespace": lambda _: listed(READER, Search()),
        "hub: models of an author": lambda _: listed(PUBLIC, Search(author="team0")),
        "hub: models that changed last": lambda _: listed(PUBLIC, Search(order=Order.MODIFIED)),
        "tag": lambda choice: resolving.tag_envelope(repository(choice), Tag("main")),
        "release": release,
        "repository": lambda choice: resolving.repository(repository(choice), after=None, limit=50),
        "content": lambda choice: resolving.releases_with_content(
            repository(choice), digest(choice, "content"), limit=5
        ),
        "statement": lambda choice: resolving.statement_envelope(PUBLIC, digest(choice)),
        "blob": blob,
        "missing, 100 digests": missing,
        "missing, a reader of one namespace": lambda choice: missing(choice, READER),
        "repositories, one page": lambda choice: resolving.repositories(
            PUBLIC, namespace=None, after=repository(choice), limit=100
        ),
        "repositories of a namespace": lambda _: resolving.repositories(
            PUBLIC, namespace=Namespace("team0"), after=None, limit=100
        ),
        "models by words": lambda choice: resolving.repositories(
            PUBLIC, namespace=None, after=None, limit=50, conditions=matching(f"word{choice.randrange(1000)} model")
        ),
        "models by facets, a reader of one namespace": lambda choice: resolving.repositories(
            READER,
            namespace=None,
            after=repository(choice),
            limit=50,
            conditions=matching(filters=["license:mit", f"base_model:{repository(choice)}"]),
        ),
        "cards of a page": lambda choice: cards.shown([str(repository(choice)) for _ in range(50)]),
        "cards of releases": lambda choice: cards.of([digest(choice) for _ in range(50)]),
        "cards of a repository that is up to date": lambda choice: cards.follow(repository(choice)),
        "lineage": lambda choice: Lineage(catalogue).graph(PUBLIC, shown(choice)),
        "receipt: where a statement is logged": lambda choice: leaves.newest_place(digest(choice)),
        "receipt: the checkpoint that covers it": lambda choice: lock.published_covering(
            choice.randrange(filled.releases)
        ),
        "log, newest page": lambda _: search.entries(PUBLIC, Wanted(), after=None, limit=100),
        "log, one repository": lambda choice: search.entries(
            PUBLIC, Wanted(name=str(repository(choice))), after=None, limit=100
        ),
        "log, one digest": lambda choice: search.entries(PUBLIC, Wanted(digest=digest(choice)), after=None, limit=100),
        "page, a leaf": lambda choice: view.leaf(choice.randrange(filled.releases)),
        "page, the leaf of a statement": lambda choice: view.leaf_of(digest(choice)),
    }


@contextmanager
def heard(catalogue: Catalogue) -> Iterator[list[tuple[str, Any]]]:
    """The SELECTs that are asked meanwhile."""
    asked: list[tuple[str, Any]] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def plan(catalogue: Catalogue, statement: str, parameters: Any, *, small: bool = False) -> list[str]:
    """The database's plan of one query, a line for each step.

    ``small`` is for tables so small that PostgreSQL rightly reads them whole: it then does so only where it must.
    """
    with catalogue.connection() as connection:
        if connection.dialect.name == "sqlite":
            return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        if small:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        return [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]


def read_whole(steps: list[str]) -> list[str]:
    """The steps of a plan that read all of a table that grows."""
    found = []
    for step in steps:
        words = step.replace("->", "").split()
        if words[:1] == ["SCAN"] and len(words) > 1 and "USING" not in words:  # SQLite
            table = words[1]
        elif words[:3] == ["Seq", "Scan", "on"] or words[:4] == ["Parallel", "Seq", "Scan", "on"]:
            table = words[words.index("on") + 1]
        else:
            continue
        if table not in SMALL_TABLES and not table.startswith(("SUBQUERY", "CONSTANT")):
            found.append(step)
    return found
