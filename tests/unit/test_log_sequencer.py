# SPDX-License-Identifier: Apache-2.0
"""The sequencer: batches, their time, restart, heartbeat, witnesses, and what one caller cannot do to another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from pq_registry import limits
from pq_registry.errors import FormatError, LogHalted, LogUnavailable, SettingError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.leaf import Leaf
from pq_registry.format.note import SignatureLine
from pq_registry.log.judge import judge
from pq_registry.log.signers import LogSigners
from pq_registry.storage.catalogue.tables import LogEntryRow, LogStateRow
from tests.local_log import TIMEOUT, FixedClock, LocalLog, envelope, leaf_of, open_catalogue, record_statements, signers
from tests.logsamples import ORIGIN, TIME, compose_policy, log_signers, resigned, witness_signers

COUNT = 700


@pytest.fixture
def root(tmp_path: Path) -> Path:
    catalogue = open_catalogue(tmp_path)
    record_statements(catalogue, COUNT)
    catalogue.close()
    return tmp_path


@pytest.fixture
def log(root: Path) -> Iterator[LocalLog]:
    log = LocalLog.open(root)
    yield log
    log.close()


def test_a_new_log_shows_an_empty_tree_and_its_keys(log: LocalLog) -> None:
    log.sequencer.wait_published(-1, TIMEOUT)
    assert log.shown == Checkpoint(ORIGIN, 0, log.shown.root)
    assert log.tiles.read("vkey").decode() == "".join(f"{key.key}\n" for key in log_signers())
    assert log.findings() == []


def test_leaves_are_in_order_and_carry_the_time_of_the_checkpoint(root: Path) -> None:
    log = LocalLog.open(root, FixedClock(TIME))
    assert [(done.index, done.time) for done in log.append(0, 1, 2)] == [(0, TIME), (1, TIME), (2, TIME)]
    leaves = [Leaf.parse(entry) for entry in log.entries()]
    assert [leaf.payload for leaf in leaves] == [envelope(number).payload_digest for number in range(3)]
    assert {leaf.time for leaf in leaves} == {TIME}
    judged = judge(log.tiles.read("checkpoint"), compose_policy())
    assert (judged.checkpoint.size, judged.log_time, judged.attested) == (3, TIME, None)
    with log.catalogue.reading() as session:
        rows = session.execute(select(LogEntryRow.index, LogEntryRow.statement).order_by(LogEntryRow.index)).all()
    assert rows == [(number, envelope(number).payload_digest.hex) for number in range(3)]
    log.close()


def test_many_threads_and_a_restart(root: Path) -> None:
    indexes: dict[int, int] = {}
    for numbers in (range(300), range(300, COUNT)):
        log = LocalLog.open(root)
        with ThreadPoolExecutor(16) as threads:
            for number, done in zip(numbers, threads.map(log.append, numbers), strict=True):
                indexes[number] = done[0].index
        assert log.findings() == []
        assert log.shown.size == len(indexes)
        log.close()
    assert sorted(indexes.values()) == list(range(COUNT))
    log = LocalLog.open(root)
    payloads = [Leaf.parse(entry).payload for entry in log.entries()]
    assert all(payloads[index] == envelope(number).payload_digest for number, index in indexes.items())
    log.close()


def test_batches_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BATCH_ENTRIES", 7)
    monkeypatch.setattr(limits, "LOG_BATCH_BYTES", 1000)
    log = LocalLog.open(root)
    assert [done.index for done in log.append(*range(40))] == list(range(40))
    assert log.findings() == []
    log.close()


def test_a_leaf_that_cannot_be_made_fails_alone(log: LocalLog) -> None:
    def broken(time: int) -> bytes:
        raise FormatError("no such leaf")

    pending = [
        log.start(0),
        log.sequencer.append(broken),
        log.sequencer.append(lambda time: bytes(limits.LOG_ENTRY_BYTES + 1)),
        log.start(1),
    ]
    assert sorted(pending[number].result(TIMEOUT).index for number in (0, 3)) == [0, 1]
    for number, words in ((1, "no such leaf"), (2, "too long")):
        with pytest.raises(FormatError, match=words):
            pending[number].result(TIMEOUT)
    assert log.append(2)[0].index == 2


def test_a_statement_nobody_recorded_is_refused(log: LocalLog) -> None:
    pending = log.sequencer.append(leaf_of(COUNT), statement=envelope(COUNT).payload_digest)
    with pytest.raises(LogUnavailable):
        pending.result(TIMEOUT)
    assert log.append(0)[0].index == 0
    assert log.findings() == []


def test_a_full_queue_and_a_closed_log_refuse(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_QUEUE_ENTRIES", 1)
    log = LocalLog.open(root)
    entered, go = threading.Event(), threading.Event()

    def slow(time: int) -> bytes:
        entered.set()
        go.wait(TIMEOUT)
        return leaf_of(0)(time)

    first = log.sequencer.append(slow, statement=envelope(0).payload_digest)
    entered.wait(TIMEOUT)
    second = log.start(1)
    with pytest.raises(LogUnavailable, match="too many"):
        log.start(2)
    with pytest.raises(LogUnavailable, match="not taken"):
        second.result(0)
    go.set()
    log.sequencer.close()
    assert [first.result(0).index, second.result(0).index] == [0, 1], "closing loses nothing that was taken"
    assert log.shown.size == 2
    with pytest.raises(LogUnavailable, match="closed"):
        log.start(3)
    log.catalogue.close()


def test_an_unchanged_tree_is_signed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FixedClock(TIME)
    log = LocalLog.open(root, clock)
    log.append(0)
    before = log.tiles.read("checkpoint")
    clock.now += 600
    log.sequencer.renew()
    until(lambda: log.tiles.read("checkpoint") != before)
    assert (log.shown, judge(log.tiles.read("checkpoint"), compose_policy()).log_time) == (
        parse_checkpoint_note(before)[0],
        TIME + 600,
    )
    assert log.findings() == []
    log.close()
    # By itself: at a start that comes late, and then again and again.
    monkeypatch.setattr(limits, "LOG_HEARTBEAT_SECONDS", 0.01)
    clock.now += 600
    log = LocalLog.open(root, clock)
    for _ in range(3):
        clock.now += 1
        wanted = clock.now
        until(lambda: (judge(log.tiles.read("checkpoint"), compose_policy()).log_time or 0) >= wanted)  # noqa: B023
    log.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; the test's time-out is the deadline."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


def has_quorum(log: LocalLog) -> bool:
    published = log.sequencer.health().published
    return published is not None and published.quorum


class Pool:
    """Witnesses that answer as they are told."""

    def __init__(self, count: int) -> None:
        self.answering = count
        self.asked: list[int] = []
        self.old_size = 0
        self.proofs: list[tuple[bytes, ...]] = []
        self.wrong = False

    def cosign(
        self, note: bytes, checkpoint: Checkpoint, consistency: Callable[[int], tuple[bytes, ...]]
    ) -> Sequence[SignatureLine]:
        self.asked.append(checkpoint.size)
        self.proofs.append(consistency(min(self.old_size, checkpoint.size)))
        keys = [key for number in range(1, self.answering + 1) for key in witness_signers(number)]
        signed = Checkpoint(checkpoint.origin, checkpoint.size, b"x" * 32) if self.wrong else checkpoint
        return [key.sign(signed, TIME + 5) for key in keys]


def test_witnesses_cosign_what_is_published(root: Path) -> None:
    pool = Pool(2)
    policy = compose_policy(witnesses=2)
    log = LocalLog.open(root, FixedClock(TIME), witnesses=pool, policy=policy)
    log.append(0, 1, 2)
    judged = judge(log.tiles.read("checkpoint"), policy)
    assert (judged.attested, len(judged.cosigners)) == (TIME + 5, 2)
    assert log.sequencer.health().published == log.sequencer._publisher.published
    pool.old_size = 1
    log.append(3)
    assert pool.asked[-1] == 4
    assert len(pool.proofs[-1]) == 2
    covering = log.lock.published_covering(0)
    assert covering is not None
    assert parse_checkpoint_note(covering)[0].size <= 3
    assert log.findings() == []
    log.close()


@pytest.mark.parametrize("fault", ["away", "too few", "wrong"])
def test_without_a_quorum_the_tree_is_published_and_the_witnesses_are_asked_again(
    root: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_WITNESS_RETRY_SECONDS", 0.01)
    pool = Pool({"away": 0, "too few": 1, "wrong": 2}[fault])
    pool.wrong = fault == "wrong"
    policy = compose_policy(witnesses=2)
    log = LocalLog.open(root, FixedClock(TIME), witnesses=pool, policy=policy)
    log.append(0)
    published = log.sequencer.health().published
    assert published is not None
    assert not published.quorum
    assert len(parse_checkpoint_note(published.note)[1].signatures) == (4 if fault == "too few" else 2)
    pool.wrong, pool.answering = False, 2
    until(lambda: has_quorum(log))
    covering = log.lock.published_covering(0)
    assert covering is not None
    judge(covering, policy)
    # A quorum is not given up for the sake of a newer time.
    pool.answering = 0
    asked = len(pool.asked)
    log.sequencer.renew()
    until(lambda: len(pool.asked) > asked + 1)
    judge(log.tiles.read("checkpoint"), policy)
    # But a larger tree is shown.
    log.append(1)
    assert log.shown.size == 2
    judge(log.lock.published_covering(0) or b"", policy)
    assert log.findings() == []
    log.close()


def test_waiting_for_a_leaf_that_is_not_there_ends(log: LocalLog) -> None:
    with pytest.raises(LogUnavailable, match="no checkpoint with leaf 5"):
        log.sequencer.wait_published(5, 0.01)


def test_keys_that_are_not_a_logs() -> None:
    ed25519, mldsa = log_signers()
    with pytest.raises(SettingError, match="not the keys"):
        LogSigners(mldsa, ed25519)
    with pytest.raises(SettingError, match="two names"):
        LogSigners(ed25519, log_signers("other.example")[1])


def test_a_policy_of_other_keys(root: Path) -> None:
    with pytest.raises(SettingError, match="names other keys"):
        LocalLog.open(root, policy=compose_policy("other.example"))
    assert not (root / "log" / "checkpoint").exists()


def test_a_published_cosignature_that_was_damaged_is_asked_for_again(root: Path) -> None:
    policy = compose_policy(witnesses=1)
    log = LocalLog.open(root, FixedClock(TIME), witnesses=Pool(1), policy=policy)
    log.append(0)
    log.close()
    catalogue = open_catalogue(root)
    with catalogue.writing() as session:
        state = session.scalars(select(LogStateRow)).one()
        assert state.published is not None
        state.published = resigned(state.published, drop=["witness1.example"], add=[wrong_line()])
    catalogue.close()
    log = LocalLog.open(root, FixedClock(TIME), witnesses=Pool(1), policy=policy)
    until(lambda: has_quorum(log))
    judge(log.tiles.read("checkpoint"), policy)
    log.close()


def wrong_line() -> SignatureLine:
    return witness_signers(1)[1].sign(Checkpoint(ORIGIN, 9, b"x" * 32), TIME)


def test_a_fault_nobody_foresaw_halts_and_tells_everybody(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog.open(root)
    log.append(0)
    monkeypatch.setattr(LogSigners, "sign", lambda *_: 1 / 0)
    pending = log.start(1)
    with pytest.raises(LogHalted, match="nobody foresaw"):
        pending.result(TIMEOUT)
    until(lambda: log.sequencer.health().problem is not None)
    with pytest.raises(LogHalted):
        log.start(2)
    with pytest.raises(LogHalted):
        log.sequencer.check()
    monkeypatch.undo()
    assert log.findings() == []
    log.close()
    assert signers().origin == ORIGIN
