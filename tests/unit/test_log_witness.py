# SPDX-License-Identifier: Apache-2.0
"""A witness's answers, case by case of C2SP tlog-witness, and what it remembers."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import FormatError, LogHalted, NotFound, SettingError, StorageError
from pq_registry.format.addcheckpoint import AddCheckpoint
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.note import Note, parse_lines
from pq_registry.log.watchedlog import WatchedLog
from pq_registry.log.witness import Witness
from tests.logsamples import TIME, MemoryLog, log_signers, resigned, witness_signers
from tests.note_samples import hashes
from tests.witnessing import Hand, MemoryStore, grow, grown, make_witness, request_of

ORIGIN = "log.example/pqreg"


def ask(witness: Witness, request: AddCheckpoint) -> tuple[int, bytes]:
    answer = witness.add_checkpoint(request.encode())
    return answer.status, answer.body


@given(st.integers(0, 2**63 - 1), st.lists(hashes, max_size=5), st.binary(max_size=60))
def test_requests_round_trip(old: int, proof: list[bytes], note: bytes) -> None:
    request = AddCheckpoint(old, tuple(proof), note)
    assert AddCheckpoint.parse(request.encode()) == request


def test_a_first_checkpoint_is_cosigned_by_both_keys() -> None:
    log, clock = grown(5), Hand(seconds=7)
    witness = make_witness(log, clock=clock)
    request = request_of(log, 0)
    status, body = ask(witness, request)
    assert status == 200
    checkpoint, _ = parse_checkpoint_note(request.note)
    lines = parse_lines(body)
    assert [
        verify_line(signer.key, checkpoint, line) for signer, line in zip(witness_signers(1), lines, strict=True)
    ] == [
        TIME + 7,
        TIME + 7,
    ]
    assert Note.parse(witness.newest(ORIGIN)).signatures[-2:] == lines
    assert (witness.size(ORIGIN), witness.time(ORIGIN)) == (5, TIME + 7)


def test_a_tree_grows_by_proofs() -> None:
    log = grown(1)
    witness = make_witness(log)
    seen = 0
    for size in (1, 2, 3, 7, 8, 255, 256, 257, 600):
        grow(log, size - log_size(log))
        assert ask(witness, request_of(log, seen))[0] == 200
        seen = size
    assert witness.size(ORIGIN) == 600


def log_size(log: MemoryLog) -> int:
    return parse_checkpoint_note(log.publish(cosigned=False))[0].size


def test_the_same_tree_is_cosigned_again_with_a_later_time() -> None:
    log, clock = grown(5), Hand()
    witness = make_witness(log, clock=clock)
    ask(witness, request_of(log, 0))
    clock.seconds = 600
    assert ask(witness, request_of(log, 5))[0] == 200
    assert witness.time(ORIGIN) == TIME + 600


def test_the_empty_tree_is_cosigned_too() -> None:
    log = grown(0)
    witness = make_witness(log)
    assert ask(witness, request_of(log, 0))[0] == 200
    assert ask(witness, request_of(grow(log, 3), 0))[0] == 200


def test_another_old_size_is_409_with_the_size() -> None:
    log = grown(5)
    witness = make_witness(log)
    assert witness.add_checkpoint(request_of(log, 3).encode()).body == b"0\n"
    ask(witness, request_of(log, 0))
    grow(log, 4)
    for old in (0, 3, 4, 6, 9):
        answer = witness.add_checkpoint(request_of(log, old).encode())
        assert (answer.status, answer.body, answer.media_type) == (409, b"5\n", "text/x.tlog.size")
    assert ask(witness, request_of(log, 5))[0] == 200


def test_an_old_size_beyond_the_checkpoint_is_400() -> None:
    log = grown(5)
    witness = make_witness(log)
    assert ask(witness, replace(request_of(log, 0), old_size=6))[0] == 400


BODIES = [
    b"",
    b"old 0\n",
    b"old 0\n\n",
    b"old 00\n\nNOTE",
    b"old +0\n\nNOTE",
    b"old 0 \n\nNOTE",
    b"Old 0\n\nNOTE",
    b"0\n\nNOTE",
    b"old\n\nNOTE",
    b"old 0\r\n\r\nNOTE",
    b"old 0\nAA==\n\nNOTE",
    b"old 0\n" + b"A" * 44 + b"\n\nNOTE",
    b"old 9223372036854775808\n\nNOTE",
    b"old 0\nNOTE",
    b"old 0\n\nNOTEx",
    b"\xff\n\nNOTE",
    b"old 0\n" + b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n" * 64 + b"\nNOTE",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_other_bodies_are_400(body: bytes) -> None:
    log = grown(5)
    note = request_of(log, 0).note
    assert make_witness(log).add_checkpoint(body.replace(b"NOTE", note)).status == 400


def test_a_checkpoint_with_an_extension_line_is_400() -> None:
    log = grown(5)
    request = request_of(log, 0)
    note = request.note.replace(b"\n\n", b"\nextension\n\n", 1)
    assert ask(make_witness(log), replace(request, note=note))[0] == 400


def test_a_log_that_is_not_watched_is_404() -> None:
    stranger = grown(5, origin="stranger.example")
    assert ask(make_witness(grown(1)), request_of(stranger, 0))[0] == 404


def test_every_configured_key_must_have_signed() -> None:
    log = grown(5)
    witness = make_witness(log)
    request = request_of(log, 0)
    parsed = Note.parse(request.note)
    for lines in (
        parsed.signatures[:1],
        parsed.signatures[1:],
        (parsed.signatures[0], replace(parsed.signatures[1], signature=bytes(2428))),
        (replace(parsed.signatures[0], signature=bytes(64)), parsed.signatures[1]),
        (*parsed.signatures, replace(parsed.signatures[0], signature=bytes(64))),
        witness_lines(log),
    ):
        assert ask(witness, replace(request, note=Note(parsed.text, tuple(lines)).encode()))[0] == 403
    assert ask(witness, request)[0] == 200


def witness_lines(log: MemoryLog) -> Any:
    checkpoint, _ = parse_checkpoint_note(log.publish(cosigned=False))
    return tuple(signer.sign(checkpoint, TIME) for signer in witness_signers(2))


def test_lines_of_others_are_ignored_and_not_kept() -> None:
    log = grown(5)
    witness = make_witness(log)
    request = request_of(log, 0)
    noisy = replace(request, note=resigned(request.note, add=witness_lines(log)))
    assert ask(witness, noisy)[0] == 200
    names = [line.name for line in Note.parse(witness.newest(ORIGIN)).signatures]
    assert names == [ORIGIN, ORIGIN, "witness1.example", "witness1.example"]


def test_a_log_with_one_key_is_watched_by_that_key() -> None:
    log = grown(5)
    store, hand = MemoryStore(), Hand()
    only = WatchedLog([log.policy().log])
    witness = Witness(witness_signers(1), [only], store, clock=hand.now, monotonic=hand.monotonic)
    assert ask(witness, request_of(log, 0))[0] == 200


def test_a_proof_that_fails_is_422() -> None:
    log = grown(5)
    store = MemoryStore()
    witness = make_witness(log, store=store)
    ask(witness, request_of(log, 0))
    grow(log, 4)
    good = request_of(log, 5)
    for proof in (
        good.proof[:-1],
        (*good.proof, bytes(32)),
        (),
        tuple(reversed(good.proof)),
        request_of(log, 5, proof_from=4).proof,
    ):
        assert ask(witness, replace(good, proof=proof))[0] == 422
    assert {kind for _, kind, _ in store.evidence} == {"unproven"}
    assert ask(witness, good)[0] == 200


def test_a_proof_where_none_belongs_is_422() -> None:
    log = grown(5)
    witness = make_witness(log)
    assert ask(witness, replace(request_of(log, 0), proof=(bytes(32),)))[0] == 422
    ask(witness, request_of(log, 0))
    assert ask(witness, replace(request_of(log, 5), proof=(bytes(32),)))[0] == 422


def test_a_clock_that_went_back_signs_nothing() -> None:
    log, clock, store = grown(5), Hand(seconds=1000), MemoryStore()
    witness = make_witness(log, clock=clock, store=store)
    ask(witness, request_of(log, 0))
    before = dict(store.notes)
    clock.offset = -1
    with pytest.raises(LogHalted):
        witness.add_checkpoint(request_of(log, 5).encode())
    with pytest.raises(LogHalted):
        make_witness(log, clock=clock, store=store).add_checkpoint(request_of(log, 5).encode())
    assert store.notes == before
    clock.offset = 0
    assert ask(witness, request_of(log, 5))[0] == 200


def test_a_clock_that_stands_still_signs_nothing() -> None:
    log, clock = grown(5), Hand()
    witness = make_witness(log, clock=clock)
    ask(witness, request_of(log, 0))
    clock.seconds, clock.offset = 3600, -3600
    with pytest.raises(LogHalted):
        witness.add_checkpoint(request_of(log, 5).encode())


def test_what_may_not_be_durable_is_not_answered() -> None:
    log, store = grown(5), MemoryStore()
    witness = make_witness(log, store=store)
    ask(witness, request_of(log, 0))
    shown = witness.newest(ORIGIN)
    grow(log, 4)
    store.failing = StorageError("no")
    with pytest.raises(StorageError):
        witness.add_checkpoint(request_of(log, 5).encode())
    assert witness.newest(ORIGIN) == shown
    assert witness.size(ORIGIN) == 5
    store.failing = None
    assert ask(witness, request_of(log, 5))[0] == 200


def test_it_starts_where_it_ended() -> None:
    log, store = grown(5), MemoryStore()
    ask(make_witness(log, store=store), request_of(log, 0))
    again = make_witness(log, store=store)
    assert again.size(ORIGIN) == 5
    assert ask(again, request_of(log, 0)) == (409, b"5\n")
    assert ask(again, request_of(grow(log, 1), 5))[0] == 200


def test_a_state_it_did_not_sign_is_refused() -> None:
    log, store = grown(5), MemoryStore()
    ask(make_witness(log, store=store), request_of(log, 0))
    good = store.notes[ORIGIN]
    for bad in (
        b"",
        good[:-1],
        good.replace(b"\n5\n", b"\n4\n"),
        resigned(good, drop=["witness1.example"]),
        resigned(good, drop=["witness1.example"], add=witness_lines(log)),
        good[:110] + bytes([good[110] ^ 1]) + good[111:],
    ):
        store.notes[ORIGIN] = bad
        with pytest.raises(LogHalted):
            make_witness(log, store=store)
    other = grown(5, origin="other.example")
    store.notes = {"other.example": good}
    with pytest.raises(LogHalted):
        make_witness(other, store=store)


def test_several_logs_do_not_touch() -> None:
    one, two = grown(5), grown(9, origin="other.example")
    witness = make_witness(one, two)
    assert ask(witness, request_of(one, 0))[0] == 200
    assert ask(witness, request_of(two, 0))[0] == 200
    assert (witness.size(ORIGIN), witness.size("other.example")) == (5, 9)
    with pytest.raises(NotFound):
        witness.newest("stranger.example")


def test_keys_of_other_types_make_no_witness_and_no_log() -> None:
    log, hand = grown(1), Hand()
    for signers in ([], log_signers(), [log_signers()[0]]):
        with pytest.raises(SettingError):
            Witness(signers, [], MemoryStore(), clock=hand.now, monotonic=hand.monotonic)
    keys = [signer.key for signer in log_signers()]
    stranger = [signer.key for signer in log_signers("stranger.example")]
    for wrong in ([], [keys[0], keys[0]], [keys[0], stranger[1]], [signer.key for signer in witness_signers(1)]):
        with pytest.raises(SettingError):
            WatchedLog(wrong)
    with pytest.raises(SettingError):
        make_witness(log, log)


def test_a_log_is_read_from_its_vkeys() -> None:
    keys = [signer.key for signer in log_signers()]
    assert WatchedLog.parse("".join(f"{key}\n" for key in keys)).keys == tuple(keys)
    assert WatchedLog.parse(f"{keys[0]}\n").origin == ORIGIN
    for text in ("", "\n", str(keys[0]), f"{keys[0]}\n\n", f" {keys[0]}\n"):
        with pytest.raises(FormatError):
            WatchedLog.parse(text)


def test_racing_requests_leave_one_history() -> None:
    log = grown(5)
    witness = make_witness(log)
    ask(witness, request_of(log, 0))
    requests = [request_of(grow(log, 1), 5) for _ in range(8)]
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda request=request: answers.append(ask(witness, request)[0]))
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] + [409] * 7


class SlowStore(MemoryStore):
    """Lets a second request in while the first one is being stored, if anything would."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Any = None
        self.entered = threading.Event()

    def store(self, origin: str, note: bytes) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None:
            self.entered.set()
        else:
            meanwhile.start()
            self.entered.wait(0.5)
        super().store(origin, note)


def test_deciding_and_storing_are_one_step() -> None:
    log, store = grown(5), SlowStore()
    witness = make_witness(log, store=store)
    ask(witness, request_of(log, 0))
    store.entered.clear()
    shorter, longer = request_of(grow(log, 1), 5), request_of(grow(log, 1), 5)
    second: list[int] = []
    thread = threading.Thread(target=lambda: second.append(ask(witness, shorter)[0]))
    store.meanwhile = thread
    assert ask(witness, longer)[0] == 200
    thread.join()
    assert second == [409]
    assert witness.size(ORIGIN) == 7


@given(st.binary(max_size=400))
def test_any_bytes_are_answered(body: bytes) -> None:
    assert make_witness().add_checkpoint(body).status == 400
