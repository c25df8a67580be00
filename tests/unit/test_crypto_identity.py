# SPDX-License-Identifier: Apache-2.0
"""Profiles and public identities: one byte form per key, one profile per pair, one text per public file."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.crypto import openssl
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.suites import HalfSuite, Profile, profile_of, profile_of_keys
from pq_registry.errors import FormatError
from pqreg_keys import custody

SECRETS = {profile: custody.generate(profile) for profile in Profile}
PUBLIC = {profile: secret.identity for profile, secret in SECRETS.items()}
FIVE, THREE = PUBLIC[Profile.LEVEL_5], PUBLIC[Profile.LEVEL_3]


def spki(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | x25519.X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def compressed(identity: PublicIdentity) -> bytes:
    """The same EC key with a compressed point: valid DER, same key, other bytes."""
    point = identity.ec_spki[-identity.profile.ec.key_bytes :]
    half = len(point) // 2
    short = bytes([2 + point[-1] % 2]) + point[:half]
    # SEQUENCE { AlgorithmIdentifier (unchanged), BIT STRING 00 || point }
    algorithm = identity.ec_spki[2 : 4 + identity.ec_spki[3]]
    bits = bytes([3, len(short) + 1, 0]) + short
    return bytes([0x30, len(algorithm) + len(bits)]) + algorithm + bits


@pytest.mark.parametrize("profile", list(Profile))
def test_the_public_file_round_trips(profile: Profile) -> None:
    identity = PUBLIC[profile]
    again = PublicIdentity.from_pem(identity.to_pem())
    assert again == identity
    assert again.profile is profile
    assert identity.to_pem() == identity.ec_pem + identity.pq_pem
    assert len(identity.to_pem()) <= limits.IDENTITY_FILE_BYTES
    assert identity.id in repr(identity)
    assert base64.b64encode(identity.ec_spki).decode() not in repr(identity)


def test_the_profile_is_that_of_the_keys() -> None:
    assert profile_of_keys(FIVE.ec_spki, FIVE.pq_spki) is Profile.LEVEL_5
    assert profile_of_keys(THREE.ec_spki, THREE.pq_spki) is Profile.LEVEL_3
    assert Profile.LEVEL_5 > Profile.LEVEL_3
    assert [profile_of(level) for level in (5, 3)] == [Profile.LEVEL_5, Profile.LEVEL_3]


@pytest.mark.parametrize("level", [0, 1, 4, 6, -5, True, 55])
def test_other_levels_do_not_exist(level: int) -> None:
    with pytest.raises(FormatError):
        profile_of(level)


def test_mixed_and_foreign_keys_are_no_identity() -> None:
    p521 = spki(ec.generate_private_key(ec.SECP521R1()).public_key())
    brainpool = spki(ec.generate_private_key(ec.BrainpoolP384R1()).public_key())
    k256 = spki(ec.generate_private_key(ec.SECP256K1()).public_key())
    ed = spki(ed25519.Ed25519PrivateKey.generate().public_key())
    mldsa44 = mldsa.MLDSA44PrivateKey.generate().public_key()
    pq44 = mldsa44.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pairs = [
        (FIVE.ec_spki, THREE.pq_spki),
        (THREE.ec_spki, FIVE.pq_spki),
        (FIVE.pq_spki, FIVE.ec_spki),
        (FIVE.ec_spki, FIVE.ec_spki),
        (FIVE.ec_spki, pq44),
        (p521, FIVE.pq_spki),
        (brainpool, FIVE.pq_spki),
        (k256, THREE.pq_spki),
        (ed, FIVE.pq_spki),
        (b"", b""),
    ]
    for ec_spki, pq_spki in pairs:
        with pytest.raises(FormatError):
            PublicIdentity.from_spki(ec_spki, pq_spki)


def test_a_profile_may_not_be_claimed_for_other_keys() -> None:
    with pytest.raises(FormatError):
        PublicIdentity(Profile.LEVEL_3, FIVE.ec_spki, FIVE.pq_spki)


@pytest.mark.parametrize("profile", list(Profile))
def test_a_compressed_point_is_refused(profile: Profile) -> None:
    identity = PUBLIC[profile]
    short = compressed(identity)
    loaded = load_der_public_key(short)  # the library takes it, and it is the same key
    assert spki(loaded) == identity.ec_spki  # type: ignore[arg-type]
    with pytest.raises(FormatError):
        PublicIdentity.from_spki(short, identity.pq_spki)
    with pytest.raises(FormatError):
        OPENSSL.check_public(profile, "ec", short)


@pytest.mark.parametrize("profile", list(Profile))
def test_a_compressed_point_is_refused_by_each_of_two_checks(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = PUBLIC[profile]
    with monkeypatch.context() as without_form:
        without_form.setattr(HalfSuite, "fits", lambda _self, _spki: True)
        OPENSSL.check_public(profile, "ec", identity.ec_spki)
        with pytest.raises(FormatError):
            OPENSSL.check_public(profile, "ec", compressed(identity))
    whole = load_der_public_key(identity.ec_spki)
    monkeypatch.setattr(openssl, "load_der_public_key", lambda _spki: whole)
    OPENSSL.check_public(profile, "ec", identity.ec_spki)
    with pytest.raises(FormatError):
        OPENSSL.check_public(profile, "ec", compressed(identity))


@pytest.mark.parametrize("profile", list(Profile))
def test_a_point_off_the_curve_is_refused(profile: Profile) -> None:
    identity = PUBLIC[profile]
    moved = identity.ec_spki[:-1] + bytes([identity.ec_spki[-1] ^ 1])
    with pytest.raises(FormatError):
        PublicIdentity.from_spki(moved, identity.pq_spki)
    prefix = identity.profile.ec.spki_prefix
    with pytest.raises(FormatError):
        PublicIdentity.from_spki(prefix + bytes(identity.profile.ec.key_bytes), identity.pq_spki)


@pytest.mark.parametrize("extra", [b"\x00", b"\x05\x00"])
def test_bytes_after_the_key_are_refused(extra: bytes) -> None:
    with pytest.raises(FormatError):
        PublicIdentity.from_spki(FIVE.ec_spki + extra, FIVE.pq_spki)
    with pytest.raises(FormatError):
        PublicIdentity.from_spki(FIVE.ec_spki, FIVE.pq_spki + extra)


def test_the_id_depends_on_both_halves_and_their_lengths() -> None:
    other = custody.generate(Profile.LEVEL_5).identity
    mixed = PublicIdentity.from_spki(FIVE.ec_spki, other.pq_spki)
    assert len({FIVE.id, other.id, mixed.id}) == 3
    assert mixed.half_ids == (FIVE.half_ids[0], other.half_ids[1])


PEM = FIVE.to_pem()
OTHER_TEXTS = {
    "nothing": b"",
    "one half": FIVE.ec_pem,
    "swapped": FIVE.pq_pem + FIVE.ec_pem,
    "three blocks": PEM + FIVE.ec_pem,
    "text before": b"alice\n" + PEM,
    "text between": FIVE.ec_pem + b"\n" + FIVE.pq_pem,
    "text after": PEM + b"\n",
    "no last newline": PEM[:-1],
    "CRLF": PEM.replace(b"\n", b"\r\n"),
    "other columns": b"-----BEGIN PUBLIC KEY-----\n"
    + base64.b64encode(FIVE.ec_spki)
    + b"\n-----END PUBLIC KEY-----\n"
    + FIVE.pq_pem,
    "byte order mark": b"\xef\xbb\xbf" + PEM,
    "not base64": PEM.replace(b"A", b"=", 1),
    "not ASCII": PEM.replace(b"A", b"\xff", 1),
    "too large": PEM + b" " * limits.IDENTITY_FILE_BYTES,
    "certificate": PEM.replace(b"PUBLIC KEY", b"CERTIFICATE"),
}


@pytest.mark.parametrize("name", list(OTHER_TEXTS))
def test_only_the_written_form_is_read(name: str) -> None:
    with pytest.raises(FormatError):
        PublicIdentity.from_pem(OTHER_TEXTS[name])


@pytest.mark.parametrize("text", [b"pqreg secret key v1\n\x05\x00", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_secret_file_in_the_place_of_a_public_one_is_named(text: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        PublicIdentity.from_pem(text)
    assert "secret" in str(caught.value.hint)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(PEM) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_another_identity(position: int, byte: int) -> None:
    changed = PEM[:position] + bytes([byte]) + PEM[position + 1 :]
    try:
        identity = PublicIdentity.from_pem(changed)
    except FormatError:
        return
    assert (identity.id == FIVE.id) == (changed == PEM)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_identity_or_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        PublicIdentity.from_pem(data)
