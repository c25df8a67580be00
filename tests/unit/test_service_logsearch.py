# SPDX-License-Identifier: Apache-2.0
"""Looking for something in the log that is not there costs what it costs in an empty one.

So does looking for statements that are not logged yet, which happens every minute.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from pq_registry.format.digest import Digest
from pq_registry.service.access import anonymous
from pq_registry.service.leaves import Leaves
from pq_registry.service.logsearch import LogSearch, Wanted
from pq_registry.storage.catalogue.database import Catalogue
from tests.samples import NOW

CALLER = anonymous(public_read=True, request_id="test")
HEX = "ab" * 32


def plan_of(catalogue: Catalogue, search: Callable[[], object]) -> list[str]:
    """How the database goes about the one query of ``search``."""
    asked: list[tuple[str, Any]] = []

    def heard(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", heard)
    search()
    event.remove(Engine, "before_cursor_execute", heard)
    (query,) = [found for found in asked if found[0].startswith("SELECT")]
    with catalogue.connection() as connection:
        return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query[0]}", query[1])]


@pytest.mark.parametrize(
    "wanted",
    [Wanted(identity=HEX), Wanted(digest=Digest(HEX)), Wanted(name="acme"), Wanted(name="acme/minilm")],
    ids=["identity", "digest", "namespace", "repository"],
)
def test_what_is_not_there_is_found_missing_by_an_index(tmp_path: Path, wanted: Wanted) -> None:
    catalogue = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    steps = plan_of(catalogue, lambda: LogSearch(catalogue).entries(CALLER, wanted, after=None, limit=10))
    assert any(step.startswith("SEARCH statements") for step in steps)
    assert not [step for step in steps if step.startswith("SCAN ")], steps
    catalogue.close()


@pytest.mark.parametrize(("since", "begins"), [(None, "SCAN"), (NOW, "SEARCH")])
def test_what_is_not_logged_is_found_without_reading_envelopes(
    tmp_path: Path, since: datetime | None, begins: str
) -> None:
    catalogue = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    first, *rest = plan_of(catalogue, lambda: list(Leaves(catalogue).unlogged(since)))
    assert first.startswith(f"{begins} statements USING COVERING INDEX")
    assert not [step for step in rest if step.startswith("SCAN ")], rest
    catalogue.close()
