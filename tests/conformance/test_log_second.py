# SPDX-License-Identifier: Apache-2.0
"""The vectors of the log, read a second time: by a reader made from docs/spec/log.md that shares no code with ours."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pq_registry.crypto.notesigning import NoteSigner
from pq_registry.format.leaf import Leaf
from pq_registry.format.note import Note, VerifierKey
from pq_registry.format.status import StatusStatement
from pq_registry.format.tlogpolicy import Policy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.judge import judge
from tests.vectors.log import generate

CASE: dict[str, Any] = json.loads((generate.HERE / generate.NAME).read_text("utf-8"))
SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "log.md"


class Key:
    """A verifier key, taken apart by the letter."""

    def __init__(self, vkey: str) -> None:
        self.name, self.id, rest = vkey.split("+", 2)
        material = base64.b64decode(rest, validate=True)
        self.type, self.public = material[0], material[1:]
        assert hashlib.sha256(self.name.encode() + b"\n" + material).digest()[:4].hex() == self.id

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """The time a line says, if it verifies over a note's text."""
        if self.type == 1:
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
            return None
        (time,) = struct.unpack(">Q", signature[:8])
        if self.type == 4:
            message = b"cosignature/v1\ntime %d\n" % time + text
            ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature[8:], message)
        else:
            origin, size, root = text.decode().splitlines()
            mldsa.MLDSA44PublicKey.from_public_bytes(self.public).verify(
                signature[8:], subtree(self.name, time, origin, int(size), base64.b64decode(root))
            )
        return int(time)


def subtree(cosigner: str, time: int, origin: str, size: int, root: bytes) -> bytes:
    names = [len(name.encode()).to_bytes(1, "big") + name.encode() for name in (cosigner, origin)]
    return b"subtree/v1\n\0" + names[0] + struct.pack(">Q", time) + names[1] + struct.pack(">QQ", 0, size) + root


def tree_root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_root(hashes[:half]) + tree_root(hashes[half:])).digest()


def lines(note: str) -> tuple[bytes, list[tuple[str, str, bytes]]]:
    text, _, rest = note.rpartition("\n\n")
    found = []
    for line in rest.splitlines():
        dash, name, encoded = line.split(" ")
        assert dash == "—"
        data = base64.b64decode(encoded, validate=True)
        found.append((name, data[:4].hex(), data[4:]))
    return text.encode() + b"\n", found


KEYS = [Key(one["vkey"]) for one in CASE["keys"]]


@pytest.mark.parametrize("number", range(4))
def test_keys_are_those_of_their_seeds(number: int) -> None:
    one, seed = CASE["keys"][number], bytes.fromhex(CASE["keys"][number]["seed"])
    secret: Any = (
        mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
        if one["type"] == 6
        else ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    )
    key = KEYS[number]
    assert (key.type, key.public) == (one["type"], secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    encoded = base64.b64encode(bytes([one["type"]]) + seed).decode()
    assert one["secret"] == f"PRIVATE+KEY+{key.name}+{key.id}+{encoded}"
    assert str(NoteSigner.from_text(one["secret"]).key) == one["vkey"] == str(VerifierKey.parse(one["vkey"]))


def test_the_checkpoint_is_of_the_leaves() -> None:
    hashes = [hashlib.sha256(b"\x00" + leaf.encode()).digest() for leaf in CASE["leaves"]]
    root = base64.b64encode(tree_root(hashes)).decode()
    assert CASE["checkpoint"] == f"{KEYS[0].name}\n{len(hashes)}\n{root}\n"


def test_leaves_are_canonical() -> None:
    for leaf in CASE["leaves"]:
        assert json.dumps(json.loads(leaf), sort_keys=True, separators=(",", ":")) == leaf
        assert Leaf.parse(leaf.encode()).encode() == leaf.encode()


def test_every_line_verifies_and_no_other_does() -> None:
    text, found = lines(CASE["note"])
    assert text.decode() == CASE["checkpoint"]
    assert [(name, key_id) for name, key_id, _ in found] == [(key.name, key.id) for key in KEYS]
    times = [key.verify(text, signature) for key, (_, _, signature) in zip(KEYS, found, strict=True)]
    assert times[0] is None
    assert times[2:] == [CASE["attested"]] * 2
    for key, (_, _, signature) in zip(KEYS, found, strict=True):
        with pytest.raises(InvalidSignature):
            key.verify(text.replace(b"\n7\n", b"\n6\n"), signature)
    assert Note.parse(CASE["note"].encode()).encode() == CASE["note"].encode()


def test_what_a_witness_signs() -> None:
    origin, size, root = CASE["checkpoint"].splitlines()
    time = CASE["attested"]
    assert bytes.fromhex(CASE["ed25519_message"]).decode() == f"cosignature/v1\ntime {time}\n" + CASE["checkpoint"]
    assert bytes.fromhex(CASE["mldsa44_message"]) == subtree(
        KEYS[3].name, time, origin, int(size), base64.b64decode(root)
    )


def test_the_receipt_proves_its_leaf() -> None:
    head, _, note = CASE["receipt"].partition("\n\n")
    first, extra, index, *proof = head.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    assert base64.b64decode(extra.removeprefix("extra ")).decode() == CASE["leaves"][CASE["index"]]
    assert index == f"index {CASE['index']}"
    assert note == CASE["note"]
    # RFC 9162 §2.1.3.2
    at, last = CASE["index"], len(CASE["leaves"]) - 1
    found = hashlib.sha256(b"\x00" + CASE["leaves"][at].encode()).digest()
    for sibling in (base64.b64decode(one) for one in proof):
        if at & 1 or at == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        at, last = at >> 1, last >> 1
    assert last == 0
    assert base64.b64encode(found).decode() == CASE["checkpoint"].splitlines()[2]
    assert TlogProof.parse(CASE["receipt"].encode()).encode() == CASE["receipt"].encode()


def test_the_policy_accepts_it() -> None:
    judged = judge(CASE["note"].encode(), Policy.parse(CASE["policy"]))
    assert (judged.attested, judged.cosigners) == (CASE["attested"], frozenset({KEYS[2].name}))


def test_the_status_statement() -> None:
    value = json.loads(CASE["status"])
    assert json.dumps(value, sort_keys=True, separators=(",", ":")) == CASE["status"]
    name = value["subject"][0]["name"]
    assert value["subject"][0]["digest"]["sha256"] == hashlib.sha256(name.lower().encode()).hexdigest()
    kinds = [next(key for key in entry if key != "from") for entry in value["predicate"]["revoked"]]
    assert kinds == sorted(kinds) == ["grant", "identity", "recipient", "release"]
    assert StatusStatement.parse(CASE["status"].encode()).encode() == CASE["status"].encode()


def test_the_vectors_are_what_is_written_now() -> None:
    assert generate.document(CASE) == CASE
