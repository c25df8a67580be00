# SPDX-License-Identifier: Apache-2.0
"""Signing trust files, and deciding whether a newer one follows from the one a client has.

A trust file reaches a site over a channel its operator trusts. From then on its ``root`` may send newer ones over any
channel: a file with a higher version is accepted if the root of the *present* file signed it, with both halves, and
with SLH-DSA too where the present root names such a key. What the new file says of itself counts for nothing until
then; it may name another root, which is how a root is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pq_registry.crypto import selftest
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.provider import Provider, verify_half
from pq_registry.crypto.signing import Signer
from pq_registry.crypto.slhdsa import SlhPublic, SlhSecret
from pq_registry.crypto.suites import Half
from pq_registry.crypto.trustkeys import TrustStore
from pq_registry.errors import (
    FormatError,
    SignatureInvalid,
    TrustExpired,
    TrustMissing,
    TrustRollback,
    UntrustedSigner,
    at_step,
)
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.trustfile import TrustFile
from pq_registry.format.trustsignature import TrustSignature, message


@dataclass(frozen=True, slots=True)
class TrustSigner:
    """Who must have signed a trust file: an identity, and an SLH-DSA key if one is demanded."""

    identity: PublicIdentity
    slh: SlhPublic | None = None


def root_of(trust: TrustFile) -> TrustSigner | None:
    """The root that ``trust`` names, its keys checked; None if it names none.

    Raises:
        FormatError: if a key is malformed, or not of the stated id.
    """
    if trust.root is None:
        return None
    try:
        identity = PublicIdentity.from_pem(trust.root.public_pem.encode("ascii", "replace"))
        slh = None if trust.root.slh_pem is None else SlhPublic.from_pem(trust.root.slh_pem.encode("ascii", "replace"))
    except FormatError as error:
        raise FormatError(f"the trust file's root: {error.message}", expected=error.expected, found=error.found,
                          hint=error.hint) from None  # fmt: skip
    if identity.id != trust.root.id:
        raise FormatError("the trust file's root: its id is not that of its keys", expected=trust.root.id,
                          found=identity.id)  # fmt: skip
    return TrustSigner(identity, slh)


def check_keys(trust: TrustFile) -> None:
    """Check every key in ``trust``, the root's included.

    Raises:
        FormatError: if a key is malformed, not of the stated id, or a half occurs in two identities.
    """
    store = TrustStore.from_trust_file(trust)
    root = root_of(trust)
    if root is None:
        return
    for entry in trust.namespaces.values():
        for pair in store.identities(entry.namespace):
            shared = set(pair.identity.half_ids) & set(root.identity.half_ids)
            if shared and pair.identity.id != root.identity.id:
                raise FormatError(
                    f"namespace {entry.namespace}: an identity shares a signing half with the root",
                    expected="no half in two identities",
                    found=f"{pair.identity.id} and {root.identity.id}",
                )


def sign_trust(
    payload: bytes, signer: Signer, slh: SlhSecret | None = None, *, provider: Provider = OPENSSL
) -> TrustSignature:
    """Sign the exact bytes of a trust file; verified before it is returned.

    Raises:
        FormatError: if ``payload`` is not a trust file, or holds an unusable key.
        SignatureInvalid: if what was made does not verify.
        ProviderUnavailable: if ``slh`` is given and no library with SLH-DSA is installed.
        SelfTestFailed: if the algorithms do not give their known answers here.
    """
    selftest.ensure()
    check_keys(TrustFile.parse(payload))
    signed = message(payload)
    ec_signature, pq_signature = signer.sign(signed)
    signature = TrustSignature(payload, ec_signature, pq_signature, None if slh is None else slh.sign(signed))
    # SlhSecret.sign has verified its own.
    verify_trust(payload, signature, TrustSigner(signer.identity), provider=provider)
    return signature


def verify_trust(payload: bytes, signature: TrustSignature, by: TrustSigner, *, provider: Provider = OPENSSL) -> None:
    """Verify that ``by`` signed exactly ``payload``: both halves, and SLH-DSA if ``by`` has such a key.

    Raises:
        SignatureInvalid: if a signature is missing or wrong, or the signature file is of other bytes.
        UntrustedSigner: if neither half verifies: somebody else signed.
        ProviderUnavailable: if SLH-DSA is demanded and no library has it.
    """
    if signature.payload != payload:
        raise SignatureInvalid(
            "the signature file is not of this trust file",
            expected="exactly the bytes of the trust file",
            found=f"{len(signature.payload)} other bytes",
            hint="fetch both files again, from the same place",
        )
    identity = by.identity
    failures = []
    halves: tuple[tuple[Half, bytes], ...] = (("ec", signature.ec_signature), ("pq", signature.pq_signature))
    for half, made in halves:
        try:
            verify_half(provider, half, identity.profile, spki=identity.spki(half), message=signature.message,
                        signature=made)  # fmt: skip
        except SignatureInvalid as error:
            failures.append(error)
    if len(failures) == len(halves):
        raise UntrustedSigner(
            "the trust file is signed by somebody else, or damaged", expected=f"a signature by {identity.id}"
        )
    if failures:
        raise failures[0]
    if by.slh is not None:
        if signature.slh_signature is None:
            raise SignatureInvalid("the trust file lacks the SLH-DSA signature", expected=f"one by {by.slh.id}",
                                   found="the two halves only")  # fmt: skip
        by.slh.verify(signature.message, signature.slh_signature)


def accept_update(
    current: TrustFile, payload: bytes, signature: TrustSignature, *, now: datetime, provider: Provider = OPENSSL
) -> TrustFile:
    """The trust file in ``payload``, if it follows from ``current``. Step 0 of DESIGN §5.

    Raises:
        TrustMissing: if ``current`` names no root that could have signed it.
        SignatureError: unless that root signed it.
        TrustRollback: if its version is not higher.
        TrustExpired: if it has expired.
        FormatError: if it is malformed, or holds an unusable key.
    """
    with at_step(0):
        root = root_of(current)
        if root is None:
            raise TrustMissing(
                "the present trust file names no root, so no other file can follow from it",
                hint="get the new file over a channel you trust and put it in place yourself",
            )
        # Signatures first: what is in the file is read only once it is known to be the root's.
        verify_trust(payload, signature, root, provider=provider)
        following = TrustFile.parse(payload)
        if following.version <= current.version:
            raise TrustRollback(
                "the new trust file is not newer",
                expected=f"a version above {current.version}",
                found=following.version,
                hint="somebody may be handing out an old file; ask for the newest",
            )
        if is_expired(now, following.expires):
            raise TrustExpired("the new trust file has expired", expected=f"a date before "
                               f"{format_instant(following.expires)}", found=format_instant(now))  # fmt: skip
        check_keys(following)
    return following
