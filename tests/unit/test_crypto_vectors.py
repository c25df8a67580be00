# SPDX-License-Identifier: Apache-2.0
"""Known answers: NIST's for ML-DSA as shipped with ``cryptography_vectors``, and our own frozen ones.

All 100 official cases of each level carry a context or none; this project signs with the empty context only, so a case
with a context must verify in the library (the vector is genuine) and must be refused by our provider (case A2).
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope, verify_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import SignatureInvalid, WrongPassphrase
from pq_registry.format.dsse import Envelope, pae
from pqreg_keys import custody
from pqreg_keys.passphrase import fixed
from tests.oqs_site import providers

LIBRARY: dict[Profile, Any] = {Profile.LEVEL_3: mldsa.MLDSA65PublicKey, Profile.LEVEL_5: mldsa.MLDSA87PublicKey}
PKCS8_PREFIX = {
    Profile.LEVEL_3: bytes.fromhex("3034020100300b060960864801650304031204228020"),
    Profile.LEVEL_5: bytes.fromhex("3034020100300b060960864801650304031304228020"),
}
VECTORS = Path(__file__).parents[1] / "vectors" / "identities"


def official(profile: Profile) -> Iterator[dict[str, bytes]]:
    """The cases of the response file: name -> bytes; ``sm`` is signature || message."""
    name = f"kat_MLDSA_{65 if profile is Profile.LEVEL_3 else 87}_det_pure.rsp"
    with cryptography_vectors.open_vector_file(f"asymmetric/MLDSA/{name}", "r") as file:
        case: dict[str, bytes] = {}
        for line in file:
            field, _, value = line.partition(" = ")
            if field == "count" and case:
                yield case
                case = {}
            elif field in ("xi", "pk", "msg", "sm", "ctx"):
                case[field] = bytes.fromhex(value.strip())
        yield case


@pytest.mark.parametrize("profile", list(Profile))
def test_official_mldsa_keys_come_from_their_seeds(profile: Profile) -> None:
    for case in official(profile):
        half = OPENSSL.load(profile, "pq", SecretBytes(PKCS8_PREFIX[profile] + case["xi"]))
        assert half.spki == profile.pq.spki_prefix + case["pk"]


@pytest.mark.parametrize("provider", providers(), ids=lambda provider: provider.name)
@pytest.mark.parametrize("profile", list(Profile))
def test_official_mldsa_signatures_verify_and_only_without_a_context(profile: Profile, provider: Provider) -> None:
    counted = {"with context": 0, "without": 0}
    for case in official(profile):
        signature = case["sm"][: profile.pq.signature_bytes]
        assert case["sm"][profile.pq.signature_bytes :] == case["msg"]
        LIBRARY[profile].from_public_bytes(case["pk"]).verify(signature, case["msg"], case["ctx"])
        spki = profile.pq.spki_prefix + case["pk"]
        if case["ctx"]:
            counted["with context"] += 1
            with pytest.raises(SignatureInvalid):
                provider.verify_mldsa(profile, spki, case["msg"], signature)
        else:
            counted["without"] += 1
            assert provider.verify_mldsa(profile, spki, case["msg"], signature) is True
    assert sum(counted.values()) == 100
    assert counted["with context"] > 50


@pytest.fixture(params=[3, 5])
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of our frozen vectors."""
    value: dict[str, Any] = json.loads((VECTORS / f"level{request.param}.json").read_text("utf-8"))
    return value


def remade(vector: dict[str, Any]) -> bytes:
    """The body of the key file, made from the labels with nothing of ours."""
    wide = hashlib.sha256 if vector["level"] == 3 else hashlib.sha384
    scalar = int.from_bytes(wide(vector["ec_private_label"].encode()).digest(), "big")
    curve = ec.SECP256R1() if vector["level"] == 3 else ec.SECP384R1()
    pkcs8_ec = ec.derive_private_key(scalar, curve).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    pkcs8_pq = PKCS8_PREFIX[Profile(vector["level"])] + hashlib.sha256(vector["pq_seed_label"].encode()).digest()
    body = b"".join(len(part).to_bytes(2, "big") + part for part in (pkcs8_ec, pkcs8_pq))
    return body + hashlib.sha256(vector["recipient_seed_label"].encode()).digest()


def stored(folder: Path, content: str) -> Path:
    path = folder / "vector.pqkey"
    path.write_bytes(bytes.fromhex(content))
    path.chmod(0o600)
    return path


def test_our_identity_vector(vector: dict[str, Any]) -> None:
    identity = PublicIdentity.from_pem(vector["public_file"].encode())
    assert identity.profile == vector["level"]
    assert identity.id == vector["id"]
    assert list(identity.half_ids) == vector["half_ids"]
    # Once more by the words of the specification, with nothing of ours.
    spkis = (identity.ec_spki, identity.pq_spki)
    assert hashlib.sha256(b"".join(len(s).to_bytes(4, "big") + s for s in spkis)).hexdigest() == vector["id"]


def test_our_signature_vector(vector: dict[str, Any]) -> None:
    payload = vector["payload"].encode("utf-8")
    assert len(payload) != len(vector["payload"])
    assert pae(payload).hex() == vector["pae_hex"]
    envelope = Envelope(payload, bytes.fromhex(vector["ec_signature_hex"]), bytes.fromhex(vector["pq_signature_hex"]))
    verify_envelope(envelope, PublicIdentity.from_pem(vector["public_file"].encode()))


def test_our_unsealed_key_file_vector(vector: dict[str, Any], tmp_path: Path) -> None:
    header = b"pqreg secret key v1\n" + bytes([vector["level"], 0]) + bytes.fromhex(vector["id"])
    assert bytes.fromhex(vector["key_file_unsealed_hex"]) == header + remade(vector)
    secret = custody.load(stored(tmp_path, vector["key_file_unsealed_hex"]))
    assert secret.identity.id == vector["id"]
    custody.store(tmp_path / "again.pqkey", secret, None)
    assert (tmp_path / "again.pqkey").read_bytes().hex() == vector["key_file_unsealed_hex"]


def test_our_sealed_key_file_vector(vector: dict[str, Any], tmp_path: Path) -> None:
    path = stored(tmp_path, vector["key_file_sealed_hex"])
    decomposed = unicodedata.normalize("NFD", vector["passphrase"])
    assert decomposed != vector["passphrase"]
    for text in (vector["passphrase"], decomposed):
        secret = custody.load(path, fixed(text))
        assert secret.identity.id == vector["id"]
        assert bytes(secret.material().recipient_seed) == remade(vector)[-32:]
    with pytest.raises(WrongPassphrase):
        custody.load(path, fixed(vector["passphrase"] + " "))


def test_signing_is_randomised_and_verifies_under_the_vector_identity(vector: dict[str, Any], tmp_path: Path) -> None:
    secret = custody.load(stored(tmp_path, vector["key_file_unsealed_hex"]))
    first, second = (sign_envelope(b"{}", secret) for _ in range(2))
    assert first.ec_signature != second.ec_signature
    assert first.pq_signature != second.pq_signature
    verify_envelope(first, PublicIdentity.from_pem(vector["public_file"].encode()))
