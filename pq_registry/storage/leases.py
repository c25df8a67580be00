# SPDX-License-Identifier: Apache-2.0
"""Leases in PostgreSQL: which instance may do what only one may do, until when, in the database's own time.

A lease is a row. Whoever finds it expired takes it; its holder renews it. It decides who *should* act and nothing more:
a holder that was asleep may not know yet that its lease is over, so whatever must never happen twice is decided
elsewhere, in one transaction (for the log: by its lock, ``storage.loglock``).

A ``LeaseSession`` is one connection, used by one thread, that also hears what other instances say (LISTEN, NOTIFY).
Everything on it is bounded by ``limits.LEASE_STATEMENT_SECONDS``: a renewal that takes longer has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.storage.catalogue.postgres import connector

if TYPE_CHECKING:
    from psycopg import Connection

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOOK = f"SELECT holder, until_ms - {_NOW}, term FROM leases WHERE name = %s"  # noqa: S608 - no value in it
_TAKE = f"""
INSERT INTO leases (name, holder, until_ms, term) VALUES (%(name)s, %(holder)s, {_NOW} + %(length)s, 1)
ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, until_ms = EXCLUDED.until_ms,
    term = leases.term + CASE WHEN leases.holder = EXCLUDED.holder THEN 0 ELSE 1 END
    WHERE leases.holder = EXCLUDED.holder OR leases.until_ms <= {_NOW}
RETURNING term
"""  # noqa: S608 - no value in it
_GIVE_BACK = "UPDATE leases SET until_ms = 0 WHERE name = %s AND holder = %s"


@dataclass(frozen=True, slots=True)
class LeaseState:
    """Who holds a lease, or held it last, for how many more seconds, and how many holders it has had."""

    holder: str
    seconds: float
    term: int

    @property
    def held(self) -> bool:
        """Whether it has not expired."""
        return self.seconds > 0


@dataclass(frozen=True, slots=True)
class Notice:
    """What an instance told the others."""

    channel: str
    payload: str


class LeaseSession:
    """A connection for one lease of one holder, and for what is heard on ``channels``."""

    def __init__(self, connection: Connection[Any], name: str, holder: str) -> None:
        self._connection = connection
        self._name = name
        self._holder = holder

    @classmethod
    def open(cls, url: str, name: str, holder: str, *channels: str) -> Self:
        """Connect.

        Raises:
            StorageError: if the database cannot be reached.
        """
        connect = connector(url, statement_seconds=limits.LEASE_STATEMENT_SECONDS)
        with _reported():
            connection = connect()
            try:
                for channel in channels:
                    connection.execute(f'LISTEN "{channel}"'.encode("ascii"))
            except BaseException:
                connection.close()
                raise
        return cls(connection, name, holder)

    def look(self) -> LeaseState | None:
        """Who holds the lease; None if nobody ever did.

        Raises:
            StorageError: if the database does not answer.
        """
        with _reported():
            row = self._connection.execute(_LOOK, (self._name,)).fetchone()
        return None if row is None else LeaseState(row[0], row[1] / 1000, row[2])

    def take(self) -> bool:
        """Take the lease if it is free, or renew it; answers whether it is ours for ``limits.LEASE_SECONDS`` from now.

        Raises:
            StorageError: if the database does not answer; it may be ours all the same.
        """
        length = int(limits.LEASE_SECONDS * 1000)
        values = {"name": self._name, "holder": self._holder, "length": length}
        with _reported():
            return self._connection.execute(_TAKE, values).fetchone() is not None

    def give_back(self, channel: str) -> None:
        """End our lease now, if it is ours, and tell those who wait for it.

        Raises:
            StorageError: if the database does not answer; it then ends by itself.
        """
        with _reported():
            self._connection.execute(_GIVE_BACK, (self._name, self._holder))
            self._connection.execute("SELECT pg_notify(%s, '')", (channel,))

    def hear(self, seconds: float) -> list[Notice]:
        """What others have said since the last call; waits up to ``seconds`` for the first of it.

        Raises:
            StorageError: if the connection is lost.
        """
        with _reported():
            return [
                Notice(each.channel, each.payload)
                for each in self._connection.notifies(timeout=max(0.0, seconds), stop_after=1)
            ]

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


@contextmanager
def _reported() -> Iterator[None]:
    import psycopg

    try:
        yield
    except (psycopg.Error, OSError) as error:
        said = str(error).partition("\n")[0][:300] or type(error).__name__
        raise StorageError("the catalogue does not answer about the lease", found=said) from None
