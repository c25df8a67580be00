# SPDX-License-Identifier: Apache-2.0
"""The second provider: liboqs, for verifying ML-DSA with an implementation that is not OpenSSL.

What it is for: a policy that wants two implementations to agree, and cross-checks. What it is not: liboqs's own README
calls it unfit for production, so no secret key is ever handed to this provider; it signs nothing. The EC half is
verified by OpenSSL, which also checks that public keys are valid and in their one form.

``ml_kem`` gives the KEM for cross-checks against OpenSSL's; ``pq_registry.crypto.slhdsa`` has the third signature of
trust files.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pq_registry.crypto import oqslibrary, selftest
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import PrivateHalf
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Half, Profile
from pq_registry.errors import ProviderUnavailable, SignatureInvalid
from pq_registry.settings import LibraryPlaces, library_places


class LibOqsProvider:
    """Implements ``Provider``: ML-DSA by liboqs, everything else by OpenSSL."""

    __slots__ = ("_library", "_oqs")

    def __init__(self, library: Path) -> None:
        """Load ``library`` and ask it for known answers.

        Raises:
            ProviderUnavailable: if it cannot be loaded or lacks ML-DSA.
            SelfTestFailed: if it takes an altered signature for genuine, or a genuine one for altered.
        """
        self._library = library
        self._oqs: Any = load(library)
        for profile in Profile:
            require(self._oqs.is_sig_enabled(profile.pq.algorithm), profile.pq.algorithm, library)
        selftest.check_provider(self)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return "liboqs"

    @property
    def description(self) -> str:
        """The library and its version."""
        return f"liboqs {self._oqs.oqs_version()} ({self._library})"

    def verify_ec(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify an ECDSA signature, by OpenSSL.

        Raises:
            SignatureInvalid: if it is not valid.
            FormatError: if ``spki`` is not a public key of ``profile``.
        """
        return OPENSSL.verify_ec(profile, spki, message, signature)

    def verify_mldsa(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify an ML-DSA signature with an empty context, by liboqs.

        Raises:
            SignatureInvalid: if it is not valid.
            FormatError: if ``spki`` is not a public key of ``profile``.
        """
        suite = profile.pq
        OPENSSL.check_public(profile, "pq", spki)
        key = spki.removeprefix(suite.spki_prefix)
        if len(key) != suite.key_bytes or len(signature) != suite.signature_bytes:
            raise SignatureInvalid("invalid ML-DSA signature")
        with self._oqs.Signature(suite.algorithm) as verifier:
            if verifier.verify(message, signature, key) is not True:
                raise SignatureInvalid("invalid ML-DSA signature")
        return True

    def check_public(self, profile: Profile, half: Half, spki: bytes) -> None:
        """Check a public key, by OpenSSL.

        Raises:
            FormatError: unless it is a valid key of ``profile`` in its one form.
        """
        OPENSSL.check_public(profile, half, spki)

    def generate(self, profile: Profile, half: Half) -> PrivateHalf:
        """A fresh secret key, by OpenSSL."""
        return OPENSSL.generate(profile, half)

    def load(self, profile: Profile, half: Half, pkcs8: SecretBytes) -> PrivateHalf:
        """A secret key from its PKCS#8 form, by OpenSSL.

        Raises:
            FormatError: unless it is one of ``profile`` that re-encodes to the same bytes.
        """
        return OPENSSL.load(profile, half, pkcs8)


class MlKem:
    """ML-KEM of liboqs, raw keys and ciphertexts of FIPS 203. For cross-checks; sealing uses OpenSSL's."""

    __slots__ = ("_name", "_oqs")

    def __init__(self, parameters: Literal[768, 1024], library: Path) -> None:
        """Load ``library``.

        Raises:
            ProviderUnavailable: if it cannot be loaded or lacks this parameter set.
        """
        self._oqs: Any = load(library)
        self._name = f"ML-KEM-{parameters}"
        require(self._oqs.is_kem_enabled(self._name), self._name, library)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        """A fresh shared secret for ``public_key``, and the ciphertext that carries it."""
        with self._oqs.KeyEncapsulation(self._name) as kem:
            ciphertext, secret = kem.encap_secret(public_key)
        return bytes(secret), bytes(ciphertext)

    def key_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        """The public key and the expanded secret key of the 64-byte seed ``d || z``."""
        with self._oqs.KeyEncapsulation(self._name) as kem:
            return bytes(kem.generate_keypair_seed(seed)), bytes(kem.export_secret_key())

    def decapsulate(self, secret_key: bytes, ciphertext: bytes) -> bytes:
        """The shared secret in ``ciphertext``."""
        with self._oqs.KeyEncapsulation(self._name, secret_key) as kem:
            return bytes(kem.decap_secret(ciphertext))


@cache
def load(library: Path) -> ModuleType:
    """The wrapper, working with ``library``; loaded once.

    Raises:
        ProviderUnavailable: if it cannot be loaded.
    """
    return oqslibrary.load_wrapper(library)


def installed(places: LibraryPlaces | None = None) -> Path:
    """The library file that is installed.

    Raises:
        ProviderUnavailable: if there is none that may be loaded.
    """
    return oqslibrary.find_library(library_places() if places is None else places)


def require(enabled: object, algorithm: str, library: Path) -> None:
    """Refuse a library without ``algorithm``.

    Raises:
        ProviderUnavailable: unless ``enabled``.
    """
    if not enabled:
        raise ProviderUnavailable(f"{library} has no {algorithm}", hint="build one that has it: make liboqs")
