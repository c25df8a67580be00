# SPDX-License-Identifier: Apache-2.0
"""Hybrid envelopes, foreign EC signatures and secrets in memory."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import (
    KeySource,
    Signer,
    failed_halves,
    sign_envelope,
    verify_ec_only,
    verify_envelope,
)
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.dsse import Envelope, pae
from pqreg_keys import custody
from pqreg_keys.source import FileKeySource

ALICE = custody.generate()
PAYLOAD = '{"naïve":"payload"}'.encode()


@pytest.mark.parametrize("profile", list(Profile))
def test_an_envelope_verifies_under_its_signer_and_nobody_else(profile: Profile) -> None:
    signer, other = custody.generate(profile), custody.generate(profile)
    envelope = sign_envelope(PAYLOAD, signer)
    verify_envelope(envelope, signer.identity)
    verify_envelope(Envelope.parse(envelope.encode()), signer.identity)
    with pytest.raises(SignatureInvalid, match="both halves"):
        verify_envelope(envelope, other.identity)


def test_a_changed_payload_fails_both_halves() -> None:
    envelope = sign_envelope(PAYLOAD, ALICE)
    changed = Envelope(PAYLOAD + b" ", envelope.ec_signature, envelope.pq_signature)
    assert set(failed_halves(changed, ALICE.identity)) == {"ec", "pq"}


def test_what_is_signed_is_the_pre_authentication_encoding() -> None:
    ec_signature, pq_signature = ALICE.sign(PAYLOAD)  # the payload itself, without the encoding
    with pytest.raises(SignatureInvalid, match="both halves"):
        verify_envelope(Envelope(PAYLOAD, ec_signature, pq_signature), ALICE.identity)


class Faulty:
    """A signer whose hardware flips a bit."""

    def __init__(self, half: int) -> None:
        self.identity: PublicIdentity = ALICE.identity
        self.half = half

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        halves = [bytearray(half) for half in ALICE.sign(message)]
        halves[self.half][-1] ^= 1
        return bytes(halves[0]), bytes(halves[1])


@pytest.mark.parametrize("half", [0, 1])
def test_a_faulty_signature_is_never_handed_out(half: int) -> None:
    with pytest.raises(SignatureInvalid):
        sign_envelope(PAYLOAD, Faulty(half))


def test_protocols_are_met() -> None:
    assert isinstance(ALICE, Signer)
    assert isinstance(FileKeySource(), KeySource)


@pytest.mark.parametrize(
    ("curve", "algorithm"),
    [(ec.SECP256R1(), hashes.SHA256()), (ec.SECP384R1(), hashes.SHA384()), (ec.SECP521R1(), hashes.SHA512())],
)
def test_foreign_ec_signatures(curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> None:
    key = ec.generate_private_key(curve)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(pae(PAYLOAD), ec.ECDSA(algorithm))
    verify_ec_only(PAYLOAD, signature, pem)
    for payload, bad in ((PAYLOAD + b"x", signature), (PAYLOAD, signature[:-1]), (PAYLOAD, b""), (PAYLOAD, b"x" * 70)):
        with pytest.raises(SignatureInvalid):
            verify_ec_only(payload, bad, pem)
    wrong_hash = key.sign(pae(PAYLOAD), ec.ECDSA(hashes.SHA3_256()))
    with pytest.raises(SignatureInvalid):
        verify_ec_only(PAYLOAD, wrong_hash, pem)


def test_foreign_keys_of_other_kinds_are_refused() -> None:
    keys = [
        ed25519.Ed25519PrivateKey.generate().public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
    ]
    for key in keys:
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
        with pytest.raises(FormatError):
            verify_ec_only(PAYLOAD, b"x", pem)
    for junk in (b"", b"junk", ALICE.identity.pq_pem, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(FormatError):
            verify_ec_only(PAYLOAD, b"x", junk)


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_secret_keys_load_only_as_what_they_are(half: str) -> None:
    five, three = custody.generate(Profile.LEVEL_5).material(), custody.generate(Profile.LEVEL_3).material()
    right = five.ec_pkcs8 if half == "ec" else five.pq_pkcs8
    wrong = [
        three.ec_pkcs8 if half == "ec" else three.pq_pkcs8,
        five.pq_pkcs8 if half == "ec" else five.ec_pkcs8,
        SecretBytes(right + b"\x00"),
        SecretBytes(right[:-1]),
        SecretBytes(b""),
    ]
    assert OPENSSL.load(Profile.LEVEL_5, half, right).pkcs8() == right  # type: ignore[arg-type]
    for secret in wrong:
        with pytest.raises(FormatError) as caught:
            OPENSSL.load(Profile.LEVEL_5, half, secret)  # type: ignore[arg-type]
        assert caught.value.found is None


def test_a_secret_key_in_another_encoding_is_refused() -> None:
    """PKCS#8 may leave the public key out; the library loads it, but it is not the one form we write."""
    whole = bytes(custody.generate(Profile.LEVEL_5).material().ec_pkcs8)
    scalar = whole[whole.index(b"\x04\x30") + 2 :][:48]
    inner = b"\x30\x35\x02\x01\x01\x04\x30" + scalar
    algorithm = bytes.fromhex("301006072a8648ce3d020106052b81040022")
    body = b"\x02\x01\x00" + algorithm + b"\x04" + bytes([len(inner)]) + inner
    short = b"\x30" + bytes([len(body)]) + body
    assert isinstance(load_der_private_key(short, None), ec.EllipticCurvePrivateKey)
    with pytest.raises(FormatError):
        OPENSSL.load(Profile.LEVEL_5, "ec", SecretBytes(short))


def test_secret_bytes_are_wiped() -> None:
    with SecretBytes(b"abc") as secret:
        assert bytes(secret) == b"abc"
    assert bytes(secret) == bytes(3)
