# SPDX-License-Identifier: Apache-2.0
"""The catalogue: its history of schemas, its transactions, and what leaves it when it fails; on both databases.

What only one of them has is further down, or in test_catalogue_postgres.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from pq_registry.errors import Conflict, StorageError
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import Base, NamespaceRow, RepositoryRow

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalogue]:
    if request.param == "sqlite":
        found = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    else:
        found = Catalogue.open_postgres(request.getfixturevalue("postgres_url"), upgrade=True)
    yield found
    found.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Catalogue]:
    found = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    yield found
    found.close()


def test_the_history_ends_in_the_tables_of_today(catalogue: Catalogue) -> None:
    with catalogue.connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert migrate.current(connection) == migrate.head()


@pytest.mark.usefixtures("sqlite")
def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    again = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    again.check()
    again.close()
    assert (tmp_path / "catalogue.sqlite3").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("upgrade", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, upgrade: bool) -> None:
    path = tmp_path / "catalogue.sqlite3"
    Catalogue.open_sqlite(path, upgrade=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another version"):
        Catalogue.open_sqlite(path, upgrade=upgrade)
    assert path.read_bytes() == before


def test_an_empty_database_is_only_filled_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite3"
    with pytest.raises(StorageError, match="another version"):
        Catalogue.open_sqlite(path, upgrade=False)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite3"
    path.write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(StorageError, match="the catalogue failed") as raised:
        Catalogue.open_sqlite(path, upgrade=True)
    assert raised.value.found == "SQLite: SQLITE_NOTADB"  # which of its failures: a full disk, a damaged file, …


def test_durability_settings(sqlite: Catalogue) -> None:
    with sqlite.reading() as session:
        found = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in
                 ("journal_mode", "synchronous", "foreign_keys")}  # fmt: skip
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_block_that_raises_changes_nothing(catalogue: Catalogue) -> None:
    with pytest.raises(ZeroDivisionError), catalogue.writing() as session:
        session.add(NamespaceRow(key="acme", name="acme", created=NOW))
        session.flush()
        raise ZeroDivisionError
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow)).all() == []


def test_a_reader_sees_one_state(catalogue: Catalogue) -> None:
    with catalogue.writing() as session:
        session.add(NamespaceRow(key="acme", name="acme", created=NOW))
    with catalogue.reading() as before:
        assert before.scalars(select(NamespaceRow.name)).all() == ["acme"]
        with catalogue.writing() as session:
            session.execute(text("UPDATE namespaces SET name = 'ACME'"))
        assert before.scalars(select(NamespaceRow.name)).all() == ["acme"]
    with catalogue.reading() as after:
        assert after.scalars(select(NamespaceRow.name)).all() == ["ACME"]


def test_text_is_ordered_by_code_point(catalogue: Catalogue) -> None:
    names = ["B", "_", "a", "b", "a-b", "a.b", "a_b", "ab", "Ab", "v1.10", "v1.9"]
    with catalogue.writing() as session:
        session.add_all(NamespaceRow(key=name, name=name, created=NOW) for name in names)
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow.key).order_by(NamespaceRow.key)).all() == sorted(names)
        assert session.scalars(select(NamespaceRow.key).where(NamespaceRow.key > "a.b")).all() != []


def test_instants_come_back_aware_and_exact(catalogue: Catalogue) -> None:
    with catalogue.writing() as session:
        session.add(NamespaceRow(key="acme", name="acme", created=NOW))
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow.created)).one() == NOW


def test_constraints_are_conflicts_and_failures_are_storage_errors(catalogue: Catalogue) -> None:
    with catalogue.writing() as session:
        session.add(NamespaceRow(key="acme", name="acme", created=NOW))
    with pytest.raises(Conflict), catalogue.writing() as session:
        session.add(NamespaceRow(key="acme", name="ACME", created=NOW))
    with pytest.raises(Conflict), catalogue.writing() as session:
        session.add(RepositoryRow(namespace_id=99, key="x/y", name="x/y", created=NOW, updated=NOW))
    with pytest.raises(StorageError), catalogue.reading() as session:
        session.execute(text("SELECT * FROM no_such_table"))


def test_writers_take_turns(catalogue: Catalogue) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def count_up(_: int) -> None:
        with catalogue.writing() as session:
            row = session.scalars(select(NamespaceRow).where(NamespaceRow.key == "count")).one()
            row.name = str(int(row.name) + 1)

    with catalogue.writing() as session:
        session.add(NamespaceRow(key="count", name="0", created=NOW))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(100)))
    with catalogue.reading() as session:
        assert session.scalars(select(NamespaceRow.name)).one() == "100"
