# SPDX-License-Identifier: Apache-2.0
"""A2, context confusion: a signature made for one purpose verifies for no other.

Domains are kept apart by DSSE's pre-authentication encoding, by ML-DSA's context, which is always empty here, and by
each verifier demanding exactly one predicate type (step 3, tested with the verifier).
"""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pq_registry.crypto.openssl import OPENSSL, EcPrivateHalf, MldsaPrivateHalf
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.signing import sign_envelope, verify_ec_only, verify_envelope
from pq_registry.crypto.suites import Profile
from pq_registry.errors import SignatureInvalid
from pq_registry.format.dsse import PAYLOAD_TYPE, Envelope, pae
from pqreg_keys.custody import SecretIdentity

PAYLOAD = b'{"predicateType":"urn:pq-registry:tag:v1"}'
EC_KEY = ec.generate_private_key(ec.SECP384R1())
PQ_KEY = mldsa.MLDSA87PrivateKey.generate()
SIGNER = SecretIdentity(Profile.LEVEL_5, EcPrivateHalf(EC_KEY), MldsaPrivateHalf(PQ_KEY), SecretBytes(32))
EC_GOOD, PQ_GOOD = SIGNER.sign(pae(PAYLOAD))


def test_a2_an_envelopes_signature_is_none_over_the_bare_payload() -> None:
    envelope = sign_envelope(PAYLOAD, SIGNER)
    pq_public = load_der_public_key(SIGNER.identity.pq_spki)
    ec_public = load_der_public_key(SIGNER.identity.ec_spki)
    assert isinstance(pq_public, mldsa.MLDSA87PublicKey)
    assert isinstance(ec_public, ec.EllipticCurvePublicKey)
    with pytest.raises(InvalidSignature):
        pq_public.verify(envelope.pq_signature, PAYLOAD)
    with pytest.raises(InvalidSignature):
        ec_public.verify(envelope.ec_signature, PAYLOAD, ec.ECDSA(hashes.SHA384()))


@pytest.mark.parametrize("context", [b"pq-registry", b"\x00", b"c" * 255, PAYLOAD_TYPE.encode()])
def test_a2_an_envelopes_signature_is_none_under_a_context(context: bytes) -> None:
    pq_public = load_der_public_key(SIGNER.identity.pq_spki)
    assert isinstance(pq_public, mldsa.MLDSA87PublicKey)
    pq_public.verify(PQ_GOOD, pae(PAYLOAD), b"")
    with pytest.raises(InvalidSignature):
        pq_public.verify(PQ_GOOD, pae(PAYLOAD), context)


@pytest.mark.parametrize("length", [256, 300, 65536])
def test_a2_contexts_over_255_bytes_neither_sign_nor_verify(length: int) -> None:
    pq_public = load_der_public_key(SIGNER.identity.pq_spki)
    assert isinstance(pq_public, mldsa.MLDSA87PublicKey)
    with pytest.raises((ValueError, InvalidSignature)):
        pq_public.verify(PQ_GOOD, pae(PAYLOAD), b"c" * length)
    with pytest.raises(ValueError):
        PQ_KEY.sign(pae(PAYLOAD), b"c" * length)


FOREIGN = {
    "the bare payload": PAYLOAD,
    "no payload type": b"DSSEv1 0  %d %b" % (len(PAYLOAD), PAYLOAD),
    "another payload type": b"DSSEv1 16 application/json %d %b" % (len(PAYLOAD), PAYLOAD),
    "model-signing's old encoding": b"DSSEV1 28 %b %d %b" % (PAYLOAD_TYPE.encode(), len(PAYLOAD), PAYLOAD),
    "a length of another payload": b"DSSEv1 28 %b %d %b" % (PAYLOAD_TYPE.encode(), len(PAYLOAD) + 1, PAYLOAD),
    "a hexadecimal length": b"DSSEv1 28 %b %x %b" % (PAYLOAD_TYPE.encode(), len(PAYLOAD), PAYLOAD),
    "two encodings": pae(pae(PAYLOAD)),
    "a checkpoint": b"subtree/v1\n\x00" + PAYLOAD,
    "a signed note": PAYLOAD + b"\n\n",
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a2_signatures_made_for_something_else_are_refused(name: str) -> None:
    foreign_ec, foreign_pq = SIGNER.sign(FOREIGN[name])
    with pytest.raises(SignatureInvalid, match="EC half"):
        verify_envelope(Envelope(PAYLOAD, foreign_ec, PQ_GOOD), SIGNER.identity)
    with pytest.raises(SignatureInvalid, match="post-quantum half"):
        verify_envelope(Envelope(PAYLOAD, EC_GOOD, foreign_pq), SIGNER.identity)
    with pytest.raises(SignatureInvalid):
        verify_ec_only(PAYLOAD, foreign_ec, SIGNER.identity.ec_pem)


@pytest.mark.parametrize("context", [b"pq-registry", b"\x00", b"c" * 255])
def test_a2_a_half_signed_under_a_context_is_refused(context: bytes) -> None:
    verify_envelope(Envelope(PAYLOAD, EC_GOOD, PQ_KEY.sign(pae(PAYLOAD), b"")), SIGNER.identity)
    with pytest.raises(SignatureInvalid, match="post-quantum half"):
        verify_envelope(Envelope(PAYLOAD, EC_GOOD, PQ_KEY.sign(pae(PAYLOAD), context)), SIGNER.identity)


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA512(), hashes.SHA3_384()])
def test_a2_a_half_signed_with_another_hash_is_refused(algorithm: hashes.HashAlgorithm) -> None:
    other = EC_KEY.sign(pae(PAYLOAD), ec.ECDSA(algorithm))
    with pytest.raises(SignatureInvalid):
        OPENSSL.verify_ec(Profile.LEVEL_5, SIGNER.identity.ec_spki, pae(PAYLOAD), other)


def test_a2_the_digest_of_a_message_is_not_the_message() -> None:
    digest = hashes.Hash(hashes.SHA384())
    digest.update(pae(PAYLOAD))
    value = digest.finalize()
    over_digest = EC_KEY.sign(value, ec.ECDSA(Prehashed(hashes.SHA384())))
    verify_envelope(Envelope(PAYLOAD, over_digest, PQ_GOOD), SIGNER.identity)  # the same signature by another way
    hashed_twice = EC_KEY.sign(value, ec.ECDSA(hashes.SHA384()))
    with pytest.raises(SignatureInvalid):
        verify_envelope(Envelope(PAYLOAD, hashed_twice, PQ_GOOD), SIGNER.identity)
    with pytest.raises(SignatureInvalid):
        verify_envelope(Envelope(PAYLOAD, EC_GOOD, PQ_KEY.sign(value)), SIGNER.identity)
