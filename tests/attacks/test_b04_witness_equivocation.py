# SPDX-License-Identifier: Apache-2.0
"""B4 at the witness: a log that shows two histories is not cosigned twice, and both notes are kept for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pq_registry import limits
from pq_registry.crypto.notesigning import verify_line
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import parse_lines
from pq_registry.log.watchedlog import Evidence
from pq_registry.storage.witnessstate import WitnessState
from tests.logsamples import MemoryLog, log_signers, resigned, witness_signers
from tests.witnessing import Hand, MemoryStore, grow, grown, make_witness, request_of

ORIGIN = "log.example/pqreg"


def forked(log: MemoryLog, at: int, size: int) -> MemoryLog:
    """Another history of the same log, from leaf ``at``."""
    fork = log.fork(at)
    fork.append_raw(*(f"other {number}".encode() for number in range(size - at)))
    return fork


def kept(state: WitnessState, kind: Evidence) -> dict[str, bytes]:
    folder = state.folder(ORIGIN) / kind.value
    return {path.name: path.read_bytes() for path in folder.glob("*.note")} if folder.exists() else {}


def test_b4_two_roots_of_one_size_are_caught_and_kept(tmp_path: Path) -> None:
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        genuine = request_of(log, 0)
        witness.add_checkpoint(genuine.encode())
        lie = request_of(forked(log, 5, 8), 8)
        assert witness.add_checkpoint(lie.encode()).status == 422
        notes = kept(state, Evidence.EQUIVOCATION)
        assert sorted(notes.values()) == sorted([genuine.note, lie.note])
        # Both are signed by the log: anybody can check it without believing the witness.
        for note in notes.values():
            checkpoint, parsed = parse_checkpoint_note(note)
            for signer in log_signers():
                verify_line(signer.key, checkpoint, parsed.lines_of(signer.key)[0])
        assert len({parse_checkpoint_note(note)[0].root for note in notes.values()}) == 2
        assert witness.add_checkpoint(request_of(grow(log, 1), 8).encode()).status == 200


def test_b4_a_fork_is_caught_whatever_old_size_is_claimed(tmp_path: Path) -> None:
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        witness.add_checkpoint(request_of(log, 0).encode())
        fork = forked(log, 5, 8)
        answer = witness.add_checkpoint(request_of(fork, 0).encode())
        assert (answer.status, answer.body) == (409, b"8\n")
        assert len(kept(state, Evidence.EQUIVOCATION)) == 2


def test_b4_evidence_is_never_overwritten_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WITNESS_EVIDENCE", 6)
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        witness.add_checkpoint(request_of(log, 0).encode())
        witness.add_checkpoint(request_of(forked(log, 5, 8), 8).encode())
        first = kept(state, Evidence.EQUIVOCATION)
        for at in range(8):
            witness.add_checkpoint(request_of(forked(log, at, 8), 8).encode())
        after = kept(state, Evidence.EQUIVOCATION)
        assert first.items() <= after.items()
        assert len(after) <= 6


def test_b4_noise_of_others_is_not_kept_as_evidence(tmp_path: Path) -> None:
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        witness.add_checkpoint(request_of(log, 0).encode())
        lie = request_of(forked(log, 5, 8), 8)
        checkpoint, _ = parse_checkpoint_note(lie.note)
        for number in range(2, 5):
            noise = [signer.sign(checkpoint, 5) for signer in witness_signers(number)[:1]]
            assert witness.add_checkpoint(replace(lie, note=resigned(lie.note, add=noise)).encode()).status == 422
        assert len(kept(state, Evidence.EQUIVOCATION)) == 2


def test_b4_a_rolled_back_log_gets_no_cosignature() -> None:
    log = grown(8)
    early = request_of(log.fork(5), 0)
    witness = make_witness(log)
    witness.add_checkpoint(request_of(log, 0).encode())
    for old in (0, 3, 5):
        answer = witness.add_checkpoint(replace(early, old_size=old).encode())
        assert (answer.status, answer.body) == (409, b"8\n")
    assert witness.add_checkpoint(replace(early, old_size=8).encode()).status == 400


def test_b4_a_forked_continuation_is_refused_and_kept(tmp_path: Path) -> None:
    log = grown(8)
    with WitnessState(tmp_path) as state:
        witness = make_witness(log, store=state)
        witness.add_checkpoint(request_of(log, 0).encode())
        longer = forked(log, 5, 12)
        assert witness.add_checkpoint(request_of(longer, 8).encode()).status == 422
        assert len(kept(state, Evidence.UNPROVEN)) == 2
        assert not kept(state, Evidence.EQUIVOCATION)


class TwoFacedLog(RuleBasedStateMachine):
    """A log with three histories that asks whatever it likes; restarts of the witness in between."""

    def __init__(self) -> None:
        super().__init__()
        trunk = grown(4)
        self.histories = [trunk, forked(trunk, 4, 6), forked(trunk, 2, 5)]
        self.store, self.clock = MemoryStore(), Hand()
        self.witness = make_witness(trunk, store=self.store, clock=self.clock)
        self.signed: dict[int, Checkpoint] = {}
        self.last = (0, 0)

    @rule(which=st.integers(0, 2), count=st.integers(1, 4))
    def grow(self, which: int, count: int) -> None:
        self.histories[which].append_raw(*(f"{which} {number}".encode() for number in range(count)))

    @rule(which=st.integers(0, 2), old=st.integers(0, 30), truthful=st.booleans(), start=st.integers(0, 30))
    def ask(self, which: int, old: int, truthful: bool, start: int) -> None:
        log = self.histories[which]
        old = self.witness.size(ORIGIN) if truthful else old
        proof_from = min(log.size, old if truthful else start)
        request = request_of(log, old, proof_from=proof_from)
        checkpoint, _ = parse_checkpoint_note(request.note)
        answer = self.witness.add_checkpoint(request.encode())
        if answer.status != 200:
            return
        times = [
            verify_line(signer.key, checkpoint, line)
            for signer, line in zip(witness_signers(1), parse_lines(answer.body), strict=True)
        ]
        assert self.signed.setdefault(checkpoint.size, checkpoint) == checkpoint
        assert (checkpoint.size, times[0]) >= self.last
        self.last = (checkpoint.size, times[0] or 0)
        assert self.store.load(ORIGIN) == self.witness.newest(ORIGIN)

    @rule()
    def restart(self) -> None:
        self.witness = make_witness(self.histories[0], store=self.store, clock=self.clock)

    @rule(seconds=st.integers(1, 50))
    def wait(self, seconds: int) -> None:
        self.clock.seconds += seconds

    @invariant()
    def all_that_was_signed_is_one_history(self) -> None:
        if self.signed:
            largest = max(self.signed)
            assert any(
                largest <= log.size
                and all(
                    log.tree(log.publish(cosigned=False)).root_at(size) == checkpoint.root
                    for size, checkpoint in self.signed.items()
                )
                for log in self.histories
            )


TestTwoFacedLog = TwoFacedLog.TestCase
TestTwoFacedLog.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
