# SPDX-License-Identifier: Apache-2.0
"""Asking witnesses: honest ones at any size, and ones that lie, lag, restart, stall or are not there."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import StorageError, WitnessRefused
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.note import Note, SignatureLine
from pq_registry.format.tlogpolicy import Policy
from pq_registry.log.judge import judge
from pq_registry.service.cosigning import Outcome
from pq_registry.service.witnessing import WitnessPool, witness_pool
from pq_registry.storage.witnessstate import WitnessState
from tests.logsamples import TIME, MemoryLog, log_signers, witness_signers
from tests.witnessing import Hand, grow, grown, make_witness, replying, serving

Reply = Callable[[AddCheckpoint], tuple[int, str, bytes] | None]
PATIENCE = 20.0


def policy_of(urls: dict[int, str | None], quorum: int) -> Policy:
    """The policy of a log whose witnesses have these URLs, by their number."""
    ed25519, mldsa = (signer.key for signer in log_signers())
    members = [(f"w{number}", [s.key for s in witness_signers(number)], url) for number, url in urls.items()]
    return Policy.compose(ed25519, mldsa, members, quorum)


@contextmanager
def pool_of(
    urls: dict[int, str | None], quorum: int = 1, clock: Hand | None = None, patience: float = PATIENCE
) -> Iterator[WitnessPool]:
    pool = WitnessPool(policy_of(urls, quorum), (clock or Hand()).now, wait_seconds=patience)
    try:
        yield pool
    finally:
        pool.close()


def cosigned(pool: WitnessPool, log: MemoryLog, note: bytes | None = None) -> list[SignatureLine]:
    """What the log asks; its newest checkpoint unless told otherwise."""
    note = note or log.publish(cosigned=False)
    checkpoint, _ = parse_checkpoint_note(note)
    lines = list(pool.cosign(note, checkpoint, lambda old: log.tree(note).consistency_proof(old)))
    for line in lines:
        keys = [s.key for number in range(1, 5) for s in witness_signers(number) if s.key.key_id == line.key_id]
        verify_line(keys[0], checkpoint, line)
    return lines


def outcomes(pool: WitnessPool, at: int = 0) -> dict[str, int]:
    return {name: count for name, count in pool.view()[at].outcomes.items() if count}


def lines_by(*numbers: int, time: int = TIME, wrong: bool = False) -> Reply:
    """Answers with lines of these witnesses over what was sent, or over something else."""

    def reply(request: AddCheckpoint) -> tuple[int, str, bytes]:
        checkpoint, _ = parse_checkpoint_note(request.note)
        if wrong:
            checkpoint = type(checkpoint)(checkpoint.origin, checkpoint.size + 1, checkpoint.root)
        lines = [s.sign(checkpoint, time) for number in numbers for s in witness_signers(number)]
        return 200, "text/plain", b"".join(line.encode() for line in lines)

    return reply


@contextmanager
def real(tmp_path: Path, log: MemoryLog, number: int = 1, clock: Hand | None = None) -> Iterator[str]:
    """A real witness, served."""
    with WitnessState(tmp_path / f"w{number}") as state:
        witness = make_witness(log, store=state, clock=clock, signers=witness_signers(number))
        with serving(witness, state) as url:
            yield url


def test_a_checkpoint_is_cosigned_and_meets_the_policy(tmp_path: Path) -> None:
    log = grown(5)
    with real(tmp_path, log) as one, real(tmp_path, log, 2) as two, pool_of({1: one, 2: two}, 2) as pool:
        for size in (5, 6, 300):
            grow(log, size - log.size)
            note = log.publish(cosigned=False)
            lines = cosigned(pool, log, note)
            assert len(lines) == 4
            parsed = Note.parse(note)
            judged = judge(Note(parsed.text, (*parsed.signatures, *lines)).encode(), policy_of({1: one, 2: two}, 2))
            assert judged.attested == TIME
        assert [outcomes(pool, at) for at in (0, 1)] == [{"cosigned": 3}, {"cosigned": 3}]
        assert [view.size for view in pool.view()] == [300, 300]
        assert pool.failures == {"witness1.example": 0, "witness2.example": 0}


def test_a_witness_that_knows_another_size_is_sent_a_proof_from_there(tmp_path: Path) -> None:
    log = grown(5)
    with real(tmp_path, log) as url:
        with pool_of({1: url}) as first:
            assert cosigned(first, log)
        grow(log, 20)
        with pool_of({1: url}) as second:  # as after a restart of the log: it does not know what the witness has
            assert cosigned(second, log)
            with pool_of({1: url}) as meanwhile:
                grow(log, 3)
                assert cosigned(meanwhile, log)
            grow(log, 3)
            assert cosigned(second, log)
            assert outcomes(second) == {"cosigned": 2}


def test_a_restarted_witness_goes_on(tmp_path: Path) -> None:
    log = grown(5)
    with pool_of({1: "http://127.0.0.1:1"}) as pool:
        assert cosigned(pool, log) == []
        assert outcomes(pool) == {"unreachable": 1}
    for _ in range(2):
        with real(tmp_path, grow(log, 1)) as url, pool_of({1: url}) as pool:
            assert len(cosigned(pool, log)) == 2


def test_a_witness_that_lost_its_state_is_served_from_nothing(tmp_path: Path) -> None:
    log = grown(5)
    states: list[int] = []

    def reply(request: AddCheckpoint) -> tuple[int, str, bytes]:
        states.append(request.old_size)
        if len(states) == 2 and request.old_size:
            return 409, "text/x.tlog.size", b"0\n"
        return lines_by(1)(request)  # type: ignore[return-value]

    with replying(reply) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, log)
        assert cosigned(pool, grow(log, 1))
        assert states == [0, 5, 0]


def test_a_witness_ahead_of_the_log_is_an_alarm() -> None:
    log = grown(5)
    with replying(lambda _: (409, "text/x.tlog.size", b"9\n")) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, log) == []
        assert outcomes(pool) == {"ahead": 1}
        assert "9 leaves" in str(pool.view()[0].problem)


def much(request: AddCheckpoint) -> tuple[int, str, bytes]:
    """Genuine lines, over and over."""
    answer = lines_by(1)(request)
    assert answer is not None
    return 200, "text/plain", answer[2] * (limits.WITNESS_ANSWER_BYTES // len(answer[2]) + 1)


LIES: dict[str, Reply] = {
    "another checkpoint": lines_by(1, wrong=True),
    "a stranger's lines": lines_by(3),
    "no lines": lambda _: (200, "text/plain", b""),
    "junk": lambda _: (200, "text/plain", b"\xff\x00 hello"),
    "too much": much,
    "a conflict without a size": lambda _: (409, "text/x.tlog.size", b"lots\n"),
    "a conflict with an odd size": lambda _: (409, "text/x.tlog.size", b"007\n"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_witness_adds_nothing(name: str) -> None:
    with replying(LIES[name]) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(5)) == []
        assert outcomes(pool) == {"lying": 1}
        assert pool.failures == {"witness1.example": 1}


def test_one_wrong_line_spoils_the_others_of_that_witness() -> None:
    def reply(request: AddCheckpoint) -> tuple[int, str, bytes]:
        good = lines_by(1)(request)
        assert good is not None
        first, second = good[2].splitlines(keepends=True)
        stolen = lines_by(1, wrong=True)(request)
        assert stolen is not None
        return 200, "text/plain", first + stolen[2].splitlines(keepends=True)[1] + second

    with replying(reply) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(5)) == []
        assert outcomes(pool) == {"lying": 1}


@pytest.mark.parametrize(("change", "good"), [(-1, False), (0, True), (300, True), (301, False)])
def test_a_time_that_vouches_for_nothing_is_dropped(change: int, good: bool) -> None:
    with replying(lines_by(1, time=TIME + change)) as url, pool_of({1: url}) as pool:
        assert bool(cosigned(pool, grown(5))) is good
        assert outcomes(pool) == ({"cosigned": 1} if good else {"clock": 1})


REFUSALS: dict[str, Reply] = {
    "server error": lambda _: (500, "text/plain", b"no"),
    "too many requests": lambda _: (429, "text/plain", b"later"),
    "unprocessable": lambda _: (422, "text/plain", b"bad proof"),
    "conflict of another type": lambda _: (409, "text/plain", b"5\n"),
    "redirect": lambda _: (307, "text/plain", b"http://127.0.0.1:1/add-checkpoint"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_adds_nothing(name: str) -> None:
    with replying(REFUSALS[name]) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(5)) == []
        assert outcomes(pool) == {"refused": 1}


def test_a_witness_that_changes_its_mind_for_ever_is_given_up() -> None:
    sizes: list[int] = []

    def reply(request: AddCheckpoint) -> tuple[int, str, bytes]:
        sizes.append(request.old_size)
        return 409, "text/x.tlog.size", b"%d\n" % (len(sizes) % 3 + 1)

    with replying(reply) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(5)) == []
        assert len(sizes) == limits.WITNESS_ATTEMPTS
        assert outcomes(pool) == {"refused": 1}


def test_a_connection_that_breaks_off_is_unreachable() -> None:
    with replying(lambda _: None) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(5)) == []
        assert outcomes(pool) == {"unreachable": 1}


@contextmanager
def stalling() -> Iterator[tuple[str, threading.Event]]:
    """A witness that answers when the event is set."""
    go = threading.Event()

    def reply(request: AddCheckpoint) -> tuple[int, str, bytes] | None:
        go.wait(60)
        return lines_by(1)(request)

    with replying(reply) as url:
        try:
            yield url, go
        finally:
            go.set()


def test_a_stalled_witness_costs_the_time_out_and_is_left_alone_meanwhile() -> None:
    log = grown(5)
    with stalling() as (url, _), pool_of({1: url}, patience=0.3) as pool:
        assert cosigned(pool, log) == []
        running = pool._witnesses[url].running
        assert running is not None
        if not running.done():
            cosigned(pool, log)
        view = outcomes(pool)
        assert set(view) <= {"unreachable", "busy"}
        assert sum(view.values()) >= 1


_LEAVES = """
import sys
from datetime import UTC, datetime
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.tlogpolicy import Policy
from pq_registry.service.witnessing import WitnessPool

note = sys.stdin.buffer.read()
pool = WitnessPool(Policy.parse(sys.argv[1]), lambda: datetime.fromtimestamp(int(sys.argv[2]), UTC), wait_seconds=0.2)
assert pool.cosign(note, parse_checkpoint_note(note)[0], lambda _old: ()) == []
pool.close()
"""


def test_an_answer_that_comes_byte_by_byte_keeps_no_process_from_ending() -> None:
    note = grown(5).publish(cosigned=False)
    gone = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(limits.ADD_CHECKPOINT_BYTES)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not gone.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        dripping = threading.Thread(target=drip, args=(listener,), daemon=True)
        dripping.start()
        policy = policy_of({1: f"http://127.0.0.1:{listener.getsockname()[1]}"}, 1)
        try:
            subprocess.run(
                [sys.executable, "-c", _LEAVES, policy.text, str(TIME)], input=note, check=True, timeout=PATIENCE
            )
        finally:
            gone.set()
            dripping.join(PATIENCE)


def test_no_thread_to_ask_in_is_no_cosignature(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pool_of({1: "http://127.0.0.1:1"}) as pool:
        monkeypatch.setattr(threading.Thread, "start", none_left)
        assert cosigned(pool, grown(5)) == []
        assert outcomes(pool) == {"unreachable": 1}


def test_a_quorum_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    log = grown(5)
    with ExitStack() as stack:
        slow, go = stack.enter_context(stalling())
        quick = stack.enter_context(real(tmp_path, log, 2))
        pool = stack.enter_context(pool_of({1: slow, 2: quick}, 1, patience=60))
        assert len(cosigned(pool, log)) == 2
        assert not go.is_set()
        grow(log, 1)
        assert len(cosigned(pool, log)) == 2
        assert outcomes(pool, 0) == {"busy": 1}
        assert outcomes(pool, 1) == {"cosigned": 2}


def test_without_a_quorum_what_there_is_comes_back(tmp_path: Path) -> None:
    log = grown(5)
    with ExitStack() as stack:
        good = stack.enter_context(real(tmp_path, log, 2))
        liar = stack.enter_context(replying(lines_by(1, wrong=True)))
        pool = stack.enter_context(pool_of({1: liar, 2: good}, 2))
        assert len(cosigned(pool, log)) == 2
        assert [outcomes(pool, at) for at in (0, 1)] == [{"lying": 1}, {"cosigned": 1}]


def test_a_proof_that_cannot_be_made_is_no_cosignature() -> None:
    def broken(_old: int) -> Any:
        raise StorageError("tiles are gone")

    log = grown(5)
    note = log.publish(cosigned=False)
    with replying(lambda _: (409, "text/x.tlog.size", b"3\n")) as url, pool_of({1: url}) as pool:
        assert list(pool.cosign(note, parse_checkpoint_note(note)[0], broken)) == []
        assert outcomes(pool) == {"refused": 1}


def test_a_request_is_what_the_reference_accepts(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def reply(request: AddCheckpoint) -> tuple[int, str, bytes] | None:
        bodies.append(request.encode())
        return lines_by(1)(request)

    with replying(reply) as url, pool_of({1: url + "/prefix/"}) as pool:
        assert cosigned(pool, grown(5)) == []  # the sample answers on the bare path only
        assert pool._witnesses[url + "/prefix"].problem is not None
    with replying(reply) as url, pool_of({1: url}) as pool:
        assert cosigned(pool, grown(70_000 // 100))
        assert max(map(len, bodies)) < limits.ADD_CHECKPOINT_BYTES


def test_nobody_to_ask() -> None:
    assert witness_pool(policy_of({1: None}, 1), Hand().now) is None
    with pool_of({1: None}) as pool:
        assert cosigned(pool, grown(1)) == []


@pytest.mark.parametrize(
    "url", ["ftp://w.example", "w.example", "http://", "http://u:p@w.example", "http://w.example/?a"]
)
def test_urls_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(WitnessRefused):
        WitnessPool(policy_of({1: url}, 1), Hand().now)


def test_outcomes_are_complete() -> None:
    with pool_of({1: "http://127.0.0.1:1"}) as pool:
        assert set(pool.view()[0].outcomes) == {outcome.value for outcome in Outcome}
