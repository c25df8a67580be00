# SPDX-License-Identifier: Apache-2.0
"""A catalogue is closed when its last transaction has ended, and not under it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pq_registry import limits
from pq_registry.storage.catalogue.database import Catalogue


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    if request.param == "SQLite":
        yield Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    else:
        yield Catalogue.open_postgres(request.getfixturevalue("postgres_url"), upgrade=True)


def test_closing_waits_for_a_transaction_under_way(catalogue: Catalogue) -> None:
    begun, may, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with catalogue.writing() as session:
            session.execute(text("SELECT 1"))
            begun.set()
            assert may.wait(30)
        ended.set()

    closer = threading.Thread(target=catalogue.close)
    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(30)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive(), "it closed under a transaction"
    may.set()
    closer.join(30)
    worker.join(30)
    assert ended.is_set()
    assert not closer.is_alive()


def test_a_stuck_transaction_does_not_keep_it_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    monkeypatch.setattr(limits, "CATALOGUE_CLOSE_SECONDS", 0)
    with catalogue.reading() as session:
        session.execute(text("SELECT 1"))
        catalogue.close()
