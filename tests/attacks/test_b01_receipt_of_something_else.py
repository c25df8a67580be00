# SPDX-License-Identifier: Apache-2.0
"""B1: a genuine receipt, of something else. CVE-2022-36056, CVE-2026-22703: each field that differs is a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry.client.trust import Verifier
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import PqregError, ReceiptInvalid
from pq_registry.format.dsse import Envelope
from pq_registry.format.leaf import Kind
from pq_registry.format.strict_json import encode_base64
from pq_registry.format.tlogproof import TlogProof
from tests import samples
from tests.fake_registry import serving
from tests.logged_site import LoggedSite, acme
from tests.logsamples import MemoryLog
from tests.samples import NOW, REPOSITORY, publisher, trust_file

ENVELOPE, MANIFEST = samples.release()
AGAIN, _ = samples.release()  # the same payload, signed again: ML-DSA and ECDSA are randomised
OTHER, _ = samples.release({"other": b"x"})
ALICE, BOB = publisher().identity.id, publisher("bob").identity.id


def judged(log: MemoryLog, receipt: bytes) -> None:
    trust = trust_file(acme(publisher(), publisher("bob"), revoker=False), log=log.policies())
    judge = Verifier(trust.encode(), NOW, online=True)
    judge.release(ENVELOPE.encode(), MANIFEST, expected_name=None, expected_digest=None, receipt=receipt)


def mixed(ec: Envelope, pq: Envelope) -> Envelope:
    return replace(ENVELOPE, ec_signature=ec.ec_signature, pq_signature=pq.pq_signature)


SWAPS = {
    "digest": (replace(ENVELOPE, payload=OTHER.payload), Kind.RELEASE, str(REPOSITORY), ALICE),
    "EC signature": (mixed(AGAIN, ENVELOPE), Kind.RELEASE, str(REPOSITORY), ALICE),
    "ML-DSA signature": (mixed(ENVELOPE, AGAIN), Kind.RELEASE, str(REPOSITORY), ALICE),
    "key": (ENVELOPE, Kind.RELEASE, str(REPOSITORY), BOB),
    "name": (ENVELOPE, Kind.RELEASE, "acme/other", ALICE),
    "case of the name": (ENVELOPE, Kind.RELEASE, "acme/MiniLM", ALICE),
    "kind": (ENVELOPE, Kind.TAG, str(REPOSITORY), ALICE),
}


def test_the_genuine_one_passes() -> None:
    log = MemoryLog(witnesses=1)
    judged(log, log.log(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=ALICE))


@pytest.mark.parametrize("what", SWAPS)
def test_a_logged_leaf_that_differs_in_one_field(what: str) -> None:
    log = MemoryLog(witnesses=1)
    envelope, kind, name, identity = SWAPS[what]
    receipt = log.log(envelope, kind=kind, name=name, identity=identity)
    with pytest.raises(ReceiptInvalid) as caught:
        judged(log, receipt)
    assert caught.value.step == 4


@pytest.mark.parametrize("what", SWAPS)
def test_the_right_leaf_written_into_the_receipt_of_another(what: str) -> None:
    log = MemoryLog(witnesses=1)
    envelope, kind, name, identity = SWAPS[what]
    index = log.append(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=ALICE)
    other = TlogProof.parse(log.log(envelope, kind=kind, name=name, identity=identity))
    forged = replace(other, extra=log.entries[index])
    with pytest.raises(ReceiptInvalid):
        judged(log, forged.encode())


def test_another_time_in_the_leaf() -> None:
    log = MemoryLog(witnesses=1)
    receipt = TlogProof.parse(log.log(ENVELOPE, kind=Kind.RELEASE, name=str(REPOSITORY), identity=ALICE))
    assert receipt.extra is not None
    earlier = receipt.extra.replace(str(log.time).encode(), str(log.time - 1).encode())
    assert earlier != receipt.extra
    with pytest.raises(ReceiptInvalid):
        judged(log, replace(receipt, extra=earlier).encode())


@pytest.mark.parametrize("receipt_of", ["another release", "its own tag", "nothing"])
def test_a_registry_that_answers_with_another_receipt(tmp_path: Path, receipt_of: str) -> None:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path)
        other = site.publish({"other": b"x"})
        digest = site.publish()
        site.set_tag(digest)
        tag = sign_envelope(samples.tag_statement(digest).encode(), publisher())
        site.resolve("v1")
        registry.receipts[digest.hex] = {
            "another release": registry.receipts[other.hex],
            "its own tag": registry.receipts[tag.payload_digest.hex],
            "nothing": b"c2sp.org/tlog-proof@v1\n",
        }[receipt_of]
        with pytest.raises(PqregError) as caught:
            site.resolve("v1")
        assert caught.value.step == 4
        assert encode_base64(registry.receipts[digest.hex]) not in str(caught.value)
