# SPDX-License-Identifier: Apache-2.0
"""A7, downgrade (CVE-2022-29217): neither half can be dropped, damaged, swapped, borrowed or relabelled."""

from __future__ import annotations

import base64
import json

import pytest

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.signing import failed_halves, sign_envelope, verify_envelope
from pq_registry.crypto.suites import Half, Profile
from pq_registry.errors import FormatError, PqregError, SignatureInvalid
from pq_registry.format.dsse import Envelope
from pqreg_keys import custody

ALICE = {profile: custody.generate(profile) for profile in Profile}
MALLORY = {profile: custody.generate(profile) for profile in Profile}
PAYLOAD = b"{}"
NAMES: dict[Half, str] = {"ec": "the EC half", "pq": "the post-quantum half"}


def with_half(envelope: Envelope, half: Half, signature: bytes) -> Envelope:
    if half == "ec":
        return Envelope(envelope.payload, signature, envelope.pq_signature)
    return Envelope(envelope.payload, envelope.ec_signature, signature)


def half_of(envelope: Envelope, half: Half) -> bytes:
    return envelope.ec_signature if half == "ec" else envelope.pq_signature


@pytest.fixture(params=list(Profile))
def profile(request: pytest.FixtureRequest) -> Profile:
    """Both profiles."""
    value: Profile = request.param
    return value


@pytest.fixture
def envelope(profile: Profile) -> Envelope:
    """Alice's genuine envelope."""
    return sign_envelope(PAYLOAD, ALICE[profile])


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_dropped_half_is_refused(envelope: Envelope, profile: Profile, half: Half) -> None:
    with pytest.raises(SignatureInvalid):
        with_half(envelope, half, b"")
    document = json.loads(envelope.encode())
    for kept in ([], [document["signatures"][half == "ec"]]):
        data = json.dumps({**document, "signatures": kept}, separators=(",", ":"), sort_keys=True).encode()
        with pytest.raises(SignatureInvalid):
            Envelope.parse(data)


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_damaged_half_is_refused_and_named(envelope: Envelope, profile: Profile, half: Half) -> None:
    signature = half_of(envelope, half)
    step = max(1, len(signature) // 150)
    for position in range(0, len(signature), step):
        damaged = signature[:position] + bytes([signature[position] ^ 0x20]) + signature[position + 1 :]
        with pytest.raises(SignatureInvalid, match=f"^{NAMES[half]}"):
            verify_envelope(with_half(envelope, half, damaged), ALICE[profile].identity)


@pytest.mark.parametrize("half", ["ec", "pq"])
@pytest.mark.parametrize(
    "junk", [b"\x00", b"0", b"\x30\x06\x02\x01\x01\x02\x01\x01", b"\x30\x06\x02\x01\x00\x02\x01\x00"]
)
def test_a7_a_stub_in_the_place_of_a_half_is_refused(
    envelope: Envelope, profile: Profile, half: Half, junk: bytes
) -> None:
    exact = junk.ljust(half_of_size(profile, half), b"\x00")
    for stub in (junk, exact):
        with pytest.raises(SignatureInvalid, match=f"^{NAMES[half]}"):
            verify_envelope(with_half(envelope, half, stub), ALICE[profile].identity)


def half_of_size(profile: Profile, half: Half) -> int:
    return profile.half(half).signature_bytes


def test_a7_both_halves_are_named_when_both_are_wrong(envelope: Envelope, profile: Profile) -> None:
    other = sign_envelope(PAYLOAD, MALLORY[profile])
    assert set(failed_halves(other, ALICE[profile].identity)) == {"ec", "pq"}
    with pytest.raises(SignatureInvalid, match="both halves"):
        verify_envelope(other, ALICE[profile].identity)


def test_a7_swapped_halves_are_refused(envelope: Envelope, profile: Profile) -> None:
    swapped = Envelope(PAYLOAD, envelope.pq_signature, envelope.ec_signature)
    with pytest.raises(SignatureInvalid, match="both halves"):
        verify_envelope(swapped, ALICE[profile].identity)


@pytest.mark.parametrize("twice", ["ec", "pq"])
def test_a7_one_half_twice_is_not_two_halves(envelope: Envelope, profile: Profile, twice: Half) -> None:
    signature = half_of(envelope, twice)
    other: Half = "pq" if twice == "ec" else "ec"
    with pytest.raises(SignatureInvalid, match=f"^{NAMES[other]}"):
        verify_envelope(Envelope(PAYLOAD, signature, signature), ALICE[profile].identity)


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_half_of_another_identity_is_refused(envelope: Envelope, profile: Profile, half: Half) -> None:
    borrowed = half_of(sign_envelope(PAYLOAD, MALLORY[profile]), half)
    mixed = with_half(envelope, half, borrowed)
    for identity in (ALICE[profile].identity, MALLORY[profile].identity):
        with pytest.raises(SignatureInvalid):
            verify_envelope(mixed, identity)


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_half_from_an_older_statement_is_refused(envelope: Envelope, profile: Profile, half: Half) -> None:
    older = sign_envelope(b'{"older":true}', ALICE[profile])
    with pytest.raises(SignatureInvalid, match=f"^{NAMES[half]}"):
        verify_envelope(with_half(envelope, half, half_of(older, half)), ALICE[profile].identity)


@pytest.mark.parametrize("half", ["ec", "pq"])
def test_a7_a_half_of_the_other_profile_is_refused(envelope: Envelope, profile: Profile, half: Half) -> None:
    other = Profile.LEVEL_3 if profile is Profile.LEVEL_5 else Profile.LEVEL_5
    foreign = half_of(sign_envelope(PAYLOAD, ALICE[other]), half)
    with pytest.raises(SignatureInvalid, match=f"^{NAMES[half]}"):
        verify_envelope(with_half(envelope, half, foreign), ALICE[profile].identity)


def test_a7_an_identity_cannot_be_relabelled() -> None:
    five, three = ALICE[Profile.LEVEL_5].identity, ALICE[Profile.LEVEL_3].identity
    for claimed, identity in ((Profile.LEVEL_3, five), (Profile.LEVEL_5, three)):
        with pytest.raises(FormatError):
            PublicIdentity(claimed, identity.ec_spki, identity.pq_spki)
    for ec_spki, pq_spki in ((five.ec_spki, three.pq_spki), (three.ec_spki, five.pq_spki)):
        with pytest.raises(FormatError):
            PublicIdentity.from_spki(ec_spki, pq_spki)


def test_a7_a_key_is_used_only_with_its_own_profile() -> None:
    five = ALICE[Profile.LEVEL_5].identity
    ec_signature, pq_signature = ALICE[Profile.LEVEL_5].sign(b"m")
    assert OPENSSL.verify_ec(Profile.LEVEL_5, five.ec_spki, b"m", ec_signature)
    with pytest.raises(PqregError):
        OPENSSL.verify_ec(Profile.LEVEL_3, five.ec_spki, b"m", ec_signature)
    assert OPENSSL.verify_mldsa(Profile.LEVEL_5, five.pq_spki, b"m", pq_signature)
    with pytest.raises(PqregError):
        OPENSSL.verify_mldsa(Profile.LEVEL_3, five.pq_spki, b"m", pq_signature)


@pytest.mark.parametrize("field", ["alg", "algorithm", "profile", "cert", "kid"])
def test_a7_nothing_in_an_envelope_can_name_an_algorithm(envelope: Envelope, profile: Profile, field: str) -> None:
    document = json.loads(envelope.encode())
    at_top = {**document, field: "none"}
    in_signature = {**document, "signatures": [{**entry, field: "none"} for entry in document["signatures"]]}
    typed = {**document, "payloadType": "none"}
    named = {**document, "signatures": [{**entry, "keyid": field} for entry in document["signatures"]]}
    for changed in (at_top, in_signature, typed, named):
        with pytest.raises(FormatError):
            Envelope.parse(json.dumps(changed, separators=(",", ":"), sort_keys=True).encode())
    assert base64.b64decode(document["signatures"][0]["sig"]) == envelope.ec_signature
