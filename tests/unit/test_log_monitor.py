# SPDX-License-Identifier: Apache-2.0
"""The monitor: every leaf once, whatever the sizes and wherever it was stopped; nothing that does not follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import (
    CheckpointInvalid,
    FormatError,
    LogEquivocation,
    LogMisbehaved,
    LogRollback,
    QuorumNotMet,
    TileMismatch,
)
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.instant import from_unix
from pq_registry.log.misbehaviour import keep_notes, proves_fork
from pq_registry.log.monitor import Monitor, judge_any
from tests.logsamples import TIME, MemoryLog, resigned
from tests.monitoring import State, grown


def monitor(log: MemoryLog, state: State) -> Monitor:
    return Monitor(log.reader(), log.policies(), state)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 4096, 5000])
def test_every_leaf_in_order(size: int) -> None:
    log, state = MemoryLog(), State()
    note = grown(log, size)
    assert list(monitor(log, state).advance(note)) == list(enumerate(log.entries))
    assert state.followed is not None and state.followed.size == size
    assert list(monitor(log, state).advance(note)) == []


def test_empty_and_large_entries() -> None:
    log, state = MemoryLog(), State()
    log.append_raw(b"", b"x" * 65535, b"")
    assert [entry for _, entry in monitor(log, state).advance(log.publish())] == log.entries


@given(st.lists(st.integers(0, 700), min_size=1, max_size=5))
def test_growth_in_steps_of_any_size(sizes: list[int]) -> None:
    log, state = MemoryLog(), State()
    seen: list[tuple[int, bytes]] = []
    for size in sorted(sizes):
        seen += monitor(log, state).advance(grown(log, size))
    assert seen == list(enumerate(log.entries))


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
@pytest.mark.parametrize("later", [1000, 1001, 1500])
def test_killed_after_any_batch_it_goes_on_there_also_when_the_log_has_grown(kept: int, later: int) -> None:
    log, state = MemoryLog(), State()
    seen: list[bytes] = []
    for number, batch in enumerate(monitor(log, state).batches(grown(log, 1000), leaves=256)):
        if number == kept:
            break  # killed between what was made of this batch and its transaction: it comes again
        seen += batch.entries
        state.keep(batch.followed)
    for batch in monitor(log, state).batches(grown(log, later), leaves=256):
        assert batch.start == len(seen)
        seen += batch.entries
        state.keep(batch.followed)
    assert seen == log.entries


@pytest.mark.parametrize(
    ("first", "second", "error"), [(300, 299, LogRollback), (300, 0, LogRollback), (300, 300, LogEquivocation),
                                   (300, 301, LogEquivocation), (1, 600, LogEquivocation)]
)  # fmt: skip
def test_b4_what_does_not_follow_is_kept_and_changes_nothing(
    first: int, second: int, error: type[LogMisbehaved]
) -> None:
    log, state = MemoryLog(witnesses=1), State()
    old = grown(log, first)
    list(monitor(log, state).advance(old))
    before = state.followed
    other = MemoryLog(witnesses=1)
    other.append_raw(*(f"other {number}".encode() for number in range(second)))
    new = other.publish()
    for _ in range(2):  # it does not get used to it
        with pytest.raises(error) as caught:
            list(Monitor(other.reader(), log.policies(), state).advance(new))
        assert caught.value.exit_code == 4
        assert state.followed == before
    assert state.misbehaviour == [(error, old, new)] * 2
    for fork in state.forks:
        shown = parse_checkpoint_note(old)[0], parse_checkpoint_note(new)[0]
        assert (fork is not None) is (first < second)
        if fork is not None:
            assert ForkProof.parse(fork.encode()) == fork
            assert proves_fork(fork, *shown)
            assert not proves_fork(fork, shown[1], shown[0])
            assert not proves_fork(replace(fork, root=shown[0].root), *shown)
            assert not proves_fork(replace(fork, hashes=fork.hashes[1:]), *shown)
            assert not proves_fork(fork, replace(shown[0], origin="other.example"), shown[1])
            assert not proves_fork(fork, replace(shown[0], root=fork.root), shown[1])  # that one does continue
    assert list(monitor(log, state).advance(grown(log, first + 5))) == list(enumerate(log.entries))[first:]


def test_a_fork_below_the_leaves_not_yet_read_is_caught_too() -> None:
    log, state = MemoryLog(), State()
    note = grown(log, 1000)
    batches = monitor(log, state).batches(note, leaves=256)
    state.keep(next(batches).followed)
    fork = log.fork(at=600)
    fork.append_raw(*(b"forged" for _ in range(500)))
    forged = fork.publish()
    with pytest.raises(LogEquivocation):
        list(Monitor(fork.reader(), log.policies(), state).batches(forged))


def test_b10_the_same_tree_signed_again_is_no_news_and_newer() -> None:
    log, state = MemoryLog(witnesses=1), State()
    list(monitor(log, state).advance(grown(log, 3)))
    log.time += 600
    renewed = log.publish()
    assert list(monitor(log, state).advance(renewed)) == []
    assert state.followed is not None and state.followed.note == renewed and state.followed.size == 3


def test_tampered_tiles_are_refused_and_are_no_proof_against_the_log() -> None:
    log = MemoryLog()
    note = grown(log, 600)
    for path, data in list(log.files.items()):
        if path == "checkpoint":
            continue
        log.files[path] = data[:-1] + bytes([data[-1] ^ 1])
        state = State()
        with pytest.raises(TileMismatch):
            list(monitor(log, state).advance(note))
        assert not state.misbehaviour
        log.files[path] = data


def test_an_altered_state_is_noticed() -> None:
    log, state = MemoryLog(), State()
    note = grown(log, 300)
    state.keep(next(monitor(log, state).batches(note, leaves=256)).followed)
    assert state.followed is not None
    state.followed = replace(state.followed, peaks=(bytes(32),))
    with pytest.raises(CheckpointInvalid, match="another root"):
        list(monitor(log, state).advance(note))


def test_another_log_is_not_followed_in_its_place() -> None:
    log, other, state = MemoryLog(), MemoryLog("other.example"), State()
    list(monitor(log, state).advance(grown(log, 3)))
    with pytest.raises(CheckpointInvalid, match="another log"):
        Monitor(other.reader(), [*log.policies(), *other.policies()], state).accept(grown(other, 3))


def test_a_checkpoint_no_policy_accepts() -> None:
    log = MemoryLog(witnesses=2)
    note = grown(log, 3)
    assert len(judge_any(note, log.policies()).cosigners) == 2
    with pytest.raises(QuorumNotMet):
        judge_any(resigned(note, drop=["witness1.example"]), log.policies())
    with pytest.raises(CheckpointInvalid, match="no policy"):
        judge_any(note, MemoryLog("other.example").policies())
    with pytest.raises(CheckpointInvalid, match="no policy"):
        judge_any(note, ())
    with pytest.raises(FormatError):
        judge_any(b"", log.policies())


def test_the_policy_whose_window_holds_is_taken() -> None:
    log = MemoryLog(witnesses=1)
    note = grown(log, 3)
    when = from_unix(TIME)
    day = timedelta(days=1)
    for start, end, good in ((None, None, True), (when, None, True), (None, when, False), (None, when + day, True)):
        policies = log.policies(start, end)
        if good:
            assert judge_any(note, policies).attested == TIME
        else:
            with pytest.raises(CheckpointInvalid, match="does not hold"):
                judge_any(note, policies)
    assert judge_any(note, [*log.policies(None, when), *log.policies(when, None)]).attested == TIME


def test_evidence_is_written_once_and_never_over_anything(tmp_path: Path) -> None:
    paths = keep_notes(tmp_path / "evidence", b"one", b"other")
    assert [path.read_bytes() for path in paths] == [b"one", b"other"]
    times = [path.stat().st_mtime_ns for path in paths]
    assert keep_notes(tmp_path / "evidence", b"other", b"one", b"third")[:2] == paths[::-1]
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


def test_batches_end_where_tiles_do() -> None:
    log, state = MemoryLog(), State()
    list(monitor(log, state).advance(grown(log, 300)))
    sizes = [len(batch.entries) for batch in monitor(log, state).batches(grown(log, 1100), leaves=256)]
    assert sizes == [212, 256, 256, 76]


@pytest.mark.parametrize(
    "bend",
    [
        lambda data: data + b"\n", lambda data: data[:-1], lambda data: data.replace(b"v1", b"v2"), lambda _data: b"",
        lambda data: data.replace(b"root", b"Root"), lambda data: data.replace(b"old ", b"old  "),
        lambda data: data.replace(b"\n", b"\r\n"), lambda data: data + b"x" * 5000, lambda data: data + b"\xff\n",
        lambda data: data.replace(b"=\n", b"\n", 1), lambda data: data + data.splitlines(True)[-1] * 64,
    ],
    ids=["line", "cut", "version", "nothing", "name", "space", "crlf", "large", "latin", "padding", "hashes"],
)  # fmt: skip
def test_malformed_fork_proofs(bend: Callable[[bytes], bytes]) -> None:
    data = ForkProof(Digest.of(b"a"), Digest.of(b"b"), bytes(32), (bytes(32),) * 2).encode()
    assert ForkProof.parse(data).encode() == data
    with pytest.raises(FormatError):
        ForkProof.parse(bend(data))
