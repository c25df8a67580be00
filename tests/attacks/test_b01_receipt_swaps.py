# SPDX-License-Identifier: Apache-2.0
"""B1, a receipt that is not about this artifact (CVE-2022-36056, CVE-2026-22703): single fields swapped, one at a time.

Two statements are logged, as alike as they can be. A receipt is genuine for one and must be refused for the other: for
another digest, another signature over the same payload, another key, another name, another kind. The leaf in ``extra``
is swapped too, so that what the receipt says matches what is presented and only the tree knows better.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import PqregError, ReceiptInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.receipt import verify_receipt
from tests.logsamples import TIME, MemoryLog
from tests.samples import publisher, tag_statement

ALICE, BOB = publisher("alice"), publisher("bob")
PAYLOAD = tag_statement(Digest.of(b"release")).encode()
GENUINE: dict[str, Any] = {
    "envelope": sign_envelope(PAYLOAD, ALICE),
    "kind": Kind.TAG,
    "name": "acme/minilm",
    "identity": ALICE.identity.id,
}
AGAIN = sign_envelope(PAYLOAD, ALICE)
SWAPS: dict[str, dict[str, Any]] = {
    "digest": {"envelope": dataclasses.replace(GENUINE["envelope"], payload=PAYLOAD + b" ")},
    "ec-signature": {"envelope": dataclasses.replace(GENUINE["envelope"], ec_signature=AGAIN.ec_signature)},
    "pq-signature": {"envelope": dataclasses.replace(GENUINE["envelope"], pq_signature=AGAIN.pq_signature)},
    "both-signatures": {"envelope": AGAIN},
    "halves-exchanged": {
        "envelope": dataclasses.replace(
            GENUINE["envelope"],
            ec_signature=GENUINE["envelope"].pq_signature,
            pq_signature=GENUINE["envelope"].ec_signature,
        )
    },
    "key": {"identity": BOB.identity.id},
    "name": {"name": "acme/minilm2"},
    "name-in-another-case": {"name": "acme/MiniLM"},
    "kind": {"kind": Kind.GRANT},
    "kind-of-release": {"kind": Kind.RELEASE},
}


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    log = MemoryLog(witnesses=1)
    log.append_raw(*[b"x"] * 5)
    log.append(**GENUINE)
    for swap in SWAPS.values():
        log.append(**(GENUINE | swap))
    log.publish()
    return log


def test_the_receipt_is_genuine(log):
    assert verify_receipt(log.receipt(5), **GENUINE, policies=log.policies()).index == 5


@pytest.mark.parametrize("swap", SWAPS)
def test_another_statement_s_receipt(log, swap):
    presented = GENUINE | SWAPS[swap]
    with pytest.raises(ReceiptInvalid) as refused:
        verify_receipt(log.receipt(5), **presented, policies=log.policies())
    assert refused.value.step == 4


@pytest.mark.parametrize("swap", SWAPS)
def test_the_other_way_round(log, swap):
    index = 6 + list(SWAPS).index(swap)
    assert verify_receipt(log.receipt(index), **(GENUINE | SWAPS[swap]), policies=log.policies()).index == index
    with pytest.raises(ReceiptInvalid):
        verify_receipt(log.receipt(index), **GENUINE, policies=log.policies())


@pytest.mark.parametrize("swap", SWAPS)
def test_a_leaf_made_to_match(log, swap):
    presented = GENUINE | SWAPS[swap]
    leaf = Leaf.of(presented["envelope"], **{k: v for k, v in presented.items() if k != "envelope"}, time=TIME)
    proof = TlogProof.parse(log.receipt(5))
    forged = dataclasses.replace(proof, extra=leaf.encode()).encode()
    with pytest.raises(ReceiptInvalid):
        verify_receipt(forged, **presented, policies=log.policies())


def test_another_time(log):
    """The time is the one field that is taken from the receipt; the tree holds it to it."""
    proof = TlogProof.parse(log.receipt(5))
    assert proof.extra is not None
    for time in (TIME - 1, TIME + 1, 0):
        forged = dataclasses.replace(Leaf.parse(proof.extra), time=time).encode()
        with pytest.raises(ReceiptInvalid):
            verify_receipt(dataclasses.replace(proof, extra=forged).encode(), **GENUINE, policies=log.policies())


def test_the_same_leaf_written_otherwise(log):
    """Bytes that a lenient reader would take for the same leaf."""
    proof = TlogProof.parse(log.receipt(5))
    assert proof.extra is not None
    for extra in (
        proof.extra + b" ",
        proof.extra.replace(b'"v":1', b'"v":1.0'),
        proof.extra.replace(b'"v":1', b'"v":1,"v":1'),
        proof.extra.replace(b'"v":1', b'"v":2'),
        proof.extra.replace(b'"k":"tag"', b'"k":"TAG"'),
    ):
        assert extra != proof.extra
        with pytest.raises(PqregError):
            verify_receipt(dataclasses.replace(proof, extra=extra).encode(), **GENUINE, policies=log.policies())


def test_the_receipt_of_a_log_that_nobody_named(log):
    other = MemoryLog("other.example/log", witnesses=1)
    with pytest.raises(PqregError):
        verify_receipt(other.log(**GENUINE), **GENUINE, policies=log.policies())
