# SPDX-License-Identifier: Apache-2.0
"""Recipients: whoever can be granted a sealed release, and the wrapping of its content key (docs/spec/recipients.md).

HPKE (RFC 9180, base mode, one message) with a hybrid KEM; the profile fixes all of it:

=========  ========================  ===========  ===========
profile    KEM                       KDF          AEAD
=========  ========================  ===========  ===========
level 5    MLKEM1024-P384 (0x0051)   HKDF-SHA384  AES-256-GCM
level 3    MLKEM768-X25519 (0x647a)  HKDF-SHA256  AES-256-GCM
=========  ========================  ===========  ===========

::

    info    = "pqreg/v1/grant" || 00 || release digest[32] || recipient id[32]
    wrapped = enc || AES-256-GCM ciphertext and tag of the content key[32], empty AAD

So what was wrapped for one release and one recipient opens for no other. A secret key is a seed of 32 bytes; the two
secret keys of the hybrid are SHAKE256 of it. Every failure to open is one error that says nothing about its cause.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Protocol, runtime_checkable

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Profile
from pq_registry.errors import FormatError, GrantInvalid, PolicyError
from pq_registry.format.digest import Digest
from pq_registry.format.recipientfile import (
    CONTENT_KEY_BYTES,
    Kem,
    check_public_key,
    encode_file,
    parse_file,
    recipient_id,
)

SEED_BYTES: Final = 32
_INFO_DOMAIN: Final = b"pqreg/v1/grant\0"
_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = {Kem.MLKEM1024_P384: 1568, Kem.MLKEM768_X25519: 1184}
_CURVE_SECRET_BYTES: Final = {Kem.MLKEM1024_P384: 48, Kem.MLKEM768_X25519: 32}
_CURVE25519_PRIME: Final = 2**255 - 19

_Private = hpke.MLKEM1024P384PrivateKey | hpke.MLKEM768X25519PrivateKey
_Public = hpke.MLKEM1024P384PublicKey | hpke.MLKEM768X25519PublicKey


@runtime_checkable
class RecipientKey(Protocol):
    """Something that can open what was wrapped for one recipient."""

    @property
    def public(self) -> PublicRecipient:
        """The public part."""

    def unwrap(self, wrapped: bytes, release: Digest) -> SecretBytes:
        """The content key in ``wrapped``, a grant of ``release``; the caller wipes it.

        Raises:
            GrantInvalid: if it does not open.
        """


@runtime_checkable
class RecipientSource(Protocol):
    """Where recipient keys come from: a file and a passphrase, later a token or an agent."""

    def open_recipient(self, path: Path) -> RecipientKey:
        """The recipient key kept at ``path``: a recipient's own file, or an identity's.

        Raises:
            KeyCustodyError: if the key may not or cannot be used.
            FormatError: if ``path`` does not hold a key.
        """


@runtime_checkable
class OwnsRecipient(Protocol):
    """A signer that is a recipient as well; sealing always grants it."""

    @property
    def recipient(self) -> RecipientKey:
        """Its own recipient key."""


def kem_for(profile: Profile) -> Kem:
    """The KEM of a profile."""
    return Kem.MLKEM1024_P384 if profile is Profile.LEVEL_5 else Kem.MLKEM768_X25519


@dataclass(frozen=True, slots=True)
class PublicRecipient:
    """A recipient's public key: valid, and in its one form."""

    kem: Kem
    public_key: bytes

    def __post_init__(self) -> None:
        """Check the key.

        Raises:
            FormatError: if it has a wrong length, is not valid, or has another form.
        """
        check_public_key(self.kem, self.public_key)
        _public(self.kem, self.public_key)

    @classmethod
    def from_file(cls, data: bytes) -> PublicRecipient:
        """Read a recipient's public file.

        Raises:
            FormatError: if ``data`` is not exactly what ``to_file`` writes for the recipient in it.
        """
        return cls(*parse_file(data))

    def to_file(self) -> bytes:
        """The public file."""
        return encode_file(self.kem, self.public_key)

    @property
    def id(self) -> str:
        """64 lowercase hex digits that name this key."""
        return recipient_id(self.kem, self.public_key)

    def wrap(self, content_key: SecretBytes, release: Digest) -> bytes:
        """Wrap ``content_key`` for this recipient and ``release``; two calls give different bytes."""
        if len(content_key) != CONTENT_KEY_BYTES:  # a caller's bug: never reached by outside input
            raise ValueError(f"a content key has {CONTENT_KEY_BYTES} bytes")
        return _suite(self.kem).encrypt(
            content_key, _public(self.kem, self.public_key), info=grant_info(release, self.id)
        )

    def __repr__(self) -> str:
        return f"PublicRecipient(id={self.id!r}, kem={self.kem.algorithm})"


class SecretRecipient:
    """A recipient key in this process's memory. Implements ``RecipientKey``."""

    __slots__ = ("_key", "_public", "_seed")

    def __init__(self, kem: Kem, seed: SecretBytes) -> None:
        """Expand ``seed``, which is copied.

        Raises:
            FormatError: if it has not 32 bytes, or gives no key (one of 2^190 seeds).
            PolicyError: if this build of OpenSSL lacks ML-KEM.
        """
        if len(seed) != SEED_BYTES:
            raise FormatError("the recipient seed has a wrong length", expected=f"{SEED_BYTES} bytes", found=len(seed))
        self._seed = SecretBytes(seed)
        self._key, public_key = _expanded(kem, self._seed)
        self._public = PublicRecipient(kem, public_key)

    @classmethod
    def generate(cls, kem: Kem) -> SecretRecipient:
        """A fresh recipient from the system's randomness."""
        with SecretBytes(secrets.token_bytes(SEED_BYTES)) as seed:
            return cls(kem, seed)

    @property
    def public(self) -> PublicRecipient:
        """The public part."""
        return self._public

    def seed(self) -> SecretBytes:
        """A copy of the seed, for a key file; the caller wipes it."""
        return SecretBytes(self._seed)

    def unwrap(self, wrapped: bytes, release: Digest) -> SecretBytes:
        """The content key in ``wrapped``, a grant of ``release``; the caller wipes it.

        Raises:
            GrantInvalid: if it does not open.
        """
        kem = self._public.kem
        try:
            content_key = SecretBytes(
                _suite(kem).decrypt(wrapped, self._key, info=grant_info(release, self._public.id))
            )
        except (InvalidTag, ValueError):
            raise _does_not_open(self._public) from None
        if len(content_key) != CONTENT_KEY_BYTES:
            raise _does_not_open(self._public)
        return content_key

    def __repr__(self) -> str:
        # Also while __init__ runs: a traceback that shows locals must not fail on the way.
        public = getattr(self, "_public", None)
        return f"<SecretRecipient {public.id if public else 'in the making'}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret recipient key is neither pickled nor copied")


def grant_info(release: Digest, recipient: str) -> bytes:
    """HPKE's ``info`` for the grant of ``release`` to the recipient with the id ``recipient``."""
    return _INFO_DOMAIN + release.raw + bytes.fromhex(recipient)


def _suite(kem: Kem) -> hpke.Suite:
    if kem is Kem.MLKEM1024_P384:
        return hpke.Suite(hpke.KEM.MLKEM1024_P384, hpke.KDF.HKDF_SHA384, hpke.AEAD.AES_256_GCM)
    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _expanded(kem: Kem, seed: SecretBytes) -> tuple[_Private, bytes]:
    length = _MLKEM_SEED_BYTES + _CURVE_SECRET_BYTES[kem]
    with SecretBytes(hashlib.shake_256(seed).digest(length)) as expanded, memoryview(expanded) as view:
        try:
            if kem is Kem.MLKEM1024_P384:
                return _level5(view)
            return _level3(view)
        except UnsupportedAlgorithm:
            hint = "install the wheel of cryptography from PyPI"
            raise PolicyError("this build of cryptography has no ML-KEM", expected="OpenSSL 3.5", hint=hint) from None
        except ValueError:
            raise FormatError("the recipient seed gives no key", hint="generate another recipient") from None


def _level5(view: memoryview) -> tuple[_Private, bytes]:
    lattice = mlkem.MLKEM1024PrivateKey.from_seed_bytes(view[:_MLKEM_SEED_BYTES])
    curve = ec.derive_private_key(int.from_bytes(view[_MLKEM_SEED_BYTES:], "big"), ec.SECP384R1())
    point = curve.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hpke.MLKEM1024P384PrivateKey(lattice, curve), lattice.public_key().public_bytes_raw() + point


def _level3(view: memoryview) -> tuple[_Private, bytes]:
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(view[:_MLKEM_SEED_BYTES])
    curve = x25519.X25519PrivateKey.from_private_bytes(view[_MLKEM_SEED_BYTES:])
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(lattice, curve), public


def _public(kem: Kem, public_key: bytes) -> _Public:
    lattice_bytes, curve_bytes = public_key[: _MLKEM_PUBLIC_BYTES[kem]], public_key[_MLKEM_PUBLIC_BYTES[kem] :]
    try:
        if kem is Kem.MLKEM1024_P384:
            lattice = mlkem.MLKEM1024PublicKey.from_public_bytes(lattice_bytes)
            # Uncompressed only: 97 bytes that begin with 04 and lie on the curve.
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), curve_bytes)
            return hpke.MLKEM1024P384PublicKey(lattice, point)
        # A value beyond the prime would be a second form of a key, hence a second id. A point of low order gives a
        # shared secret of zero with whatever key, so the exchange refuses it.
        if int.from_bytes(curve_bytes, "little") >= _CURVE25519_PRIME:
            raise _not_public(kem)
        other = x25519.X25519PublicKey.from_public_bytes(curve_bytes)
        x25519.X25519PrivateKey.generate().exchange(other)
        return hpke.MLKEM768X25519PublicKey(mlkem.MLKEM768PublicKey.from_public_bytes(lattice_bytes), other)
    except (ValueError, UnsupportedAlgorithm):
        raise _not_public(kem) from None


def _not_public(kem: Kem) -> FormatError:
    return FormatError(f"not a public key of {kem.algorithm}", expected="a valid key in its one form")


def _does_not_open(public: PublicRecipient) -> GrantInvalid:
    return GrantInvalid(
        "the grant does not open",
        expected=f"a content key wrapped for recipient {public.id} and this release",
        hint="ask the publisher for a new grant (pqreg grant add)",
    )
