# SPDX-License-Identifier: Apache-2.0
"""The default provider: the ``cryptography`` package, which is OpenSSL.

Rules kept here, below the seam of ``provider``:

* a public key is loaded only if it has the byte form of its profile and OpenSSL re-encodes it identically;
* ML-DSA is pure, hedged and has an empty context; there is no way to ask for another;
* ECDSA hashes with the hash of its curve; signatures are DER and OpenSSL refuses any other encoding of the integers.
"""

from __future__ import annotations

from typing import Final, Literal, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_public_key,
)

from pq_registry.crypto.provider import PrivateHalf, Provider
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Half, Profile
from pq_registry.errors import FormatError, PolicyError, SignatureInvalid

_MldsaPublic = mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
_MldsaPrivate = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey

_CURVES: Final[dict[Profile, ec.EllipticCurve]] = {
    Profile.LEVEL_3: ec.SECP256R1(),
    Profile.LEVEL_5: ec.SECP384R1(),
}
# By curve, as OpenSSF Model Signing fixes them; P-521 occurs in foreign signatures only.
_CURVE_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_MLDSA: Final[dict[Profile, tuple[type[_MldsaPublic], type[_MldsaPrivate]]]] = {
    Profile.LEVEL_3: (mldsa.MLDSA65PublicKey, mldsa.MLDSA65PrivateKey),
    Profile.LEVEL_5: (mldsa.MLDSA87PublicKey, mldsa.MLDSA87PrivateKey),
}


class _NoSecretCopies:
    """Keys are neither pickled nor copied, and print as their class."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret key is neither pickled nor copied")


class EcPrivateHalf(_NoSecretCopies):
    """An ECDSA secret key."""

    __slots__ = ("_hash", "_key")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._hash = _CURVE_HASHES[key.curve.name]

    @property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo with an uncompressed point."""
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """An ECDSA signature in DER."""
        return self._key.sign(message, ec.ECDSA(self._hash))

    def pkcs8(self) -> SecretBytes:
        """The secret key as DER PKCS#8."""
        return SecretBytes(self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


class MldsaPrivateHalf(_NoSecretCopies):
    """An ML-DSA secret key."""

    __slots__ = ("_key",)

    def __init__(self, key: _MldsaPrivate) -> None:
        self._key = key

    @property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo."""
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """A pure, hedged ML-DSA signature with an empty context."""
        return self._key.sign(message)

    def pkcs8(self) -> SecretBytes:
        """The seed as DER PKCS#8 (54 bytes)."""
        return SecretBytes(self._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


class OpenSslProvider:
    """Implements ``Provider``."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "openssl"

    def verify_ec(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify an ECDSA signature.

        Raises:
            SignatureInvalid: if it is not valid.
            FormatError: if ``spki`` is not a public key of ``profile``.
        """
        return _verify_ecdsa(_ec_public(profile, spki), message, signature)

    def verify_mldsa(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify an ML-DSA signature with an empty context.

        Raises:
            SignatureInvalid: if it is not valid.
            FormatError: if ``spki`` is not a public key of ``profile``.
        """
        key = _mldsa_public(profile, spki)
        try:
            key.verify(signature, message)
        except InvalidSignature:
            raise SignatureInvalid("invalid ML-DSA signature") from None
        return True

    def check_public(self, profile: Profile, half: Half, spki: bytes) -> None:
        """Check that ``spki`` is a valid public key of ``profile`` in its one form.

        Raises:
            FormatError: if it is not.
        """
        if half == "ec":
            _ec_public(profile, spki)
        else:
            _mldsa_public(profile, spki)

    def generate(self, profile: Profile, half: Half) -> PrivateHalf:
        """A fresh secret key from the system's randomness.

        Raises:
            PolicyError: if this build of OpenSSL lacks ML-DSA.
        """
        if half == "ec":
            return EcPrivateHalf(ec.generate_private_key(_CURVES[profile]))
        try:
            return MldsaPrivateHalf(_MLDSA[profile][1].generate())
        except UnsupportedAlgorithm:
            hint = "install the wheel of cryptography from PyPI"
            raise PolicyError("this build of cryptography has no ML-DSA", expected="OpenSSL 3.5", hint=hint) from None

    def load(self, profile: Profile, half: Half, pkcs8: SecretBytes) -> PrivateHalf:
        """A secret key from PKCS#8.

        Raises:
            FormatError: unless it is one of ``profile`` that re-encodes to the same bytes.
        """
        loaded: EcPrivateHalf | MldsaPrivateHalf | None = None
        try:
            key = load_der_private_key(pkcs8, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None  # what the library says could quote the key
        if half == "ec" and isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == profile.ec.parameters:
            loaded = EcPrivateHalf(key)
        elif half == "pq" and isinstance(key, _MLDSA[profile][1]):
            loaded = MldsaPrivateHalf(key)
        if loaded is not None:
            with loaded.pkcs8() as again:
                if again == pkcs8:
                    return loaded
        raise FormatError("not a secret key of this profile", expected=f"PKCS#8 of {profile.half(half).algorithm}")


OPENSSL: Final[Provider] = OpenSslProvider()
"""The provider used where none is named."""


def verify_model_signing(public_pem: bytes, message: bytes, signature: bytes) -> Literal[True]:
    """Verify a foreign ECDSA signature under a key on P-256, P-384 or P-521 (OpenSSF Model Signing).

    Raises:
        FormatError: if ``public_pem`` is no such key, or has a compressed point.
        SignatureInvalid: if the signature is not valid.
    """
    try:
        key = load_pem_public_key(public_pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FormatError("not a public key", expected="one SPKI public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVE_HASHES:
        raise FormatError("not a model-signing key", expected="an EC key on P-256, P-384 or P-521")
    return _verify_ecdsa(key, message, signature)


def _verify_ecdsa(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> Literal[True]:
    try:
        key.verify(signature, message, ec.ECDSA(_CURVE_HASHES[key.curve.name]))
    except InvalidSignature:
        raise SignatureInvalid("invalid ECDSA signature") from None
    return True


def _ec_public(profile: Profile, spki: bytes) -> ec.EllipticCurvePublicKey:
    key = _load_public(profile, "ec", spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != profile.ec.parameters:
        raise _not_public(profile, "ec")
    return key


def _mldsa_public(profile: Profile, spki: bytes) -> _MldsaPublic:
    key = _load_public(profile, "pq", spki)
    if not isinstance(key, _MLDSA[profile][0]):
        raise _not_public(profile, "pq")
    return key


def _load_public(profile: Profile, half: Half, spki: bytes) -> object:
    if not profile.half(half).fits(spki):
        raise _not_public(profile, half)
    try:
        key = load_der_public_key(spki)
        again = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _not_public(profile, half) from None
    if again != spki:
        raise _not_public(profile, half)
    return key


def _not_public(profile: Profile, half: Half) -> FormatError:
    return FormatError(
        "not a public key of this profile",
        expected=f"a valid {profile.half(half).algorithm} key in its one DER form (uncompressed point)",
    )
