# SPDX-License-Identifier: Apache-2.0
"""The catalogue of an earlier version is brought to this one's schema with everything in it, or left as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select, text

from pq_registry.errors import StorageError
from pq_registry.storage.catalogue import migrate
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import Base, ReleaseRow, StatementRow, TagRow

HEX = "0123456789abcdef" * 4
FIRST = f"""
INSERT INTO namespaces VALUES (1, 'lab', 'lab', 1), (2, 'acme', 'acme', 1);
INSERT INTO identities VALUES ('{HEX}', 'PEM', 'e', 'p', 1);
INSERT INTO repositories VALUES (7, 2, 'acme/minilm', 'acme/minilm', 1, 1);
INSERT INTO blobs VALUES ('b', 1, 2097152, x'00', 1);
INSERT INTO statements VALUES ('release', 'release', 7, '{HEX}', x'0102', NULL, NULL, 5);
INSERT INTO statements VALUES ('tag', 'tag', 7, '{HEX}', x'03', 'v1', 1, 6);
INSERT INTO releases VALUES (3, 'release', 7, 'b', 'c', 's', 10, 1, 4, 5);
INSERT INTO tags VALUES (7, 'v1', 1, 'tag', 'release', 's', 6, 9);
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A catalogue as the first version left it."""
    path = tmp_path / "catalogue.sqlite3"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(migrate._config(connection), "0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST)
    return path


def test_from_the_first_version(first: Path) -> None:
    catalogue = Catalogue.open_sqlite(first, upgrade=True)
    with catalogue.reading() as session:
        found = session.scalars(select(StatementRow).order_by(StatementRow.digest)).all()
        rows = [(row.digest, row.namespace_id, row.repository_id, row.envelope, row.tag, row.sequence) for row in found]
        assert rows == [("release", 2, 7, b"\x01\x02", None, None), ("tag", 2, 7, b"\x03", "v1", 1)]
        assert [(row.release_digest, row.recipient) for row in found] == [(None, None)] * 2
        assert [(row.digest, row.sealed) for row in session.scalars(select(ReleaseRow))] == [("release", False)]
        assert [row.statement for row in session.scalars(select(TagRow))] == ["tag"]
        assert session.execute(text("PRAGMA foreign_key_check")).all() == []
    with catalogue.connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    catalogue.close()


def test_references_are_checked_again_afterwards(first: Path) -> None:
    from pq_registry.errors import Conflict

    catalogue = Catalogue.open_sqlite(first, upgrade=True)
    for change in (
        "DELETE FROM statements WHERE digest = 'release'",
        "UPDATE statements SET namespace_id = 99",
        "UPDATE releases SET digest = 'none'",
    ):
        with pytest.raises(Conflict), catalogue.writing() as session:
            session.execute(text(change))
    catalogue.close()


def test_a_catalogue_whose_rows_refer_to_nothing_is_left_as_it_was(first: Path) -> None:
    with closing(sqlite3.connect(first)) as connection, connection:
        connection.execute("DELETE FROM blobs")
    with pytest.raises(StorageError, match="rows that do not exist"):
        Catalogue.open_sqlite(first, upgrade=True)
    with closing(sqlite3.connect(first)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert not tables & {"grants", "keys", "blob_slicings"}
