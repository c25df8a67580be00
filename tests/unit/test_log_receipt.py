# SPDX-License-Identifier: Apache-2.0
"""Receipts: what a genuine one says, at which times it counts and under which policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import CheckpointInvalid, FormatError, QuorumNotMet, ReceiptInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.receipt import verify_receipt
from tests.logsamples import TIME, MemoryLog, compose_policy
from tests.samples import NOW, publisher, tag_statement

NAME = "acme/minilm"
SIGNER = publisher()
ENVELOPE = sign_envelope(tag_statement(Digest.of(b"release")).encode(), SIGNER)
HOUR = limits.ATTESTATION_SECONDS


def verify(receipt: bytes, policies, **changed):
    fields: dict[str, Any] = {
        "envelope": ENVELOPE,
        "kind": Kind.TAG,
        "name": NAME,
        "identity": SIGNER.identity.id,
    } | changed
    return verify_receipt(receipt, policies=policies, **fields)


def logged(log: MemoryLog, time: int = TIME) -> int:
    return log.append(ENVELOPE, kind=Kind.TAG, name=NAME, identity=SIGNER.identity.id, time=time)


def receipt_of(log: MemoryLog, *, leaf_time: int = TIME, published: int = TIME) -> bytes:
    index = logged(log, leaf_time)
    log.publish(published)
    return log.receipt(index)


def test_what_a_receipt_says():
    log = MemoryLog(witnesses=2)
    log.append_raw(*(b"%d" % index for index in range(300)))
    data = receipt_of(log, published=TIME + 7)
    receipt = verify(data, log.policies())
    assert (receipt.index, receipt.checkpoint.size, receipt.proof) == (300, 301, data)
    assert receipt.attested == NOW + timedelta(seconds=7)
    assert receipt.cosigners == {"witness1.example", "witness2.example"}
    assert (receipt.leaf.kind, receipt.leaf.name, receipt.leaf.time) == (Kind.TAG, NAME, TIME)
    assert receipt.leaf.payload == ENVELOPE.payload_digest
    assert receipt.policy == log.policy()


@pytest.mark.parametrize("before", [0, 1, 254, 255, 256, 65535])
@pytest.mark.parametrize("after", [0, 1, 255])
def test_receipts_of_trees_of_every_shape(before, after):
    log = MemoryLog()
    log.append_raw(*[b""] * before)
    index = logged(log)
    log.append_raw(*[b""] * after)
    log.publish()
    receipt = verify(log.receipt(index), log.policies())
    assert (receipt.index, receipt.checkpoint.size) == (before, before + 1 + after)


def test_the_receipts_of_a_leaf_under_several_checkpoints_all_hold():
    log = MemoryLog(witnesses=1)
    index = logged(log)
    notes = [log.publish()]
    for size in (1, 300, 10):
        log.append_raw(*[b"x"] * size)
        notes.append(log.publish(log.time + 60))
    for number, note in enumerate(notes):
        receipt = verify(log.receipt(index, note), log.policies())
        assert receipt.attested == NOW + timedelta(minutes=number)


def test_without_a_witness_there_is_no_attested_time():
    log = MemoryLog()
    assert verify(receipt_of(log), log.policies()).attested is None


@pytest.mark.parametrize("delay", [0, 1, HOUR])
def test_attested_within_the_hour(delay):
    log = MemoryLog(witnesses=1)
    receipt = verify(receipt_of(log, published=TIME + delay), log.policies())
    assert receipt.attested == NOW + timedelta(seconds=delay)


@pytest.mark.parametrize("delay", [-1, HOUR + 1])
def test_attested_before_the_leaf_s_time_or_more_than_an_hour_after_it(delay):
    """A log that holds a leaf back, or dates it ahead."""
    log = MemoryLog(witnesses=1)
    with pytest.raises(ReceiptInvalid) as refused:
        verify(receipt_of(log, published=TIME + delay), log.policies())
    assert refused.value.step == 4


def test_the_window_of_the_policy_is_held_against_the_attested_time():
    log = MemoryLog(witnesses=1)
    data = receipt_of(log, published=TIME + 60)
    at = NOW + timedelta(seconds=60)
    second = timedelta(seconds=1)
    for not_before, not_after in ((None, at + second), (at, None), (at, at + second)):
        assert verify(data, log.policies(not_before, not_after)).attested == at
    for not_before, not_after in ((None, at), (at + second, None)):
        with pytest.raises(ReceiptInvalid):
            verify(data, log.policies(not_before, not_after))


def test_without_attested_time_the_window_is_held_against_the_leaf_s():
    log = MemoryLog()
    data = receipt_of(log, published=TIME + 60)
    assert verify(data, log.policies(NOW, NOW + timedelta(seconds=1)))
    with pytest.raises(ReceiptInvalid):
        verify(data, log.policies(None, NOW))


def test_the_first_policy_that_accepts_is_the_one():
    log = MemoryLog(witnesses=1)
    data = receipt_of(log)
    other = MemoryLog("other.example/log").policies()
    strict = LogPolicy(compose_policy(witnesses=2))
    lapsed = log.policies(None, NOW)
    assert verify(data, (*other, strict, *lapsed, *log.policies())).policy == log.policy()
    with pytest.raises(QuorumNotMet):
        verify(data, (*other, strict))
    with pytest.raises(ReceiptInvalid):  # came further than the quorum
        verify(data, (*lapsed, strict))
    for policies in (other, ()):
        with pytest.raises(CheckpointInvalid):
            verify(data, policies)


@pytest.mark.parametrize("turn", [1, -1])
def test_what_a_witness_attested_is_not_lost_to_a_policy_content_with_less(turn):
    log = MemoryLog(witnesses=1)
    data = receipt_of(log)
    policies = (LogPolicy(compose_policy(witnesses=0)), *log.policies())[::turn]
    assert verify(data, policies).attested == NOW
    assert verify(data, policies[:1] if turn == 1 else policies[1:]).attested is None
    alone = MemoryLog(witnesses=1)
    logged(alone)
    alone.publish(cosigned=False)
    assert verify(alone.receipt(0), policies).attested is None


def test_after_a_change_of_witnesses_each_receipt_holds_under_the_policy_of_its_time():
    log = MemoryLog(witnesses=1)
    old = receipt_of(log)
    switch = NOW + timedelta(days=1)
    before = log.policies(None, switch)
    log.witnesses = 2
    later = int((switch + timedelta(hours=1)).timestamp())
    new = receipt_of(log, leaf_time=later, published=later)
    policies = (*before, LogPolicy(compose_policy(witnesses=2), switch, None))
    assert verify(old, policies).policy == before[0].policy
    assert verify(new, policies).policy == policies[1].policy
    with pytest.raises((ReceiptInvalid, QuorumNotMet)):
        verify(old, policies[1:])


def test_a_receipt_whose_witnesses_did_not_answer():
    log = MemoryLog(witnesses=1)
    index = logged(log)
    log.publish(cosigned=False)
    with pytest.raises(QuorumNotMet):
        verify(log.receipt(index), log.policies())
    log.publish(TIME + HOUR)
    assert verify(log.receipt(index), log.policies()).attested == NOW + timedelta(hours=1)


def test_a_receipt_without_its_leaf():
    log = MemoryLog()
    proof = TlogProof.parse(receipt_of(log))
    bare = TlogProof(proof.index, proof.hashes, proof.checkpoint, None).encode()
    with pytest.raises(ReceiptInvalid):
        verify(bare, log.policies())


def test_a_time_beyond_the_calendar_is_malformed():
    log = MemoryLog()
    with pytest.raises(FormatError):
        verify(receipt_of(log, leaf_time=limits.JSON_INTEGER), log.policies(None, datetime(2030, 1, 1, tzinfo=UTC)))


def test_no_byte_of_a_receipt_can_be_changed():
    """Each byte flipped, of the part that is ours: any error of ours, nothing else, and never an acceptance."""
    log = MemoryLog(witnesses=1)
    log.append_raw(b"a", b"b")
    data = receipt_of(log)
    head = data.index(b"\n\n") + 2
    signature = data.index("— ".encode(), head)
    for at in [*range(signature), *range(signature, len(data), 97)]:
        altered = bytearray(data)
        altered[at] ^= 1
        with pytest.raises((FormatError, ReceiptInvalid, CheckpointInvalid, QuorumNotMet)):
            verify(bytes(altered), log.policies())
    for end in range(0, len(data), 53):
        with pytest.raises((FormatError, ReceiptInvalid, CheckpointInvalid, QuorumNotMet)):
            verify(data[:end], log.policies())
