# SPDX-License-Identifier: Apache-2.0
"""Independent checkers accept our receipts and proofs, and refuse them once a bit is wrong.

PyPI's ``proofbundle`` checks whole tlog-proofs: the log's Ed25519 line, cosignatures of both types, the inclusion. It
takes witnesses one key at a time and a log's ML-DSA-44 line not at all, so it checks less than our policies demand.
PyPI's ``scitt-cose`` checks inclusion and consistency. Neither shares code with us.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from pq_registry.crypto.signing import sign_envelope
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.merkle import verify_consistency, verify_inclusion
from tests.logsamples import ORIGIN, MemoryLog, log_signers, witness_signers
from tests.samples import publisher, tag_statement

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("proofbundle") is None or importlib.util.find_spec("scitt_cose") is None,
    reason="PyPI's proofbundle and scitt-cose are not installed",
)

SIZES = (1, 2, 255, 256, 257, 70000)
LOG_VKEY = str(log_signers()[0].key)
ED25519, MLDSA = ([str(witness_signers(number)[half].key) for number in (1, 2)] for half in (0, 1))


def filling(index: int) -> bytes:
    return {0: b"x" * 65535, 3: b""}.get(index % 100, b"%d" % index)


@pytest.fixture(scope="module", params=SIZES)
def log(request) -> MemoryLog:
    """A log with a leaf of ours, empty leaves and the longest possible; checkpoints on the way to its size."""
    signer = publisher()
    log = MemoryLog(witnesses=2)
    log.append(
        sign_envelope(tag_statement(Digest.of(b"release")).encode(), signer),
        kind=Kind.TAG,
        name="acme/minilm",
        identity=signer.identity.id,
    )
    for size in (size for size in SIZES if size <= request.param):
        log.append_raw(*map(filling, range(log.size, size)))
        log.publish()
    return log


def indexes(size: int) -> set[int]:
    return {0, size // 2, size - 1}


def checked(text: bytes, entry: bytes, witnesses: list[str], threshold: int = 2) -> dict:
    from proofbundle.tlogproof import verify_tlog_proof

    return verify_tlog_proof(text.decode(), entry, LOG_VKEY, witnesses, threshold=threshold, expected_origin=ORIGIN)


def altered_hash(proof: TlogProof) -> bytes:
    hashes = (bytes(32), *proof.hashes[1:])
    return TlogProof(proof.index, hashes, proof.checkpoint, proof.extra).encode()


@pytest.mark.parametrize("witnesses", [ED25519, MLDSA], ids=["0x04", "0x06"])
def test_proofbundle_accepts_our_receipts(log, witnesses):
    for index in indexes(log.size):
        verdict = checked(log.receipt(index), log.entries[index], witnesses)
        assert verdict["ok"] is True, verdict
        assert (verdict["origin"], verdict["tree_size"], verdict["index"]) == (ORIGIN, log.size, index)


def test_proofbundle_refuses_what_is_tampered(log):
    index = log.size // 2
    data, entry = log.receipt(index), log.entries[index]
    proof = TlogProof.parse(data)
    root = parse_checkpoint_note(proof.checkpoint)[0].encode().split(b"\n")[2]
    attempts: dict[str, tuple[bytes, bytes, list[str]]] = {
        "another entry": (data, entry + b".", MLDSA),
        "another root": (data.replace(root, b"A" * 43 + b"="), entry, MLDSA),
        "a witness that did not sign": (data, entry, [MLDSA[0], str(witness_signers(3)[1].key)]),
        "one witness twice": (data, entry, [MLDSA[0], MLDSA[0]]),
        "the log as its own witness": (data, entry, [MLDSA[0], str(log_signers()[1].key)]),
    }
    if log.size > 1:
        attempts["another hash"] = (altered_hash(proof), entry, MLDSA)
        other = index - 1
        attempts["another index"] = (data.replace(b"\nindex %d\n" % index, b"\nindex %d\n" % other), entry, MLDSA)
    for what, (text, presented, witnesses) in attempts.items():
        verdict = checked(text, presented, witnesses)
        assert verdict["ok"] is False, what


def test_proofbundle_refuses_a_receipt_without_cosignatures(log):
    note = log.sign(parse_checkpoint_note(log.files["checkpoint"])[0], cosigned=False)
    data = log.receipt(0, note)
    assert checked(data, log.entries[0], [], threshold=0)["ok"] is True
    assert checked(data, log.entries[0], MLDSA, threshold=1)["ok"] is False


def scitt(name: str) -> Callable[..., Any]:
    import scitt_cose.merkle

    return getattr(scitt_cose.merkle, name)


def test_scitt_cose_accepts_our_inclusion_proofs(log):
    tree = log.tree()
    for index in indexes(log.size):
        hashes = [value.hex() for value in tree.inclusion_proof(index)]
        entry = log.entries[index].hex()
        verify = scitt("verify_inclusion")
        assert verify(entry, index, log.size, hashes, tree.root.hex()) is True
        assert verify(entry + "00", index, log.size, hashes, tree.root.hex()) is False
        assert verify(entry, index, log.size, hashes, bytes(32).hex()) is False
        assert verify(entry, index, log.size, [*hashes, bytes(32).hex()], tree.root.hex()) is False


def test_scitt_cose_accepts_our_consistency_proofs(log):
    tree = log.tree()
    verify = scitt("verify_consistency")
    for old, note in log.notes.items():
        checkpoint = parse_checkpoint_note(note)[0]
        hashes = [value.hex() for value in tree.consistency_proof(old)]
        assert verify(checkpoint.root.hex(), tree.root.hex(), old, log.size, hashes) is True
        if hashes:
            assert verify(bytes(32).hex(), tree.root.hex(), old, log.size, hashes) is False


def test_we_accept_the_proofs_of_scitt_cose():
    """Every size to 40: their prover, our verifier."""
    entries = [b"%d" % index for index in range(40)]
    hexes = [entry.hex() for entry in entries]
    log = MemoryLog()
    log.append_raw(*entries)
    log.publish()
    tree = log.tree()
    for size in range(1, len(entries) + 1):
        root = bytes.fromhex(str(scitt("merkle_root")(hexes[:size])))
        assert root == tree.root_at(size)
        for index in range(size):
            proof = [bytes.fromhex(value) for value in scitt("inclusion_proof")(hexes[:size], index)]
            leaf = bytes.fromhex(str(scitt("leaf_hash")(hexes[index])))
            verify_inclusion(index=index, size=size, leaf=leaf, proof=proof, root=root)
        for old in range(1, size):
            proof = [bytes.fromhex(value) for value in scitt("consistency_proof")(hexes, old, size)]
            verify_consistency(old_size=old, old_root=tree.root_at(old), new_size=size, new_root=root, proof=proof)
