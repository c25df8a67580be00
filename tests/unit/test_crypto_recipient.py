# SPDX-License-Identifier: Apache-2.0
"""Recipients: keys in one form, wrapping bound to release and recipient, one error for whatever does not open."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from pq_registry.crypto.recipient import PublicRecipient, SecretRecipient, kem_for
from pq_registry.crypto.sealing import new_content_key
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, GrantInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.recipientfile import Kem
from pqreg_keys import custody

RELEASE = Digest.of(b"release")
NODES = {kem: SecretRecipient.generate(kem) for kem in Kem}
each_kem = pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.algorithm)


@each_kem
def test_what_is_wrapped_is_unwrapped(kem: Kem) -> None:
    key = new_content_key()
    wrapped = NODES[kem].public.wrap(key, RELEASE)
    assert len(wrapped) == kem.wrapped_bytes
    assert NODES[kem].unwrap(wrapped, RELEASE) == key
    assert NODES[kem].public.wrap(key, RELEASE) != wrapped


@each_kem
def test_a_recipient_comes_back_from_its_seed_and_its_file(kem: Kem) -> None:
    node = NODES[kem]
    again = SecretRecipient(kem, node.seed())
    assert again.public == node.public
    assert PublicRecipient.from_file(node.public.to_file()) == node.public
    assert len(node.public.public_key) == kem.public_bytes


@each_kem
@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(max_size=8))
def test_any_seed_and_any_key_come_back(kem: Kem, seed: bytes, key: bytes, release: bytes) -> None:
    node = SecretRecipient(kem, SecretBytes(seed))
    wrapped = node.public.wrap(SecretBytes(key), Digest.of(release))
    assert node.unwrap(wrapped, Digest.of(release)) == SecretBytes(key)


def test_profiles_have_their_kem() -> None:
    assert kem_for(Profile.LEVEL_5) is Kem.MLKEM1024_P384
    assert kem_for(Profile.LEVEL_3) is Kem.MLKEM768_X25519
    assert [profile.level for profile in Profile] == [kem_for(profile).level for profile in Profile]


@pytest.mark.parametrize("profile", list(Profile))
def test_an_identity_is_a_recipient_of_its_profile(profile: Profile) -> None:
    identity = custody.generate(profile)
    assert identity.recipient.public.kem is kem_for(profile)
    assert identity.recipient.public == identity.recipient.public
    key = new_content_key()
    assert identity.recipient.unwrap(identity.recipient.public.wrap(key, RELEASE), RELEASE) == key


@each_kem
def test_every_way_not_to_open_is_one_error(kem: Kem) -> None:
    node, other = NODES[kem], SecretRecipient.generate(kem)
    wrapped = node.public.wrap(new_content_key(), RELEASE)
    messages = set()
    enc = kem.encapsulated_bytes
    for bad in (
        b"", wrapped[:-1], wrapped + b"\0", wrapped[:10], bytes(len(wrapped)), b"\xff" * len(wrapped),
        bytes([wrapped[0] ^ 1]) + wrapped[1:], wrapped[: enc - 1] + bytes([wrapped[enc - 1] ^ 1]) + wrapped[enc:],
        wrapped[:enc] + bytes([wrapped[enc] ^ 1]) + wrapped[enc + 1 :], wrapped[:-1] + bytes([wrapped[-1] ^ 1]),
        NODES[next(k for k in Kem if k is not kem)].public.wrap(new_content_key(), RELEASE),
        other.public.wrap(new_content_key(), RELEASE), node.public.wrap(new_content_key(), Digest.of(b"other")),
    ):  # fmt: skip
        with pytest.raises(GrantInvalid) as caught:
            node.unwrap(bad, RELEASE)
        messages.add((str(caught.value), caught.value.hint, caught.value.__cause__))
    assert len(messages) == 1


def curve_half(kem: Kem, curve: bytes) -> bytes:
    return NODES[kem].public.public_key[: -len(curve)] + curve


P384 = ec.derive_private_key(7, ec.SECP384R1()).public_key()
ON_CURVE = P384.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.mark.parametrize(
    "public",
    [
        b"",
        NODES[Kem.MLKEM1024_P384].public.public_key[:-1],
        NODES[Kem.MLKEM1024_P384].public.public_key + b"\0",
        curve_half(Kem.MLKEM1024_P384, ON_CURVE[:-1] + bytes([ON_CURVE[-1] ^ 1])),
        curve_half(Kem.MLKEM1024_P384, b"\x06" + ON_CURVE[1:]),
        curve_half(Kem.MLKEM1024_P384, b"\x00" * 97),
        P384.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).rjust(1665, b"\0"),
        b"\xff" * 1568 + ON_CURVE,
    ],
    ids=range(8),
)
def test_no_other_form_of_a_level_5_key_is_accepted(public: bytes) -> None:
    with pytest.raises(FormatError):
        PublicRecipient(Kem.MLKEM1024_P384, public)


PRIME = 2**255 - 19


@pytest.mark.parametrize(
    "curve",
    [
        (0).to_bytes(32, "little"),
        (1).to_bytes(32, "little"),
        (PRIME - 1).to_bytes(32, "little"),
        PRIME.to_bytes(32, "little"),
        (PRIME + 9).to_bytes(32, "little"),
        (9 | 1 << 255).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
    ids=["0", "1", "p-1", "p", "p+9", "high bit", "order 8 a", "order 8 b"],
)
def test_x25519_keys_of_low_order_or_another_form_are_refused(curve: bytes) -> None:
    with pytest.raises(FormatError):
        PublicRecipient(Kem.MLKEM768_X25519, curve_half(Kem.MLKEM768_X25519, curve))
    PublicRecipient(Kem.MLKEM768_X25519, curve_half(Kem.MLKEM768_X25519, (9).to_bytes(32, "little")))


def test_an_unreduced_lattice_key_is_refused() -> None:
    # FIPS 203, section 7.2: every coefficient is below q.
    with pytest.raises(FormatError):
        PublicRecipient(Kem.MLKEM768_X25519, b"\xff" * 1152 + bytes(32) + (9).to_bytes(32, "little"))
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(64)).public_key().public_bytes_raw()
    PublicRecipient(Kem.MLKEM768_X25519, lattice + (9).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_seeds_have_32_bytes(length: int) -> None:
    with pytest.raises(FormatError):
        SecretRecipient(Kem.MLKEM1024_P384, SecretBytes(length))
    with pytest.raises(ValueError):
        NODES[Kem.MLKEM1024_P384].public.wrap(SecretBytes(length), RELEASE)
