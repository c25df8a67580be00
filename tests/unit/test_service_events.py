# SPDX-License-Identifier: Apache-2.0
"""Audit events outside the database: exported, continued, compared, pruned; and what gives a forger away."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, text, update

from pq_registry.errors import EventsInvalid, FormatError
from pq_registry.format.eventline import START, Event, Link
from pq_registry.format.instant import utc_now
from pq_registry.service import audit
from pq_registry.service.events import End, Events
from pq_registry.service.tokens import host_caller
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import AuditEventRow
from pqreg_cli.eventfile import add_events, extent, read_events
from pqreg_cli.main import run

NOW = utc_now()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)
    yield opened
    opened.close()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Catalogue]:
    opened = Catalogue.open_postgres(postgres_url, upgrade=True)
    yield opened
    opened.close()


@pytest.fixture
def events(catalogue: Catalogue) -> Events:
    return Events(catalogue, utc_now)


def happen(catalogue: Catalogue, *subjects: str, days_ago: int = 0) -> None:
    at = NOW - timedelta(days=days_ago)
    for subject in subjects:
        with catalogue.writing() as session:
            audit.record(session, host_caller(), at, audit.Action.TAG_SET, subject, sequence=1, x=None)


def tamper(catalogue: Catalogue, statement: Any) -> None:
    with catalogue.writing() as session:
        session.execute(statement)


def end(events: Events) -> End:
    last = list(events.chain())[-1]
    return End(last.event.id, last.hash)


def test_a_line_says_what_it_is_bound_to(catalogue: Catalogue, events: Events) -> None:
    happen(catalogue, "acme/minilm:v1", "acme/minilm:ü")
    first, second = events.chain()
    assert (first.previous, second.previous) == (START, first.hash)
    value = json.loads(second.encode())
    found = value.pop("hash")
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(plain).hexdigest() == found, "anybody can check it with a hash and a JSON library"
    assert Link.parse(second.encode()) == second


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("subject", "acme/other:v1"), ("id", 9), ("at", "2020-01-01T00:00:00Z"), ("token", "0" * 16),
        ("detail", {"sequence": 2, "x": None}), ("previous", "1" * 64), ("hash", "1" * 64), ("hash", []),
        ("previous", "x"), ("more", 1), ("id", True), ("detail", []), ("at", 1), ("at", "yesterday"),
    ],
)  # fmt: skip
def test_a_line_that_was_changed_is_refused(catalogue: Catalogue, events: Events, member: str, value: object) -> None:
    happen(catalogue, "acme/minilm:v1")
    value = {**json.loads(next(events.chain()).encode()), member: value}
    line = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises((EventsInvalid, FormatError)):
        Link.parse(line)


def test_an_export_goes_on_where_it_ended(catalogue: Catalogue, events: Events, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    happen(catalogue, "a", "b")
    assert add_events(file, events.chain()) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(events.after(end(events))) == []
    happen(catalogue, "c")
    assert add_events(file, events.after(End(2, extent([file]).last.hash))) == 1
    assert [link.event.subject for link in read_events([file])] == ["a", "b", "c"]
    assert events.compare(read_events([file])) == 3


def test_half_a_line_of_a_crash_is_written_again(catalogue: Catalogue, events: Events, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    happen(catalogue, "a", "b")
    add_events(file, events.chain())
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(FormatError, match="cut off"):
        extent([file])
    last = extent([file], torn=True).last
    add_events(file, events.after(End(last.event.id, last.hash)))
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "forgery",
    [
        update(AuditEventRow).where(AuditEventRow.id == 2).values(subject="x"),
        update(AuditEventRow).where(AuditEventRow.id == 2).values(detail='{"sequence":7}'),
        update(AuditEventRow).where(AuditEventRow.id == 2).values(token_id="f" * 16),
        delete(AuditEventRow).where(AuditEventRow.id == 2),
        delete(AuditEventRow).where(AuditEventRow.id == 3),
        delete(AuditEventRow),
        text("UPDATE audit_events SET at = at - 1 WHERE id = 1"),
    ],
)
def test_what_was_exported_cannot_be_changed_unnoticed(
    catalogue: Catalogue, events: Events, tmp_path: Path, forgery: Any
) -> None:
    file = tmp_path / "events.jsonl"
    happen(catalogue, "a", "b", "c")
    exported = end(events)
    add_events(file, events.chain())
    happen(catalogue, "d")
    tamper(catalogue, forgery)
    with pytest.raises(EventsInvalid):
        list(events.after(exported))
    with pytest.raises(EventsInvalid):
        events.compare(read_events([file]))
    with pytest.raises(EventsInvalid):
        events.prune(host_caller(), exported, NOW + timedelta(days=1))


def test_a_forged_pruning_hides_nothing_that_was_not_exported(catalogue: Catalogue, events: Events) -> None:
    happen(catalogue, "a", "b")
    exported = end(events)
    happen(catalogue, "c")
    tamper(catalogue, delete(AuditEventRow).where(AuditEventRow.id <= 3))
    with catalogue.writing() as session:
        audit.record(session, host_caller(), NOW, audit.Action.EVENTS_PRUNED, "x", through=3, hash="5" * 64)
    with pytest.raises(EventsInvalid):
        list(events.after(exported))


def test_pruning_keeps_the_chain(catalogue: Catalogue, events: Events, tmp_path: Path) -> None:
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    happen(catalogue, "a", "b", days_ago=400)
    happen(catalogue, "c", days_ago=10)
    happen(catalogue, "late", days_ago=500)  # a clock that went back: not removed, since what is before it stays
    add_events(old, events.chain())
    exported = end(events)
    happen(catalogue, "not exported", days_ago=400)
    before = NOW - timedelta(days=365)
    assert events.prune(host_caller(), exported, before) == 2
    assert events.prune(host_caller(), exported, before) == 0
    subjects = [link.event.subject for link in events.chain()]
    assert subjects == ["c", "late", "not exported", "audit events"]
    assert events.compare(read_events([old])) == 2, "what is left of the export is unchanged"
    add_events(new, events.after(exported))
    assert extent([old, new]).count == 6, "old and new export are one chain"
    assert events.compare(read_events([old, new])) == 4
    assert events.compare(read_events([new])) == 2
    with pytest.raises(EventsInvalid, match="does not follow"):
        extent([new, old])
    assert events.prune(host_caller(), end(events), NOW + timedelta(days=1)) == 4
    assert [link.event.action for link in events.chain()] == ["events-pruned"]
    assert list(events.after(End(6, extent([old, new]).last.hash)))


def test_pruning_keeps_what_fsck_knows_lost_leaves_by(catalogue: Catalogue, events: Events, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    with catalogue.writing() as session:
        moved = NOW - timedelta(days=400)
        audit.record(session, host_caller(), moved, audit.Action.LOG_MOVED, "log.example", start=7, end=9, lost=2)
    happen(catalogue, "a", days_ago=400)
    exported = End(0, START)
    for _ in range(2):
        add_events(file, events.after(exported))
        exported = end(events)
        events.prune(host_caller(), exported, NOW + timedelta(days=1))
        (kept,) = [link.event for link in events.chain() if link.event.action == "log-moved"]
        assert (kept.at, kept.detail) == (moved, {"start": 7, "end": 9, "lost": 2})
    assert extent([file]).count == 4, "what was exported is one chain"


def test_postgresql_numbers_and_chains_them_alike(catalogue: Catalogue, postgres: Catalogue) -> None:
    chains = []
    for one in (catalogue, postgres):
        happen(one, "a", "ü", days_ago=400)
        with pytest.raises(ZeroDivisionError), one.writing() as session:
            audit.record(session, host_caller(), NOW, audit.Action.TAG_SET, "b")
            session.flush()  # PostgreSQL gives no number twice, so that this one is left out
            raise ZeroDivisionError
        happen(one, "c")
        events = Events(one, utc_now)
        chains.append([link.hash for link in events.chain()])
        assert events.prune(host_caller(), end(events), NOW - timedelta(days=1)) == 2
        assert [link.event.subject for link in events.chain()] == ["c", "audit events"]
        assert events.compare(events.chain()) == 2
    assert chains[0][:2] == chains[1][:2]


def test_an_event_that_is_rolled_back_is_told_to_nobody(catalogue: Catalogue) -> None:
    told: list[dict[str, Any]] = []
    logger, handler = logging.getLogger("pq_registry.events"), logging.Handler()
    handler.emit = lambda record: told.append(record.__dict__["pqreg"])  # type: ignore[method-assign]
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        happen(catalogue, "a")
        with pytest.raises(ZeroDivisionError), catalogue.writing() as session:
            audit.record(session, host_caller(), NOW, audit.Action.TAG_SET, "b")
            session.flush()
            raise ZeroDivisionError
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert [fields["subject"] for fields in told] == ["a"]
    assert told[0]["action"] == "tag-set"


def test_the_commands(catalogue: Catalogue, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pqreg(*words: object, expect: int = 0) -> str:
        capsys.readouterr()
        try:
            status = run([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = capsys.readouterr()
        assert status == expect, (out, err)
        return out if not expect else err

    where = ("--data", tmp_path)
    file, next_file = tmp_path / "events.jsonl", tmp_path / "next.jsonl"
    assert "nothing" not in pqreg("events", "export", file, *where)
    assert not file.exists(), "no events, no file"
    happen(catalogue, "acme/minilm:v1", "beta/x:main")
    pqreg("token", "create", "--role", "admin", "--namespace", "*", "--note", "break glass", *where)
    pqreg("token", "create", "--role", "reader", "--namespace", "a", "--note", f"was pqreg_{'x' * 43}", *where)
    assert "pqreg_" not in pqreg("events", "list", "--json", *where)
    pqreg("events", "export", tmp_path / "aside.jsonl", *where)
    tamper(catalogue, delete(AuditEventRow).where(AuditEventRow.detail.contains("[token]")))
    [made] = json.loads(pqreg("events", "list", "--action", "token-created", "--host", "--json", *where))
    assert made["request"].startswith("host:")
    assert made["detail"]["note"] == "break glass"
    assert [row["subject"] for row in json.loads(pqreg("events", "list", "--subject", "acme/", "--json", *where))] == [
        "acme/minilm:v1"
    ]
    assert json.loads(pqreg("events", "list", "--since", "2099-01-01", "--json", *where)) == []
    assert "usage" not in pqreg("events", "list", "--since", "soon", *where, expect=2)
    assert json.loads(pqreg("events", "export", file, "--json", *where))["added"] == 3
    assert json.loads(pqreg("events", "export", file, "--json", *where))["added"] == 0
    happen(catalogue, "later")
    pqreg("events", "export", next_file, "--after", file, *where)
    assert "is there already" in pqreg("events", "export", next_file, "--after", file, *where, expect=2)
    assert json.loads(pqreg("events", "check", file, next_file, "--stored", "--json", *where))["stored"] == 4
    assert "4 events, 1 to 4" in pqreg("events", "check", file, next_file)
    assert pqreg("events", "export", "-", *where).encode() == file.read_bytes() + next_file.read_bytes()
    tamper(catalogue, update(AuditEventRow).where(AuditEventRow.id == 2).values(subject="x"))
    assert "not lead to" in pqreg("events", "export", next_file, *where, expect=1)
    assert "event 2 is not" in pqreg("events", "check", file, "--stored", *where, expect=1)
    file.write_bytes(file.read_bytes().replace(b"beta/x", b"beta/y"))
    assert "line 2: event 2 was changed" in pqreg("events", "check", file, expect=1)


def test_chains_of_events_are_what_a_simple_reading_of_the_format_says() -> None:
    event = Event(id=1, at=NOW, request="host", token="", action="tag-set", subject="s", detail={"n": 1})
    assert Link.after(START, event).hash != Link.after("1" * 64, event).hash
