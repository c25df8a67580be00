# SPDX-License-Identifier: Apache-2.0
"""What a failing database means, in this project's errors.

========================================  ====================================================================
a constraint refused                      Conflict: two requests contradicted each other, and this one lost
a value the database cannot hold          FormatError: text with a NUL character, or longer than its column
anything else                             StorageError; of PostgreSQL with ``retry_after``, since it may be back soon
========================================  ====================================================================

In every case the transaction has changed nothing, with one exception: COMMIT itself. A connection that is lost there
leaves open whether it happened; ``is_undone`` tells these cases apart. No message holds a URL or a value of a query.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pq_registry import limits
from pq_registry.errors import Conflict, FormatError, PqregError, StorageError

_SQLITE_UNDONE = {"SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED"}
_SQL_OPEN = {"08", "57", "58", "XX"}
"""Classes of SQLSTATE after which nobody knows what became of COMMIT: connections, interventions, broken systems."""
_SQL_COMPLETION_UNKNOWN = "40003"
_SQL_DISK_FULL = "53100"
_SQLSTATE_CHARS = 5


@contextmanager
def reported() -> Iterator[None]:
    """Turn whatever a database raises in the block into an error of this project.

    Raises:
        Conflict: if a constraint of the schema refuses.
        FormatError: if a value is none the database can hold.
        StorageError: if the database fails.
    """
    try:
        yield
    except IntegrityError as error:
        raise Conflict("another request changed the same thing", hint="look at the present state and retry") from error
    except (DataError, UnicodeEncodeError) as error:
        raise FormatError(
            "the catalogue cannot hold this text or number", expected="text without NUL characters, of usual length"
        ) from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _failure(error) from error


def is_undone(error: PqregError) -> bool:
    """Whether it is certain that a transaction whose COMMIT raised ``error`` has not happened.

    SQLite says so where the disk was full or the database busy. PostgreSQL answers every COMMIT it does not do with an
    error of the statement; an error of the connection, or of a server that ends, is no answer.
    """
    original = getattr(error.__cause__, "orig", error.__cause__)
    state = sqlstate(original)
    if state is not None:
        return state[:2] not in _SQL_OPEN and state != _SQL_COMPLETION_UNKNOWN
    return getattr(original, "sqlite_errorname", None) in _SQLITE_UNDONE


def is_full(error: StorageError) -> bool:
    """Whether the database's disk is full."""
    original = getattr(error.__cause__, "orig", None)
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return sqlstate(original) == _SQL_DISK_FULL


def sqlstate(error: BaseException | None) -> str | None:
    """The five characters by which PostgreSQL names an error; None where it had no part in it."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) and len(state) == _SQLSTATE_CHARS else None


def _failure(error: Exception) -> StorageError:
    original = getattr(error, "orig", None) or error
    if isinstance(error, PoolTimeout):
        busy = StorageError("the catalogue is busy", found="no connection was free in time")
        busy.retry_after = limits.S3_SLOW_DOWN_SECONDS
        return busy
    if not type(original).__module__.startswith("psycopg"):
        name = getattr(original, "sqlite_errorname", None)
        return StorageError("the catalogue failed", found=f"SQLite: {name}" if name else type(error).__name__)
    state = sqlstate(original)
    said = getattr(getattr(original, "diag", None), "message_primary", None) or str(original).partition("\n")[0]
    failed = StorageError(
        "the catalogue failed", found=f"PostgreSQL: {said[:300]}" + ("" if state is None else f" ({state})")
    )
    failed.retry_after = limits.S3_SLOW_DOWN_SECONDS
    return failed
