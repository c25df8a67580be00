# SPDX-License-Identifier: Apache-2.0
"""A log as a service keeps it, on disk: catalogue, tiles and sequencer, with statements nobody signed.

Statement ``n`` is the same in every run, so that a process that was killed and one that takes over mean the same leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert, select

from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.pending import PendingLeaf, Sequenced
from pq_registry.log.sequencer import Sequencer
from pq_registry.log.signers import LogSigners
from pq_registry.log.stores import LogLock, WitnessPool
from pq_registry.log.tree import Tree
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import IdentityRow, LogEntryRow, NamespaceRow, RepositoryRow, StatementRow
from pq_registry.storage.logcheck import check_log
from pq_registry.storage.loglock import CatalogueLock
from pq_registry.storage.tiles import LocalTiles
from tests.logsamples import ORIGIN, compose_policy, log_signers

IDENTITY = "0123456789abcdef" * 4
NAME = "acme/minilm"
TIMEOUT = 30.0
"""Seconds after which an append that should have been answered was not."""


def signers(origin: str = ORIGIN) -> LogSigners:
    """The keys of ``tests.logsamples``."""
    return LogSigners(*log_signers(origin))


def envelope(number: int) -> Envelope:
    """Statement ``number``."""
    return Envelope(b'{"statement":%d}' % number, b"ec %d" % number, b"pq %d" % number)


def leaf_of(number: int) -> Callable[[int], bytes]:
    """Makes the leaf of statement ``number``."""

    def make(time: int) -> bytes:
        return Leaf.of(envelope(number), kind=Kind.TAG, name=NAME, identity=IDENTITY, time=time).encode()

    return make


def record_statements(catalogue: Catalogue, count: int) -> None:
    """Put statements 0 to ``count`` - 1 into the catalogue, as if they had been accepted."""
    now = utc_now()
    with catalogue.writing() as session:
        session.execute(insert(NamespaceRow).values(id=1, key="acme", name="acme", created=now))
        session.execute(
            insert(RepositoryRow).values(id=1, namespace_id=1, key=NAME, name=NAME, created=now, updated=now)
        )
        session.execute(insert(IdentityRow).values(id=IDENTITY, public="", ec_half="e", pq_half="p", created=now))
        session.execute(
            insert(StatementRow),
            [
                {
                    "digest": envelope(number).payload_digest.hex,
                    "kind": "tag",
                    "namespace_id": 1,
                    "repository_id": 1,
                    "signer": IDENTITY,
                    "envelope": envelope(number).encode(),
                    "recorded": now,
                }
                for number in range(count)
            ],
        )


class FixedClock:
    """A clock that stands where it was put."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


@dataclass
class LocalLog:
    """One opening of a log in ``root``."""

    root: Path
    catalogue: Catalogue
    tiles: LocalTiles
    lock: LogLock
    sequencer: Sequencer

    @classmethod
    def open(
        cls,
        root: Path,
        clock: Callable[[], datetime] = utc_now,
        *,
        origin: str = ORIGIN,
        witnesses: WitnessPool | None = None,
        policy: Policy | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
        wrap_lock: Callable[[LogLock], LogLock] = lambda lock: lock,
    ) -> LocalLog:
        """Open or begin the log; whatever refuses leaves nothing open. Its monotonic clock stands still."""
        catalogue = open_catalogue(root)
        try:
            tiles = LocalTiles(root / "log")
            tiles.sweep()
            lock = wrap_lock(CatalogueLock(catalogue))
            sequencer = Sequencer(
                lock, tiles, signers(origin), clock, witnesses, policy or compose_policy(origin), monotonic=monotonic
            )
        except BaseException:
            catalogue.close()
            raise
        return cls(root, catalogue, tiles, lock, sequencer)

    def start(self, number: int) -> PendingLeaf:
        """Hand in the leaf of statement ``number``."""
        return self.sequencer.append(leaf_of(number), statement=envelope(number).payload_digest)

    def append(self, *numbers: int) -> list[Sequenced]:
        """Log statements and wait until they are published."""
        done = [pending.result(TIMEOUT) for pending in [self.start(number) for number in numbers]]
        for sequenced in done:
            self.sequencer.wait_published(sequenced.index, TIMEOUT)
        return done

    @property
    def shown(self) -> Checkpoint:
        """What readers see."""
        return parse_checkpoint_note(self.tiles.read("checkpoint"))[0]

    def entries(self) -> list[bytes]:
        """Every leaf readers can see, verified."""
        return list(Tree(self.tiles, self.shown.size, self.shown.root).entries(0, self.shown.size))

    def findings(self) -> list[str]:
        """The damage fsck finds."""
        return damage(self.catalogue, self.tiles)

    def close(self) -> None:
        self.sequencer.close()
        self.catalogue.close()


def open_catalogue(root: Path) -> Catalogue:
    """The catalogue of a log."""
    root.mkdir(exist_ok=True)
    return Catalogue.open_sqlite(root / "catalogue.sqlite3", upgrade=True)


def seeded(root: Path, *, statements: int, leaves: int) -> Path:
    """A log with ``statements`` recorded statements of which the first ``leaves`` are logged, closed."""
    catalogue = open_catalogue(root)
    record_statements(catalogue, statements)
    catalogue.close()
    log = LocalLog.open(root)
    log.append(*range(leaves))
    log.close()
    return root


def damage(catalogue: Catalogue, tiles: LocalTiles) -> list[str]:
    """What fsck finds but for notes."""
    return [f"{item.subject}: {item.problem}" for item in check_log(catalogue, tiles) if not item.note]


def judge(root: Path, acknowledged: Sequence[tuple[int, int]]) -> int:
    """What must hold after any fault: the log starts, nothing acknowledged is lost or doubled, it goes on, fsck green.

    ``acknowledged`` are statement numbers with the index they were given. Answers the size the log came back with.
    """
    log = LocalLog.open(root)
    try:
        size = log.sequencer.health().size
        if size:
            log.sequencer.wait_published(size - 1, TIMEOUT)
        entries = log.entries()
        assert len(entries) == size
        payloads = [Leaf.parse(entry).payload for entry in entries]
        for number, index in acknowledged:
            assert payloads[index] == envelope(number).payload_digest, f"leaf {index} was lost"
        with log.catalogue.reading() as session:
            rows = session.execute(select(LogEntryRow.index, LogEntryRow.statement).order_by(LogEntryRow.index)).all()
        assert [(index, Digest(digest)) for index, digest in rows] == list(enumerate(payloads))
        assert len(set(payloads)) == len(payloads), "a leaf was doubled"
        assert log.findings() == []
        unlogged = next(number for number in range(10_000) if envelope(number).payload_digest not in set(payloads))
        assert log.append(unlogged)[0].index == size
        assert log.findings() == []
    finally:
        log.close()
    assert not list((root / "log").rglob("*.tmp"))
    return size
