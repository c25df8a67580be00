# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL as the catalogue's database.

The URL is libpq's (several hosts, TLS, Unix sockets, ``~/.pgpass``: all of it works) and never leaves this module: not
in a message, a repr or a log. Every connection gets, unless the URL says otherwise, keep-alives and timeouts that
notice a host that has gone in seconds, and is told what a session may do::

    synchronous_commit                     on, where it was off: what is committed survives a crash of the server
    statement_timeout                      limits.CATALOGUE_STATEMENT_SECONDS
    lock_timeout                           limits.CATALOGUE_LOCK_SECONDS
    idle_in_transaction_session_timeout    limits.CATALOGUE_IDLE_SECONDS in a writing transaction: an instance that
                                           hangs in one is thrown out of it, so that the others go on; in a reading one
                                           limits.CATALOGUE_READER_IDLE_SECONDS

A **writing** transaction takes one advisory lock first, before it has a snapshot. So writers run one after the other
over all instances, as they do on SQLite, and what one reads cannot change before it writes (ADR 0014). A **reading**
one is REPEATABLE READ, READ ONLY: one consistent state, without any lock.

All of this needs sessions: a pooler in between must pool sessions, not transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text

from pq_registry import limits
from pq_registry.errors import SettingError, StorageError, UsageError
from pq_registry.storage.catalogue.tables import Base

if TYPE_CHECKING:
    from psycopg import Connection as Session

WRITER_LOCK = 0x7071726567_01
"""The advisory lock of writing transactions ("pqreg", 1)."""
_OLDEST = 140000
_HOST_GONE_SECONDS = 10
_DEFAULTS: dict[str, str | int] = {
    "application_name": "pq-registry",
    "connect_timeout": limits.CATALOGUE_CONNECT_SECONDS,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": _HOST_GONE_SECONDS * 1000,
    "target_session_attrs": "read-write",
}
_SESSION = (
    "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),"
    " set_config('idle_in_transaction_session_timeout', %s, false), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false)"
)
_OTHER_ORDER = text(
    "SELECT table_name, column_name, data_type, character_maximum_length FROM information_schema.columns"
    " WHERE table_schema = current_schema() AND data_type IN ('character varying', 'text')"
    " AND collation_name IS DISTINCT FROM 'C'"
)


def connector(url: str, *, statement_seconds: int = limits.CATALOGUE_STATEMENT_SECONDS) -> Callable[[], Session[Any]]:
    """A function that opens a connection in autocommit mode, which raises psycopg's errors.

    Raises:
        UsageError: if the driver is not installed.
        SettingError: if the URL is none.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise UsageError(
            "the PostgreSQL driver is not installed", found=error, hint="pip install 'pq-registry[postgres]'"
        ) from None
    try:
        options: dict[str, Any] = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.Error:  # what libpq says about it quotes the URL, and there may be a password in it
        raise SettingError(
            "setting database is not a URL of PostgreSQL",
            expected="postgresql://USER:PASSWORD@HOST/NAME?sslmode=verify-full, special characters percent-encoded",
        ) from None
    seconds = (statement_seconds, limits.CATALOGUE_LOCK_SECONDS, limits.CATALOGUE_READER_IDLE_SECONDS)
    session = [f"{each}s" for each in seconds]

    def connect() -> Session[Any]:
        connection: Session[Any] = psycopg.connect(**options, autocommit=True, client_encoding="UTF8")
        try:
            connection.execute(_SESSION, session)
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def make_engine(url: str) -> Engine:
    """A pool of connections; none is made yet.

    Raises:
        UsageError: if the driver is not installed.
        SettingError: if the URL is none.
    """
    connect = connector(url)

    def connect_for_pool() -> Session[Any]:
        connection = connect()
        connection.autocommit = False
        return connection

    engine = create_engine(
        "postgresql+psycopg://",
        creator=connect_for_pool,
        pool_size=limits.CATALOGUE_CONNECTIONS,
        max_overflow=0,
        pool_timeout=limits.CATALOGUE_LOCK_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin)
    return engine


def require_usable(connection: Connection) -> None:
    """Refuse a server this catalogue would not be safe in.

    Raises:
        StorageError: if it is too old, or its text is not UTF-8.
    """
    version, encoding = connection.execute(
        text("SELECT current_setting('server_version_num')::int, current_setting('server_encoding')")
    ).one()
    if version < _OLDEST:
        raise StorageError("this PostgreSQL is too old", expected="version 14 or newer", found=f"{version // 10000}")
    if encoding != "UTF8":
        raise StorageError(
            "the database's text is not UTF-8", expected="UTF8", found=encoding,
            hint="make another one: createdb -T template0 -E UTF8 NAME",
        )  # fmt: skip


def order_by_code_point(connection: Connection) -> None:
    """Make every text column of ours compare by code point, whatever the database's own order is.

    Names, tags and digests are listed and paged in the order that the same registry on SQLite has, an index answers
    what begins with a prefix, and an update of the system's collations cannot damage one.
    """
    for table, column, kind, length in connection.execute(_OTHER_ORDER).all():
        if table in Base.metadata.tables:
            type_ = f"varchar({int(length)})" if kind == "character varying" and length is not None else "text"
            connection.exec_driver_sql(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE {type_} COLLATE "C"')


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    idle = f"{limits.CATALOGUE_IDLE_SECONDS}s"
    if options.get("pqreg_patient", False):  # migrations: whatever they take, they are not stopped half-way
        idle = "0"
        connection.exec_driver_sql(
            "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)"
        )
    if options.get("pqreg_writes", False):
        connection.exec_driver_sql(
            f"SELECT set_config('idle_in_transaction_session_timeout', '{idle}', true),"
            f" pg_advisory_xact_lock({WRITER_LOCK})"
        )
