# SPDX-License-Identifier: Apache-2.0
"""The seam between this project and whoever implements the algorithms.

A provider answers a verification with exactly ``True``. Everything else is a refusal: None (what a function returns
that forgot to verify), 1, False, a truthy object, and every exception, also those that are not ``Exception`` (a panic
of native code, ``SystemExit(0)``). ``verify_half`` is the only place that calls a provider's verification and holds
this rule (attack cases A7 and A10; CVE-2022-36056 is the kind of bug it is for). KeyboardInterrupt alone passes
through: it stops the program and so accepts nothing.
"""

from __future__ import annotations

from typing import Literal, Protocol

from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Half, Profile
from pq_registry.errors import SignatureInvalid

HALF_NAMES: dict[Half, str] = {"ec": "EC half", "pq": "post-quantum half"}


class PrivateHalf(Protocol):
    """The secret key of one half. Its ``repr`` shows nothing of it and it cannot be pickled."""

    @property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo."""

    def sign(self, message: bytes) -> bytes:
        """Sign ``message``: ECDSA in DER, or pure hedged ML-DSA with an empty context."""

    def pkcs8(self) -> SecretBytes:
        """The secret key as DER PKCS#8; the caller wipes it."""


class Provider(Protocol):
    """One implementation of all algorithms of all profiles."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def verify_ec(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify the EC half's signature over ``message``; answers True or raises."""

    def verify_mldsa(self, profile: Profile, spki: bytes, message: bytes, signature: bytes) -> Literal[True]:
        """Verify the post-quantum half's signature over ``message`` with an empty context; True or raises."""

    def check_public(self, profile: Profile, half: Half, spki: bytes) -> None:
        """Check a public key.

        Raises:
            FormatError: unless it is a valid key of ``profile`` that re-encodes to the same bytes.
        """

    def generate(self, profile: Profile, half: Half) -> PrivateHalf:
        """A fresh secret key."""

    def load(self, profile: Profile, half: Half, pkcs8: SecretBytes) -> PrivateHalf:
        """A secret key from its PKCS#8 form.

        Raises:
            FormatError: unless it is one of ``profile`` that re-encodes to the same bytes.
        """


def verify_half(
    provider: Provider, half: Half, profile: Profile, *, spki: bytes, message: bytes, signature: bytes
) -> None:
    """Verify one half.

    Raises:
        SignatureInvalid: unless the provider answered exactly True.
        SelfTestFailed: if the algorithms do not give their known answers here.
    """
    from pq_registry.crypto import selftest  # it stands above this seam

    selftest.ensure()
    suite = profile.half(half)
    if not _length_fits(profile, half, signature):
        raise _invalid(half, suite.algorithm, f"a signature of {len(signature)} bytes")
    verify = provider.verify_ec if half == "ec" else provider.verify_mldsa
    try:
        answer: object = verify(profile, spki, message, signature)
    except SignatureInvalid:
        raise _invalid(half, suite.algorithm, "one that does not verify") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _invalid(half, suite.algorithm, f"{provider.name} failed: {type(error).__name__}") from error
    if answer is not True:
        raise _invalid(half, suite.algorithm, f"{provider.name} answered with {type(answer).__name__}, not True")


def _length_fits(profile: Profile, half: Half, signature: bytes) -> bool:
    suite = profile.half(half)
    if half == "ec":
        return 0 < len(signature) <= suite.signature_bytes
    return len(signature) == suite.signature_bytes


def _invalid(half: Half, algorithm: str, found: str) -> SignatureInvalid:
    return SignatureInvalid(
        f"the {HALF_NAMES[half]} of the signature is invalid", expected=f"a valid {algorithm} signature", found=found
    )
