# SPDX-License-Identifier: Apache-2.0
"""Several ledgers on one PostgreSQL database and one directory of tiles: what instances do about the log, in a process.

A ledger stands for an instance: all that instances have to do with one another is in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import delete

from pq_registry.errors import StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.log.stores import TileStore
from pq_registry.service.ledger import Ledger, LoggedStatement, LogSetup
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import StatementRow
from pq_registry.storage.tiles import LocalTiles
from tests.local_log import IDENTITY, damage, envelope, record_statements
from tests.logsetup import log_setup


@dataclass
class Site:
    """A database, and the ledgers opened on it."""

    url: str
    tiles: LocalTiles
    catalogue: Catalogue
    ledgers: list[Ledger] = field(default_factory=list)

    def open(
        self,
        setup: LogSetup | None = None,
        *,
        alone: bool = False,
        tiles: Callable[[LocalTiles], TileStore] = lambda tiles: tiles,
    ) -> Ledger:
        """Another instance."""
        catalogue = Catalogue.open_postgres(self.url, upgrade=False)
        try:
            ledger = Ledger(catalogue, tiles(self.tiles), utc_now, setup or log_setup(), alone=alone)
        except BaseException:
            catalogue.close()
            raise
        self.ledgers.append(ledger)
        return ledger

    def record(self, number: int) -> Digest:
        """Put a statement into the catalogue, as if one of the instances had accepted it."""
        found = envelope(number)
        with self.catalogue.writing() as session:
            session.add(
                StatementRow(
                    digest=found.payload_digest.hex, kind="tag", namespace_id=1, repository_id=1, signer=IDENTITY,
                    envelope=found.encode(), recorded=utc_now(),
                )
            )  # fmt: skip
        return found.payload_digest

    def log(self, ledger: Ledger, number: int) -> LoggedStatement:
        """Record a statement and have an instance log it."""
        return ledger.log(self.record(number))

    def persistent(self, ledger: Ledger, number: int) -> LoggedStatement:
        """The same, as a client does that tries again."""
        statement = self.record(number)
        for _ in range(20):
            try:
                return ledger.log(statement)
            except StorageError:
                continue
        raise AssertionError("never logged")

    def close(self, ledger: Ledger) -> None:
        """End an instance in order."""
        self.ledgers.remove(ledger)
        ledger.close()
        ledger._catalogue.close()

    def leader(self, timeout: float = 30.0) -> Ledger:
        """The instance that leads, once one does."""
        pause = threading.Event()
        for _ in range(int(timeout / 0.02)):
            found = [ledger for ledger in self.ledgers if ledger.leading]
            if found:
                return found[0]
            pause.wait(0.02)
        raise AssertionError("nobody leads")

    def findings(self) -> list[str]:
        """The damage fsck finds."""
        return damage(self.catalogue, self.tiles)


@contextmanager
def site(url: str, root: Path) -> Iterator[Site]:
    """A site that ends with the block."""
    catalogue = Catalogue.open_postgres(url, upgrade=True)
    record_statements(catalogue, 1)  # with namespace, repository and identity
    with catalogue.writing() as session:
        session.execute(delete(StatementRow))
    found = Site(url, LocalTiles(root / "log"), catalogue)
    try:
        yield found
    finally:
        for ledger in list(found.ledgers):
            found.close(ledger)
        catalogue.close()


def statement(number: int) -> Digest:
    """The digest of a recorded statement."""
    return envelope(number).payload_digest


def fall_asleep(ledger: Ledger) -> None:
    """Keep an instance from talking to the database about its lease, as if its machine had stopped."""

    asleep = threading.Event()

    def nothing(*_: object) -> None:
        asleep.set()
        raise StorageError("asleep")

    elected = ledger._leadership
    elected._act = nothing  # type: ignore[attr-defined]
    elected._missed = lambda _: elected._closing.wait(0.02)  # type: ignore[attr-defined]
    assert asleep.wait(30)
