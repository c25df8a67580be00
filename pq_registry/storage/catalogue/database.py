# SPDX-License-Identifier: Apache-2.0
"""Opening the catalogue, and its two kinds of transaction.

``reading`` sees one consistent state and must not write. ``writing`` is one use case: everything in it happens, or
nothing. Writing transactions run one after the other, so that what one reads cannot change before it writes: on SQLite
they begin with BEGIN IMMEDIATE, on PostgreSQL with a lock that all instances share (``catalogue.postgres``). Nothing
slow belongs into one: no other can begin meanwhile, and PostgreSQL ends one that does nothing for seconds.

Whatever goes wrong in the database leaves as one of the errors of ``catalogue.failures``, and nothing was changed.

SQLite runs in WAL mode with synchronous=FULL: a committed transaction survives a power cut.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, create_engine, event, func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.storage.catalogue import hubtables, intaketables, migrate, postgres
from pq_registry.storage.catalogue.failures import reported
from pq_registry.storage.catalogue.tables import Base

# Whoever opens a catalogue knows all its tables, wherever they are declared: a backup leaves none out.
assert hubtables.DraftRow.metadata is Base.metadata
assert intaketables.XorbRow.metadata is Base.metadata

_BUSY_SECONDS = 20
"""How long SQLite waits for another process (pqreg token --data) to finish writing."""
_POLL_SECONDS = 0.01
_POOL = 48
"""Connections: one per worker thread that may be inside a transaction."""

_NOTIFY = select(func.pg_notify(bindparam("channel"), bindparam("payload")))


class Catalogue:
    """A database with the current schema."""

    def __init__(self, engine: Engine, *, url: str | None = None) -> None:
        self._engine = engine
        self._url = url
        self._writer = engine.execution_options(pqreg_writes=True)
        self._reader = engine
        if url is not None:
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # Of the threads of this process one waits in the database; the others in a queue, which is fairer than SQLite's
        # busy handler and holds none of the connections that readers need.
        self._turn = threading.Lock()

    @classmethod
    def open_sqlite(cls, path: Path, *, upgrade: bool) -> Catalogue:
        """Open the embedded database, creating it or bringing it to the current schema if ``upgrade``.

        Raises:
            StorageError: if it cannot be opened, or its schema is another than this version's.
        """
        engine = _sqlite(path, pool_size=_POOL, max_overflow=0)
        event.listen(engine, "connect", _check_references)
        catalogue = cls(engine)
        with reported():
            if upgrade:
                path.touch(mode=0o600)
                _upgrade_sqlite(path)
            else:
                with catalogue.connection() as connection:
                    migrate.require_current(connection)
        return catalogue

    @classmethod
    def open_postgres(cls, url: str, *, upgrade: bool) -> Catalogue:
        """Open a PostgreSQL database, bringing it to the current schema if ``upgrade``.

        Instances that start at once upgrade it one after the other, each in one transaction.

        Raises:
            UsageError: if the driver is not installed.
            SettingError: if ``url`` is none of PostgreSQL.
            StorageError: if it cannot be opened, or its schema is another than this version's.
        """
        catalogue = cls(postgres.make_engine(url), url=url)
        try:
            with reported(), catalogue._engine.begin() as connection:
                postgres.require_usable(connection)
                behind = migrate.is_behind(connection)
                if not upgrade:
                    migrate.require_current(connection)
            if upgrade and behind:
                patient = catalogue._writer.execution_options(pqreg_patient=True)
                with reported(), patient.begin() as connection:
                    if migrate.upgrade(connection):
                        postgres.order_by_code_point(connection)
        except BaseException:
            catalogue.close()
            raise
        return catalogue

    @property
    def url(self) -> str | None:
        """The URL of a database that several instances can use at once, with its password; None for SQLite."""
        return self._url

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A writing transaction without the object mapper."""
        with self._turn, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads.

        Raises:
            StorageError: if the database fails.
        """
        with reported(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that commits when the block ends and changes nothing if it raises.

        Raises:
            Conflict: if a constraint of the schema refuses.
            StorageError: if the database fails.
        """
        with reported(), self._turn, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def notify(self, channel: str, payload: str) -> None:
        """Tell every instance that listens; only for a database that several can use.

        Raises:
            StorageError: if the database fails.
        """
        with reported(), self._engine.begin() as connection:
            connection.execute(_NOTIFY, {"channel": channel, "payload": payload})

    def check(self) -> None:
        """Make sure that the database answers.

        Raises:
            StorageError: if it does not.
        """
        with self.reading() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every connection, once the transactions that are under way in other threads have ended.

        A thread that is still stuck in one after ``limits.CATALOGUE_CLOSE_SECONDS`` keeps its connection.
        """
        deadline = time.monotonic() + limits.CATALOGUE_CLOSE_SECONDS
        pool = self._engine.pool
        while isinstance(pool, QueuePool) and pool.checkedout() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._engine.dispose()


def _sqlite(path: Path, **pool: Any) -> Engine:
    # Without hide_parameters the traceback of a failing statement, which is logged, would show its values.
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True, **pool
    )  # fmt: skip
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _upgrade_sqlite(path: Path) -> None:
    # SQLite alters most of a table by making another one in its place, which it refuses while it checks references.
    # So migrations have a connection that does not, and all references are checked before they are committed.
    engine = _sqlite(path, poolclass=NullPool)
    with engine.execution_options(pqreg_writes=True).begin() as connection:
        if migrate.upgrade(connection) and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            raise StorageError("the catalogue refers to rows that do not exist", hint="restore it from a backup")


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: _begin_sqlite does.
    connection.isolation_level = None
    _set(connection, "journal_mode=WAL", "synchronous=FULL", "trusted_schema=OFF")


def _check_references(connection: Any, _record: object) -> None:
    _set(connection, "foreign_keys=ON")


def _set(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("pqreg_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
