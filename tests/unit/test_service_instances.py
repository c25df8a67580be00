# SPDX-License-Identifier: Apache-2.0
"""Several instances and one log: any may be asked, one writes, another takes over, and nothing is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from pq_registry import limits
from pq_registry.errors import LogHalted, LogSuperseded, SettingError, StorageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.log.stores import Batch
from pq_registry.service.ledger import Ledger
from pq_registry.service.terms import Term, TermLock
from pq_registry.storage.leases import LeaseSession
from pq_registry.storage.loglock import CatalogueLock
from tests.instances import Site, fall_asleep, site, statement
from tests.logsetup import log_setup


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path) -> Iterator[Site]:
    with site(postgres_url, tmp_path) as found:
        yield found


def test_one_leads_and_any_may_be_asked(shared: Site) -> None:
    one, two, three = shared.open(), shared.open(), shared.open()
    assert [ledger.leading for ledger in shared.ledgers] == [True, False, False]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: shared.log((one, two, three)[number % 3], number), range(60)))
    assert sorted(each.index for each in found) == list(range(60))
    assert all(each.quorum for each in found)
    assert three.log(statement(7)).index == found[7].index  # asked again, elsewhere: the same leaf
    assert [ledger.health().size for ledger in shared.ledgers] == [60] * 3
    assert [ledger.health().leading for ledger in shared.ledgers] == [True, False, False]
    for ledger in shared.ledgers:
        ledger.check()
    assert shared.findings() == []


def test_an_instance_that_ends_hands_over_at_once(shared: Site) -> None:
    one, two = shared.open(), shared.open()
    shared.log(one, 0)
    began = time.monotonic()
    shared.close(one)
    assert shared.log(two, 1).index == 1
    assert time.monotonic() - began < limits.LEASE_SECONDS - 1  # not by waiting until the lease expires
    assert two.leading
    assert shared.findings() == []


def test_one_that_falls_silent_is_replaced_and_can_commit_no_more(shared: Site) -> None:
    one, two = shared.open(), shared.open()
    shared.log(one, 0)
    sequencer = one._leadership.sequencer
    assert sequencer is not None
    fall_asleep(one)
    began = time.monotonic()
    assert shared.log(two, 1).index == 1
    assert time.monotonic() - began < 10
    # The old sequencer is still there, and would go on.
    with pytest.raises(LogSuperseded):
        sequencer.append(lambda _: b"leaf", statement=shared.record(2)).result(30)
    assert shared.log(two, 3).index in {2, 3}
    assert shared.findings() == []


def test_a_request_survives_the_change(shared: Site) -> None:
    """It waits at an instance that follows while the one that leads falls silent; no error reaches the client."""
    one, two = shared.open(), shared.open()
    shared.log(one, 0)
    fall_asleep(one)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: shared.log(two, number), range(1, 9)))
    assert sorted(each.index for each in found) == list(range(1, 9))


def test_what_was_recorded_and_never_asked_for_is_logged_by_the_next_leader(shared: Site) -> None:
    one, two = shared.open(), shared.open()
    recorded = [shared.record(number) for number in range(20)]
    shared.close(one)
    assert two.log(recorded[3]).quorum
    two.catch_up()
    assert two.health().size == 20
    assert shared.findings() == []


def test_a_follower_logs_nothing_by_itself(shared: Site) -> None:
    shared.open()
    two = shared.open()
    shared.record(0)
    assert two.catch_up() == 0


def test_two_that_believe_to_lead_make_no_fork(shared: Site) -> None:
    """B5: the lease is broken, both write. The lock takes one commit each time; the loser recovers and goes on."""
    one = shared.open()
    shared.log(one, 0)
    fall_asleep(one)
    term = one._leadership._term  # type: ignore[attr-defined]
    term.extend(time.monotonic() + 3600)  # it believes that it leads for an hour
    with LeaseThief(shared.url):
        pass
    two = shared.open()
    acknowledged: dict[int, int] = {}

    def append(ledger: Ledger, first: int) -> None:
        for number in range(first, first + 20):
            acknowledged[number] = shared.persistent(ledger, number).index

    threads = [threading.Thread(target=append, args=(ledger, first)) for ledger, first in ((one, 100), (two, 200))]
    one._leadership._act = type(one._leadership)._act.__get__(one._leadership)  # type: ignore[attr-defined]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(acknowledged) == [*range(100, 120), *range(200, 220)]
    assert len(set(acknowledged.values())) == 40
    assert shared.findings() == []


class LeaseThief:
    """Takes the lease's row away from whoever has it, and gives it back to nobody."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("UPDATE leases SET until_ms = 0, holder = 'nobody'")

    def __exit__(self, *_: object) -> None:
        return


def test_the_lease_may_be_stolen_at_any_time(shared: Site) -> None:
    one, two = shared.open(), shared.open()
    for number in range(30):
        if number % 5 == 4:
            with LeaseThief(shared.url):
                pass
        assert shared.persistent((one, two)[number % 2], number).index == number
    assert shared.findings() == []


@pytest.mark.parametrize("persisted", [True, False])
def test_a_commit_of_which_nobody_knows_is_found_out(shared: Site, persisted: bool) -> None:
    """E2: the connection breaks in COMMIT, before or after it happened. The log goes on; nothing is there twice."""
    one = shared.open()
    shared.log(one, 0)
    sequencer = one._leadership.sequencer
    broken = threading.Event()

    def breaks(connection: Connection) -> None:
        if threading.current_thread().name == "log-sequencer" and not broken.is_set():
            broken.set()
            if persisted:
                connection.connection.driver_connection.commit()  # type: ignore[union-attr]
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("server closed the connection unexpectedly"))

    event.listen(one._catalogue._engine, "commit", breaks)
    assert shared.log(one, 1).index == 1  # waits, and does not notice
    assert broken.is_set()
    assert one._leadership.sequencer is not sequencer
    assert shared.log(one, 2).index == 2
    assert one.health().size == 3
    assert shared.findings() == []


def test_a_term_that_is_over_commits_nothing(shared: Site) -> None:
    now = [100.0]
    term = Term(lambda: now[0])
    lock = TermLock(CatalogueLock(shared.catalogue), term)
    with pytest.raises(LogSuperseded):
        lock.commit(None, b"note", Batch(0, 1))
    term.extend(100.0)
    assert term.holds
    now[0] += limits.LEASE_SECONDS - limits.LEASE_MARGIN_SECONDS
    assert not term.holds
    term.extend(now[0])
    term.end()
    assert not term.holds
    with pytest.raises(LogSuperseded):
        lock.commit(None, b"note", Batch(0, 1))
    assert lock.load() is None


def test_other_keys_are_refused_at_the_start(shared: Site) -> None:
    shared.log(shared.open(), 0)
    with pytest.raises(SettingError, match="other log keys"):
        shared.open(log_setup("log.example/other"))


def test_where_stores_are_not_shared_a_second_service_does_not_start(
    shared: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_START_SECONDS", 1.0)
    shared.open(alone=True)
    with pytest.raises(StorageError, match="another service uses this database"):
        shared.open(alone=True)


def test_the_only_service_starts_again_after_a_crash(shared: Site) -> None:
    one = shared.open(alone=True)
    shared.log(one, 0)
    fall_asleep(one)
    assert shared.log(shared.open(alone=True), 1).index == 1


def test_a_log_that_halts_here_goes_to_another(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEADERLESS_SECONDS", 0.5)
    one, two = shared.open(), shared.open()
    shared.log(one, 0)
    sequencer = one._leadership.sequencer
    assert sequencer is not None
    sequencer._halt(LogHalted("the clock stands still"), [])
    assert shared.persistent(two, 1).index == 1
    assert two.leading
    assert not one.leading
    assert shared.log(one, 2).index == 2  # by the other
    shared.close(two)
    with pytest.raises(StorageError):  # and it does not lead again, although nobody else does
        wait_until_not_ready(one)
    assert not one.leading


def wait_until_not_ready(ledger: Ledger) -> None:
    """Ask until the instance says that nobody writes the log."""
    pause = threading.Event()
    for _ in range(2000):
        ledger.check()
        pause.wait(0.02)


def test_without_a_leader_an_instance_is_not_ready(shared: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEADERLESS_SECONDS", 0.5)
    one, two = shared.open(), shared.open()
    two.check()
    elected = two._leadership
    elected._not_before = float("inf")  # type: ignore[attr-defined]  # it may not campaign
    shared.close(one)
    with pytest.raises(StorageError, match="no instance"):
        wait_until_not_ready(two)
    assert two.health().problem is not None
    assert two.receipt(shared.record(0)) is None  # what is there can be read


def test_the_checkpoint_never_goes_back(shared: Site) -> None:
    """Whoever leads: what readers see only grows."""
    one, two = shared.open(), shared.open()
    sizes = []
    for number in range(20):
        shared.persistent((one, two)[number % 2], number)
        sizes.append(parse_checkpoint_note(shared.tiles.read("checkpoint"))[0].size)
        if number in {6, 13}:
            with LeaseThief(shared.url):
                pass
    assert sizes == sorted(sizes)


def test_a_lease_is_held_by_one(postgres_url: str, shared: Site) -> None:
    barrier = threading.Barrier(8)
    sessions = [LeaseSession.open(postgres_url, "test", f"holder {number}") for number in range(8)]

    def take(session: LeaseSession) -> bool:
        barrier.wait()
        return session.take()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, sessions)) == 1
    for session in sessions:
        session.close()
