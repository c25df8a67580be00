# SPDX-License-Identifier: Apache-2.0
"""A second reader of ``trust.json.sig``, written from docs/spec/{trust,statements,identities}.md, judges the vectors.

It spells out the envelope and the pre-authentication encoding, and uses bare primitives of ``cryptography`` for the two
halves and tests/slhdsa_reference.py (from FIPS 205) for SLH-DSA. It needs neither liboqs nor code of this project.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests import slhdsa_reference
from tests.oqs_site import needs_liboqs

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "trust" / "signatures.json"
CASES = json.loads(VECTORS.read_text("utf-8"))
each = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
KIND = "application/vnd.pq-registry.trust+json"


# -- the second implementation -----------------------------------------------------------------------------------------
def blocks(pem: str) -> list[bytes]:
    """The DER blocks of a public file."""
    found, text = [], ""
    for line in pem.splitlines():
        if line == "-----BEGIN PUBLIC KEY-----":
            text = ""
        elif line == "-----END PUBLIC KEY-----":
            found.append(base64.b64decode(text, validate=True))
        else:
            text += line
    return found


def signed(payload: bytes) -> bytes:
    """What the signatures are over."""
    return b"DSSEv1 38 application/vnd.pq-registry.trust+json " + str(len(payload)).encode() + b" " + payload


def signatures(text: str, payload: bytes) -> list[bytes]:
    """The signatures of a file that is of ``payload``."""
    value = json.loads(text)
    assert json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False) == text
    assert set(value) == {"payload", "payloadType", "signatures"}
    assert value["payloadType"] == KIND
    assert base64.b64decode(value["payload"], validate=True) == payload
    assert all(set(one) == {"keyid", "sig"} and one["keyid"] == "" for one in value["signatures"])
    return [base64.b64decode(one["sig"], validate=True) for one in value["signatures"]]


def identity(pem: str) -> tuple[Any, Any, str]:
    """Both public keys and the id."""
    first, second = blocks(pem)
    hashed = hashlib.sha256()
    for spki in (first, second):
        hashed.update(len(spki).to_bytes(4, "big") + spki)
    return load_der_public_key(first), load_der_public_key(second), hashed.hexdigest()


def slh_key(pem: str) -> tuple[int, bytes, str]:
    """Level, public key and id of an SLH-DSA key."""
    (spki,) = blocks(pem)
    size = {66: 48, 82: 64}[len(spki)]
    level = {48: 3, 64: 5}[size]
    oid = bytes.fromhex("060960864801650304") + b"\x03" + {3: b"\x16", 5: b"\x18"}[level]
    assert oid in spki[:-size]
    return level, spki[-size:], hashlib.sha256(spki).hexdigest()


SECOND = (blocks, signed, signatures, identity, slh_key)


# -- it and the vectors ------------------------------------------------------------------------------------------------
def test_the_second_implementation_knows_nothing_of_ours() -> None:
    module = ast.parse(Path(__file__).read_text("utf-8"))
    top = [ast.unparse(node) for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    inside = "".join(inspect.getsource(part) for part in SECOND)
    for name in ("pq_registry", "pqreg_keys"):
        assert not any(name in line for line in top)
        assert name not in inside


@each
def test_both_halves(case: dict[str, Any]) -> None:
    payload = case["trust_file"].encode()
    message = signed(payload)
    assert hashlib.sha256(message).hexdigest() == case["message_sha256"]
    curve, lattice, found = identity(case["root_public_file"])
    assert found == case["root_id"]
    made = signatures(case["signature_file"], payload)
    assert len(made) == (2 if case["slh_id"] is None else 3)
    kind = ec.ECDSA(hashes.SHA384() if case["level"] == 5 else hashes.SHA256())
    curve.verify(made[0], message, kind)
    lattice.verify(made[1], message)
    for other in (message[:-1], message.replace(b"trust+json", b"other+json", 1)):
        with pytest.raises(InvalidSignature):
            curve.verify(made[0], other, kind)
        with pytest.raises(InvalidSignature):
            lattice.verify(made[1], other)


@pytest.mark.parametrize("case", [case for case in CASES if case["slh_id"]], ids=lambda case: case["name"])
def test_slh_dsa(case: dict[str, Any]) -> None:
    payload = case["trust_file"].encode()
    level, key, found = slh_key(case["slh_public_file"])
    assert (level, found) == (case["level"], case["slh_id"])
    secret = bytes.fromhex(case["slh_secret"])
    assert (len(secret), secret[-len(key) :]) == (2 * len(key), key)
    made = signatures(case["signature_file"], payload)[2]
    reference = slhdsa_reference.Verifier(level, key)
    assert reference.verify(signed(payload), made)
    assert not reference.verify(signed(payload + b" "), made)


# -- it and our code ---------------------------------------------------------------------------------------------------
def ours(case: dict[str, Any]) -> tuple[bytes, Any, Any]:
    """Payload, signature file and signer, read by this project's code."""
    from pq_registry.crypto.identity import PublicIdentity
    from pq_registry.crypto.slhdsa import SlhPublic
    from pq_registry.crypto.trustsigning import TrustSigner
    from pq_registry.format.trustsignature import TrustSignature

    root = PublicIdentity.from_pem(case["root_public_file"].encode())
    slh = None if case["slh_id"] is None else SlhPublic.from_pem(case["slh_public_file"].encode())
    assert (root.id, None if slh is None else slh.id) == (case["root_id"], case["slh_id"])
    signature = TrustSignature.parse(case["signature_file"].encode())
    assert signature.encode().decode() == case["signature_file"]
    return case["trust_file"].encode(), signature, TrustSigner(root, slh)


@each
def test_our_code_verifies_the_halves(case: dict[str, Any]) -> None:
    from pq_registry.crypto.trustsigning import TrustSigner, check_keys, root_of, verify_trust
    from pq_registry.errors import SignatureInvalid
    from pq_registry.format.trustfile import TrustFile

    payload, signature, signer = ours(case)
    trust = TrustFile.parse(payload)
    check_keys(trust)
    assert root_of(trust) == signer
    verify_trust(payload, signature, TrustSigner(signer.identity))
    with pytest.raises(SignatureInvalid):
        verify_trust(payload + b" ", signature, TrustSigner(signer.identity))


@needs_liboqs
@each
def test_our_code_verifies_all_of_it(case: dict[str, Any]) -> None:
    from dataclasses import replace

    from pq_registry.crypto.trustsigning import verify_trust
    from pq_registry.errors import SignatureInvalid

    payload, signature, signer = ours(case)
    verify_trust(payload, signature, signer)
    if signer.slh is not None:
        with pytest.raises(SignatureInvalid, match="lacks the SLH-DSA signature"):
            verify_trust(payload, replace(signature, slh_signature=None), signer)


def test_our_code_makes_the_vectors_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no liboqs: what is there verifies, so it is kept."""
    from tests.vectors.trust import generate

    (tmp_path / generate.NAME).write_bytes(VECTORS.read_bytes())
    monkeypatch.setattr(generate, "HERE", tmp_path)
    generate.main()
    assert (tmp_path / generate.NAME).read_bytes() == VECTORS.read_bytes(), "run make vectors"
