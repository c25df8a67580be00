# SPDX-License-Identifier: Apache-2.0
"""What an audit remembers: one SQLite database in its state directory, and the notes of a log that misbehaved.

::

    STATE/audit.sqlite      leaves, facts, findings, and how far the log has been followed
    STATE/evidence/         checkpoints that contradict each other, and fork proofs; never overwritten
    STATE/lock              held while an audit runs: two audits of one state would tell half of it each

How far the log was followed changes in the transaction that records the leaves, and a leaf's state in the one that
records what was made of it, so a kill at any point loses nothing and counts nothing twice. Every transaction is
durable (``synchronous=EXTRA``). A database of another form is refused, never repaired.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from pq_registry.client.audit.finding import Finding
from pq_registry.client.audit.judging import Judgement
from pq_registry.durable import make_directory, reported
from pq_registry.errors import LogMisbehaved, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.instant import format_instant
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.tile import HASH_BYTES
from pq_registry.log.misbehaviour import FORK_SUFFIX, keep_evidence, keep_notes
from pq_registry.log.monitor import Batch, Followed

SCHEMA: Final = "urn:pq-registry:audit-state:v1"
UNCHECKED, GOOD, UNCOVERED, BAD = range(4)
"""States of a leaf: not yet judged, as it should be, of a namespace the trust file does not list, found fault with."""

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE leaves (
    idx INTEGER PRIMARY KEY, identity TEXT, kind TEXT, name TEXT, namespace TEXT, payload TEXT, ec TEXT, pq TEXT,
    time INTEGER, attested INTEGER, state INTEGER NOT NULL);
CREATE INDEX leaves_payload ON leaves (payload);
CREATE INDEX leaves_signer ON leaves (namespace, identity);
CREATE INDEX leaves_unchecked ON leaves (idx) WHERE state = 0;
CREATE TABLE facts (
    idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, subject TEXT NOT NULL,
    signer TEXT NOT NULL, payload TEXT NOT NULL, sequence INTEGER, previous TEXT, target TEXT, recipient TEXT,
    issued TEXT, until TEXT, time INTEGER NOT NULL);
CREATE INDEX facts_chain ON facts (kind, subject, sequence);
CREATE INDEX facts_target ON facts (kind, target);
CREATE INDEX facts_recipient ON facts (kind, namespace, recipient);
CREATE TABLE revocations (
    idx INTEGER NOT NULL, namespace TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (idx, kind, subject)) WITHOUT ROWID;
CREATE INDEX revocations_subject ON revocations (namespace, kind, subject);
CREATE TABLE findings (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, code TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    idx INTEGER, statement TEXT, message TEXT NOT NULL, expected TEXT, found TEXT, noticed TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0, acknowledged TEXT, note TEXT);
CREATE TABLE misbehaviour (
    old TEXT NOT NULL, new TEXT NOT NULL, fork TEXT, code TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (old, new));
"""


_INSERT_LEAF: Final = "INSERT INTO leaves VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class AuditIndex:
    """The state of an audit; a context manager. ``log.monitor.MonitorState`` is among what it can do."""

    def __init__(self, directory: Path | None) -> None:
        """Open or make the state; None keeps it in memory, for bundles.

        Raises:
            StorageError: if it cannot be opened, is not of this form, or an audit is running on it.
        """
        self.directory = directory
        self._lock: int | None = None
        if directory is not None:
            make_directory(directory, 0o700)
            self._lock = _locked(directory)
        try:
            with _reported(directory):
                path = ":memory:" if directory is None else str(directory / "audit.sqlite")
                # Autocommit: every transaction here begins and ends explicitly.
                self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                self._database.row_factory = sqlite3.Row
                self._prepare()
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let other audits in."""
        self._database.close()
        self._unlock()

    # -- the log, as log.monitor wants it kept -----------------------------------------------------------------------

    def load(self) -> Followed | None:
        """How far the log has been followed."""
        note = self.meta("note")
        if note is None:
            return None
        peaks, size = self.meta("peaks") or b"", int(self.meta("size") or b"0")
        return Followed(note, size, tuple(peaks[at : at + HASH_BYTES] for at in range(0, len(peaks), HASH_BYTES)))

    def keep(self, followed: Followed) -> None:
        """Replace how far the log has been followed."""
        with self.transaction():
            self._keep(followed)

    def keep_misbehaviour(self, error: LogMisbehaved, old: bytes, new: bytes, fork: ForkProof | None) -> None:
        """Write both notes, and the proof if there is one, to ``evidence/``, and remember why."""
        if self.directory is not None:
            keep_notes(self.directory / "evidence", old, new)
            if fork is not None:
                keep_evidence(self.directory / "evidence", fork.encode(), FORK_SUFFIX)
        with self.transaction():
            self.execute(
                "INSERT OR IGNORE INTO misbehaviour VALUES (?, ?, ?, ?, ?)",
                (
                    Digest.of(old).hex,
                    Digest.of(new).hex,
                    None if fork is None else Digest.of(fork.encode()).hex,
                    error.code(),
                    str(error),
                ),
            )

    def record(self, batch: Batch, leaves: Sequence[Leaf | Finding], *, noticed: datetime) -> None:
        """Record new leaves and how far the log has now been followed, in one transaction.

        Args:
            batch: what the monitor gave.
            leaves: for each entry its leaf, or the finding that it is none.
            noticed: the time of this audit.
        """
        rows = [
            _row(index, leaf) if isinstance(leaf, Leaf) else (index, *(None,) * 9, BAD)
            for index, leaf in enumerate(leaves, batch.start)
        ]
        with self.transaction():
            self._database.executemany(_INSERT_LEAF, rows)
            self.add_findings([leaf for leaf in leaves if isinstance(leaf, Finding)], noticed=noticed)
            self._keep(batch.followed)

    def add_leaf(self, index: int, leaf: Leaf) -> None:
        """Record one leaf wherever it stands; for evidence, which need not hold them all."""
        with self.transaction():
            self.execute(_INSERT_LEAF, _row(index, leaf))

    # -- statements --------------------------------------------------------------------------------------------------

    def unchecked(self, limit: int) -> list[tuple[int, Leaf]]:
        """The first leaves nobody has judged yet."""
        rows = self.rows("SELECT * FROM leaves WHERE state = 0 ORDER BY idx LIMIT ?", limit)
        return [(row["idx"], leaf_of(row)) for row in rows]

    def unchecked_count(self) -> int:
        """How many leaves nobody has judged yet."""
        return int(self.value("SELECT count(*) FROM leaves WHERE state = 0"))

    def judged(self, judgements: Iterable[Judgement], *, noticed: datetime) -> None:
        """Record what came of some leaves, in one transaction."""
        with self.transaction():
            for judgement in judgements:
                self._judged(judgement)
                self.add_findings(judgement.findings, noticed=noticed)

    def _judged(self, judgement: Judgement) -> None:
        state = BAD if judgement.findings else GOOD if judgement.covered else UNCOVERED
        self.execute(
            "UPDATE leaves SET state = ?, attested = ? WHERE idx = ?", (state, judgement.attested, judgement.index)
        )
        fact = judgement.fact
        if fact is None:
            return
        leaf = judgement.leaf
        namespace = leaf.name.partition("/")[0].lower()
        time = leaf.time if judgement.attested is None else judgement.attested
        self.execute(
            "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (judgement.index, fact.kind.value, namespace, leaf.name, fact.subject, fact.signer, leaf.payload.hex,
             fact.sequence, fact.previous.hex if fact.previous else None, fact.target.hex if fact.target else None,
             fact.recipient, fact.issued, fact.until, time),
        )  # fmt: skip
        self._database.executemany(
            "INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?, ?)",
            [
                (judgement.index, namespace, entry.kind.value, entry.subject, int(entry.since.timestamp()))
                for entry in fact.revoked
            ],
        )

    def forget_judgements(self) -> None:
        """Let every leaf be judged and compared again. Findings stay; those that are made again are the same."""
        with self.transaction():
            self.execute("UPDATE leaves SET state = 0, attested = NULL WHERE kind IS NOT NULL")
            for table in ("facts", "revocations"):
                self.execute(f"DELETE FROM {table}")  # noqa: S608  two names
            self.execute("DELETE FROM meta WHERE key IN ('compared', 'trust')")

    # -- findings ----------------------------------------------------------------------------------------------------

    def add_findings(self, findings: Iterable[Finding], *, noticed: datetime) -> int:
        """Keep findings; one that was made before changes nothing. Answers how many are new. Inside a transaction."""
        before = self._database.total_changes
        self._database.executemany(
            "INSERT OR IGNORE INTO findings (key, code, namespace, name, idx, statement, message, expected, found,"
            " noticed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (one.key, one.code.value, one.namespace, one.name, one.index,
                 None if one.statement is None else one.statement.hex, one.message, one.expected, one.found,
                 format_instant(noticed))
                for one in findings
            ],
        )  # fmt: skip
        return self._database.total_changes - before

    # -- plumbing ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable afterwards.

        Raises:
            StorageError: if the database fails; nothing has then changed.
        """
        with _reported(self.directory):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._database.in_transaction:  # of some errors, a full disk among them, it has rolled back itself
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def execute(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Change something, inside a transaction."""
        self._database.execute(statement, values)

    def rows(self, query: str, *values: Any) -> Iterator[sqlite3.Row]:
        """The rows of a query, read as they are taken. Raises StorageError."""
        with _reported(self.directory):
            yield from self._database.execute(query, values)

    def value(self, query: str, *values: Any) -> Any:
        """The one value a query gives, or None."""
        with _reported(self.directory):
            row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]

    def meta(self, key: str) -> bytes | None:
        """A value kept by name."""
        found = self.value("SELECT value FROM meta WHERE key = ?", key)
        return None if found is None else bytes(found)

    def set_meta(self, key: str, value: bytes) -> None:
        """Keep a value by name, inside a transaction."""
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _keep(self, followed: Followed) -> None:
        self.set_meta("note", followed.note)
        self.set_meta("size", str(followed.size).encode())
        self.set_meta("peaks", b"".join(followed.peaks))

    def _prepare(self) -> None:
        self._database.execute("PRAGMA synchronous=EXTRA")
        self._database.execute("PRAGMA trusted_schema=OFF")
        known = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not known:
            self._database.executescript(f"BEGIN IMMEDIATE;{_TABLES}")
            self.set_meta("schema", SCHEMA.encode())
            self._database.execute("COMMIT")
        elif self.meta("schema") != SCHEMA.encode():
            raise StorageError(
                "the state directory holds another kind of database", expected=SCHEMA,
                hint="give --state a directory of its own",
            )  # fmt: skip

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _row(index: int, leaf: Leaf) -> tuple[object, ...]:
    namespace = leaf.name.partition("/")[0].lower()
    digests = (leaf.payload.hex, leaf.ec.hex, leaf.pq.hex)
    return (index, leaf.identity, leaf.kind.value, leaf.name, namespace, *digests, leaf.time, None, UNCHECKED)


def leaf_of(row: sqlite3.Row) -> Leaf:
    """The leaf in a row of ``leaves``."""
    return Leaf(
        identity=row["identity"], kind=Kind(row["kind"]), name=row["name"], payload=Digest(row["payload"]),
        ec=Digest(row["ec"]), pq=Digest(row["pq"]), time=row["time"],
    )  # fmt: skip


def _locked(directory: Path) -> int:
    path = directory / "lock"
    with reported("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StorageError(
                f"an audit is running on {directory}",
                hint="wait for it; one that follows (--follow) has to be stopped, and goes on where it was",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


@contextlib.contextmanager
def _reported(directory: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        where = "in memory" if directory is None else f"in {directory}"
        raise StorageError(
            f"the audit's state {where} cannot be used", found=str(error),
            hint="see that the disk is writable and has room, and run it again; if the state was altered or damaged, "
            "keep it and start another, which knows nothing of the log's past",
        ) from error  # fmt: skip
