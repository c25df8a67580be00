# SPDX-License-Identifier: Apache-2.0
"""B4: a log that forks without its witnesses is convicted by its own signature, and by nothing less than both keys."""

from __future__ import annotations

import pytest

from pq_registry.errors import CheckpointInvalid, LogEquivocation, LogMisbehaved, LogRollback, QuorumNotMet
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.note import Note
from pq_registry.log.monitor import Followed, Monitor
from tests.logsamples import MemoryLog


class State:
    def __init__(self) -> None:
        self.followed: Followed | None = None
        self.kept: list[tuple[bytes, bytes]] = []

    def load(self) -> Followed | None:
        return self.followed

    def keep(self, followed: Followed) -> None:
        self.followed = followed

    def keep_misbehaviour(self, error: LogMisbehaved, old: bytes, new: bytes, fork: ForkProof | None) -> None:
        assert isinstance(error, LogMisbehaved)
        self.kept.append((old, new))


def followed(log: MemoryLog, size: int) -> tuple[State, bytes]:
    log.append_raw(*(f"leaf {number}".encode() for number in range(size)))
    note, state = log.publish(), State()
    list(Monitor(log.reader(), log.policies(), state).advance(note))
    return state, note


@pytest.mark.parametrize(("more", "error"), [(0, LogRollback), (2, LogEquivocation), (9, LogEquivocation)])
def test_b04_both_keys_of_the_log_convict_it(more: int, error: type[LogMisbehaved]) -> None:
    log = MemoryLog(witnesses=1)
    state, note = followed(log, 7)
    fork = log.fork(5)
    fork.append_raw(*(f"other {number}".encode() for number in range(more)))
    other = fork.publish(cosigned=False)
    before = state.followed
    with pytest.raises(error):
        Monitor(fork.reader(), log.policies(), state).accept(other)
    assert state.kept == [(note, other)]
    assert state.followed == before


def test_b04_one_key_of_the_log_accuses_nobody() -> None:
    log = MemoryLog(witnesses=1)
    state, _ = followed(log, 7)
    fork = log.fork(5)
    fork.append_raw(b"other 1", b"other 2")
    whole = Note.parse(fork.publish(cosigned=False))
    other = Note(whole.text, tuple(whole.lines_of(log.policy().log))).encode()
    with pytest.raises((QuorumNotMet, CheckpointInvalid)):
        Monitor(fork.reader(), log.policies(), state).accept(other)
    assert state.kept == []


def test_b04_an_outage_of_the_witness_is_no_misbehaviour() -> None:
    log = MemoryLog(witnesses=1)
    state, _ = followed(log, 7)
    log.append_raw(b"more")
    with pytest.raises(QuorumNotMet):
        Monitor(log.reader(), log.policies(), state).accept(log.publish(cosigned=False))
    assert state.kept == []
