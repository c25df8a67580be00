# SPDX-License-Identifier: Apache-2.0
"""F7 for the log: what tuf-conformance does to metadata, done to checkpoints and receipts.

Its names are kept where there is a counterpart. ``basic`` (unsigned_metadata, metadata_bytes_match), ``keys``
(snapshot_does_not_meet_threshold, duplicate_keys, duplicate_sig_keyids, invalid_sig_in_valid_metadata), ``rotations``
and ``rollback`` as far as bytes alone decide; what takes a client's memory is in its own tests.
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import CheckpointInvalid, FormatError, LogError, QuorumNotMet, ReceiptInvalid
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind
from pq_registry.format.note import Note, NoteKeyType
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.judge import judge
from pq_registry.log.receipt import verify_receipt
from tests.logsamples import TIME, MemoryLog, compose_policy, log_signers, resigned, signer, witness_signers
from tests.samples import NOW, publisher, tag_statement

SIGNER = publisher()
STATEMENT: dict[str, Any] = {
    "envelope": sign_envelope(tag_statement(Digest.of(b"release")).encode(), SIGNER),
    "kind": Kind.TAG,
    "name": "acme/minilm",
    "identity": SIGNER.identity.id,
}


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(witnesses=2)
    log.append_raw(*[b"x"] * 10)
    log.append(**STATEMENT)
    log.publish()
    return log


def with_note(receipt: bytes, note: bytes) -> bytes:
    return dataclasses.replace(TlogProof.parse(receipt), checkpoint=note).encode()


def test_unsigned_metadata(log):
    """Lines of strangers only: a note cannot be without any."""
    stranger = signer("stranger.example", NoteKeyType.MLDSA44_COSIGNATURE)
    checkpoint = parse_checkpoint_note(log.files["checkpoint"])[0]
    note = Note(checkpoint.encode(), (stranger.sign(checkpoint, TIME),)).encode()
    with pytest.raises(CheckpointInvalid):
        verify_receipt(with_note(log.receipt(10), note), **STATEMENT, policies=log.policies())
    with pytest.raises(FormatError):
        judge(checkpoint.encode() + b"\n", log.policy())


@pytest.mark.parametrize(
    "dropped", [["witness1.example"], ["witness2.example"], ["witness1.example", "witness2.example"]]
)
def test_snapshot_does_not_meet_threshold(log, dropped):
    note = resigned(log.files["checkpoint"], drop=dropped)
    with pytest.raises(QuorumNotMet):
        verify_receipt(with_note(log.receipt(10), note), **STATEMENT, policies=log.policies())


def test_duplicate_keys():
    """One key under two names, which would count twice, makes no policy."""
    ed25519, mldsa = log_signers()
    key = witness_signers(1)[1].key
    twin = dataclasses.replace(key, name="witness2.example")
    with pytest.raises(FormatError):
        Policy.compose(ed25519.key, mldsa.key, [("w1", [key], None), ("w2", [twin], None)], 2)


def test_duplicate_sig_keyids(log):
    """The same line many times is one witness."""
    parsed = Note.parse(log.files["checkpoint"])
    first = [line for line in parsed.signatures if line.name == "witness1.example"]
    note = resigned(log.files["checkpoint"], drop=["witness2.example"], add=first * 3)
    with pytest.raises(QuorumNotMet):
        judge(note, log.policy())
    assert judge(resigned(log.files["checkpoint"], add=first * 3), log.policy()).cosigners == {
        "witness1.example",
        "witness2.example",
    }


def test_invalid_sig_in_valid_metadata(log):
    """A wrong line of a known witness is not outvoted by the right ones."""
    parsed = Note.parse(log.files["checkpoint"])
    wrong = dataclasses.replace(parsed.signatures[-1], signature=parsed.signatures[-1].signature[:-1] + b"\0")
    with pytest.raises(CheckpointInvalid):
        judge(resigned(log.files["checkpoint"], add=[wrong]), compose_policy(witnesses=2, quorum=1))


def test_signatures_of_another_checkpoint(log):
    """Mix and match: genuine lines under the text of another genuine checkpoint of the same log."""
    old = Note.parse(log.files["checkpoint"])
    log.append_raw(b"more")
    new = Note.parse(log.publish())
    for text, lines in ((old.text, new.signatures), (new.text, old.signatures)):
        with pytest.raises(CheckpointInvalid):
            judge(Note(text, lines).encode(), log.policy())
    for position in range(len(old.signatures)):
        mixed = list(new.signatures)
        mixed[position] = old.signatures[position]
        with pytest.raises(CheckpointInvalid):
            judge(Note(new.text, tuple(mixed)).encode(), log.policy())


def test_a_proof_under_another_checkpoint(log):
    """Mix and match: every part genuine, of two checkpoints."""
    old = log.receipt(10)
    log.append_raw(*[b"more"] * 10)
    new = log.publish()
    with pytest.raises(ReceiptInvalid):
        verify_receipt(with_note(old, new), **STATEMENT, policies=log.policies())


def test_a_leaf_of_a_fork(log):
    """The same log shows somebody else another tree of the same size; its witnesses have not seen that one."""
    fork = log.fork(10)
    fork.append_raw(b"another leaf")
    fork.publish(cosigned=False)
    with pytest.raises(ReceiptInvalid):
        verify_receipt(with_note(log.receipt(10), fork.files["checkpoint"]), **STATEMENT, policies=log.policies())
    hidden = log.fork(0)
    hidden.append(**STATEMENT)
    hidden.publish(cosigned=False)
    with pytest.raises(QuorumNotMet):
        verify_receipt(hidden.receipt(0), **STATEMENT, policies=log.policies())


def test_root_rotation_of_the_log_s_keys():
    """A new log with new keys, from a day on. The old keys make no receipt for afterwards, the new none for before."""
    day = NOW + timedelta(days=1)
    old, new = MemoryLog("log.example/2026", witnesses=1), MemoryLog("log.example/2027", witnesses=1)
    policies = (*old.policies(None, day), *new.policies(day, None))
    times = {"before": int(day.timestamp()) - 1, "after": int(day.timestamp())}
    accepted = set()
    for which, log in (("old", old), ("new", new)):
        for when, time in times.items():
            log.time = time
            receipt = log.log(**STATEMENT)
            try:
                verify_receipt(receipt, **STATEMENT, policies=policies)
            except ReceiptInvalid:
                continue
            accepted.add((which, when))
    assert accepted == {("old", "before"), ("new", "after")}


def test_a_key_that_is_no_longer_a_witness(log):
    """After witness 2 was replaced by witness 3, a checkpoint of the old pair meets no new quorum."""
    ed25519, mldsa = log_signers()
    members = [(f"w{number}", [key.key for key in witness_signers(number)], None) for number in (1, 3)]
    policies = (LogPolicy(Policy.compose(ed25519.key, mldsa.key, members, 2)),)
    with pytest.raises(QuorumNotMet):
        verify_receipt(log.receipt(10), **STATEMENT, policies=policies)


def test_fast_forward(log):
    """A checkpoint of an enormous tree that the log's keys alone have signed: nobody has cosigned it."""
    checkpoint = parse_checkpoint_note(log.files["checkpoint"])[0]
    ahead = dataclasses.replace(checkpoint, size=2**62)
    for note in (log.sign(ahead, cosigned=False), log.sign(ahead)):
        with pytest.raises(LogError):
            verify_receipt(with_note(log.receipt(10), note), **STATEMENT, policies=log.policies())


def test_metadata_bytes_match(log):
    """The same values in other bytes are another text, which nobody signed."""
    parsed = Note.parse(log.files["checkpoint"])
    for old, new in ((b"\n11\n", b"\n011\n"), (b"\n11\n", b"\n+11\n"), (b"\n11\n", b"\n11 \n"), (b"=\n", b"\n")):
        assert old in parsed.text
        with pytest.raises((FormatError, CheckpointInvalid)):
            judge(Note(parsed.text.replace(old, new), parsed.signatures).encode(), log.policy())
