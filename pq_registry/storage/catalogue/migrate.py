# SPDX-License-Identifier: Apache-2.0
"""Bringing a database to this version's schema. Migrations only go forward and travel inside the package.

A database that is newer than this version is refused and left untouched.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pq_registry.errors import StorageError

_SCRIPTS = Path(__file__).parent / "migrations"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision this version needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(connection: Connection) -> str | None:
    """The database's revision; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def is_behind(connection: Connection) -> bool:
    """Whether ``upgrade`` has something to do, or to refuse."""
    return current(connection) != head()


def upgrade(connection: Connection) -> bool:
    """Run every migration that is missing, inside the caller's transaction; answers whether there was any.

    Raises:
        StorageError: if the database's schema is not one of this version's history.
    """
    revision = current(connection)
    if revision == head():
        return False
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise _wrong(revision)
    command.upgrade(_config(connection), "head")
    return True


def require_current(connection: Connection) -> None:
    """Refuse any schema but this version's.

    Raises:
        StorageError: if the schema is older or newer, or the database is empty.
    """
    revision = current(connection)
    if revision != head():
        raise _wrong(revision)


def _wrong(revision: str | None) -> StorageError:
    return StorageError(
        "the catalogue has the schema of another version",
        expected=head(),
        found=revision or "an empty database",
        hint="start the service of the version that matches; it migrates older catalogues by itself",
    )
