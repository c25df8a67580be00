# SPDX-License-Identifier: Apache-2.0
"""No read that a registry answers all day reads a whole table, once the database has counted its rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry.storage.catalogue.database import Catalogue
from tests.cataloguesamples import fill
from tests.hotqueries import heard, hot_queries, plan, read_whole

RELEASES = 2000


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    if request.param == "SQLite":
        found = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    else:
        found = Catalogue.open_postgres(request.getfixturevalue("postgres_url"), upgrade=True)
    yield found
    found.close()


def test_hot_queries_use_indexes(catalogue: Catalogue) -> None:
    filled = fill(catalogue, RELEASES, envelope_bytes=2500, shards_bytes=32)
    with catalogue.connection() as connection:
        connection.exec_driver_sql("ANALYZE")
    slow = {}
    for name, query in hot_queries(catalogue, filled).items():
        with heard(catalogue) as asked:
            query(random.Random(1))
        assert asked, name
        whole = [step for statement in asked for step in read_whole(plan(catalogue, *statement, small=True))]
        if whole:
            slow[name] = whole
    assert slow == {}


def test_a_whole_table_is_noticed(catalogue: Catalogue) -> None:
    fill(catalogue, 20)
    steps = plan(catalogue, "SELECT detail FROM audit_events WHERE detail = 'x'", ())
    assert len(read_whole(steps)) == 1, steps
