# SPDX-License-Identifier: Apache-2.0
"""Signing and verifying envelopes, always with both halves.

Both halves sign the same bytes: ``pae(payload)``. Verification always verifies both, also when the first has failed,
so that the refusal says which half is wrong. Secret keys reach the library only as a ``Signer`` that a ``KeySource``
opened; whatever holds the key bytes is not this module's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from pq_registry.crypto import selftest
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL, verify_model_signing
from pq_registry.crypto.provider import Provider, verify_half
from pq_registry.crypto.suites import Half
from pq_registry.errors import SignatureInvalid, UntrustedSigner
from pq_registry.format.dsse import Envelope, pae


@runtime_checkable
class Signer(Protocol):
    """Something that can sign as one identity."""

    @property
    def identity(self) -> PublicIdentity:
        """Who signs."""

    def sign(self, message: bytes) -> tuple[bytes, bytes]:
        """The EC half's signature (DER) and the post-quantum half's, both over ``message``."""


@runtime_checkable
class KeySource(Protocol):
    """Where signers come from: a file and a passphrase, later a token or an agent."""

    def open(self, path: Path) -> Signer:
        """The signer kept at ``path``.

        Raises:
            KeyCustodyError: if the key may not or cannot be used.
            FormatError: if ``path`` does not hold a key.
        """


def sign_envelope(payload: bytes, signer: Signer, *, provider: Provider = OPENSSL) -> Envelope:
    """Sign ``payload`` with both halves.

    The envelope is verified before it is returned: a fault while signing (memory, a broken token) must neither be
    published nor leak what a faulty signature can leak.

    Raises:
        SignatureInvalid: if what the signer made does not verify under its own identity.
        SelfTestFailed: if the algorithms do not give their known answers here.
    """
    selftest.ensure()
    ec_signature, pq_signature = signer.sign(pae(payload))
    envelope = Envelope(payload, ec_signature, pq_signature)
    verify_envelope(envelope, signer.identity, provider=provider)
    return envelope


def verify_envelope(envelope: Envelope, identity: PublicIdentity, *, provider: Provider = OPENSSL) -> None:
    """Verify both halves of ``envelope`` under ``identity``.

    Raises:
        SignatureInvalid: naming the half that is wrong, or both.
    """
    failures = failed_halves(envelope, identity, provider=provider)
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        raise SignatureInvalid(
            "both halves of the signature are invalid",
            expected=f"an envelope signed by {identity.id}",
            found="; ".join(f"{half}: {error.found}" for half, error in failures.items()),
        ) from next(iter(failures.values()))


def failed_halves(
    envelope: Envelope, identity: PublicIdentity, *, provider: Provider = OPENSSL
) -> dict[Half, SignatureInvalid]:
    """Verify both halves under ``identity``; answers the refusals, by half. Empty means the envelope is genuine."""
    message = pae(envelope.payload)
    failures: dict[Half, SignatureInvalid] = {}
    signatures: tuple[tuple[Half, bytes], ...] = (("ec", envelope.ec_signature), ("pq", envelope.pq_signature))
    for half, signature in signatures:
        try:
            verify_half(
                provider, half, identity.profile, spki=identity.spki(half), message=message, signature=signature
            )
        except SignatureInvalid as error:
            failures[half] = error
    return failures


def signers_of(
    envelope: Envelope, candidates: Iterable[PublicIdentity], *, among: str, provider: Provider = OPENSSL
) -> list[PublicIdentity]:
    """Every candidate under which both halves of ``envelope`` verify; at least one.

    An envelope names no key that is believed, so all are tried, by key material, before a byte of the payload is
    parsed. What the payload then says about its signer is compared with this answer.

    Args:
        envelope: what was signed.
        candidates: the identities that may have signed it.
        among: what the candidates are, for messages: "the identities of ...".
        provider: who verifies.

    Raises:
        SignatureInvalid: if one half verifies under a candidate, but the other does not.
        UntrustedSigner: if neither half verifies under any.
    """
    tried = list(candidates)
    message = pae(envelope.payload)
    # The EC half first: nearly always it is the wrong identity, and one half is enough to know.
    genuine = [
        identity
        for identity in tried
        if _ec_verifies(provider, identity, message, envelope.ec_signature)
        and not failed_halves(envelope, identity, provider=provider)
    ]
    if genuine:
        return genuine
    for identity in tried:
        failures = failed_halves(envelope, identity, provider=provider)
        if len(failures) == 1:
            (failure,) = failures.values()
            raise SignatureInvalid(
                f"{failure.message}; the other half is genuine",
                expected=f"both halves of {identity.id}",
                found=failure.found,
                hint="this envelope was altered or put together from two; get it from another source",
            )
    raise UntrustedSigner(
        f"none of {among} signed this",
        expected=f"a signature by one of {len(tried)}",
        found="a signature by somebody else, or a damaged one",
        hint="check that what you compare with is the publisher's newest, and get this from another source",
    )


def _ec_verifies(provider: Provider, identity: PublicIdentity, message: bytes, signature: bytes) -> bool:
    try:
        verify_half(provider, "ec", identity.profile, spki=identity.ec_spki, message=message, signature=signature)
    except SignatureInvalid:
        return False
    return True


def verify_ec_only(payload: bytes, signature: bytes, public_pem: bytes) -> None:
    """Verify a foreign OpenSSF Model Signing signature: one EC key on P-256, P-384 or P-521, no post-quantum half.

    This is not a verification of this project's evidence and never substitutes for one.

    Raises:
        FormatError: if ``public_pem`` is not such a key.
        SignatureInvalid: if the signature is not valid.
        SelfTestFailed: if the algorithms do not give their known answers here.
    """
    selftest.ensure()
    if verify_model_signing(public_pem, pae(payload), signature) is not True:
        raise SignatureInvalid("the signature is invalid", expected="a valid ECDSA signature")
