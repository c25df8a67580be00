# SPDX-License-Identifier: Apache-2.0
"""Keyless OMS signatures: by an identity that Sigstore's certificate authority vouched for, logged in Rekor.

``sigstore`` verifies offline: the certificate chain at the logged time, the certificate's transparency proof, the
inclusion proof and the log's promise, the signature, and that the log's entry is about it. The policy is an exact
identity **and** its issuer: without the issuer, anybody's login service could vouch for anybody's name.

The root of all that is Sigstore's ``trusted_root.json``: the one that is given, or the one that came with ``sigstore``
or that it fetched last. Nothing is fetched here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pq_registry.errors import FormatError, SignatureInvalid, StorageError, UsageError
from pq_registry.format.dsse import PAYLOAD_TYPE
from pq_registry.format.importing import Verified
from pq_registry.mirror.signer import SignedBy, printable


def verify_keyless(bundle: bytes, *, identity: str, issuer: str, trusted_root: Path | None = None) -> SignedBy:
    """What an identity signed.

    Args:
        bundle: the bytes of ``model.sig``.
        identity: the name in the certificate, exactly: an e-mail address, or the URI of a workflow.
        issuer: the URL of the login service that vouched for it, exactly.
        trusted_root: path of Sigstore's ``trusted_root.json``; by default the one of the installation.

    Raises:
        FormatError: if the bundle is malformed or not a keyless signature.
        SignatureInvalid: if any part of it does not hold, or it is by another identity.
        UsageError: if ``sigstore`` is not installed, or the trusted root cannot be read.
        StorageError: if the installation's trusted root cannot be read.
    """
    try:
        from sigstore.errors import Error as SigstoreError
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity
    except ImportError:
        raise UsageError("sigstore is not installed", hint="pip install 'pq-registry[sigstore]'") from None
    root = _root(trusted_root)
    try:
        parsed = Bundle.from_json(bundle)
    except (InvalidBundle, ValueError, TypeError) as error:
        raise FormatError(
            "the Sigstore bundle is no keyless signature",
            expected="a bundle v0.3 with a certificate and a log entry",
            found=printable(str(error).partition("\n")[0])[:300],
            hint="say how it was signed: --require-signature key, certificate or sigstore",
        ) from None
    try:
        kind, payload = Verifier(trusted_root=root).verify_dsse(parsed, Identity(identity=identity, issuer=issuer))
    except SigstoreError as error:
        raise SignatureInvalid(
            "the model's signature does not hold",
            expected=f"a keyless signature by {identity}, vouched for by {issuer}",
            found=printable(str(error).partition("\n")[0])[:300],
        ) from None
    except Exception as error:  # noqa: BLE001  a foreign verifier, fed by a foreign server, raises anything
        raise SignatureInvalid(
            "the model's signature cannot be verified", found=f"{type(error).__name__}: {printable(str(error))[:200]}"
        ) from None
    if kind != PAYLOAD_TYPE:
        raise SignatureInvalid("the signature is over something else", expected=PAYLOAD_TYPE, found=printable(kind))
    return SignedBy(payload, Verified.SIGSTORE, (("identity", printable(identity)), ("issuer", printable(issuer))))


def _root(given: Path | None) -> Any:
    from sigstore.errors import Error as SigstoreError
    from sigstore.models import ClientTrustConfig, TrustedRoot

    # It would say on every run that it is offline.
    logging.getLogger("sigstore").setLevel(logging.ERROR)
    if given is not None:
        try:
            return TrustedRoot.from_file(str(given))
        except (SigstoreError, OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"Sigstore's trusted root {given} cannot be read",
                expected="trusted_root.json",
                found=printable(str(error).partition("\n")[0])[:200],
            ) from None
    try:
        return ClientTrustConfig.production(offline=True).trusted_root
    except (SigstoreError, OSError, ValueError) as error:
        raise StorageError(
            "Sigstore's trusted root is not to be had here",
            found=printable(str(error).partition("\n")[0])[:200],
            hint="give the file: --sigstore-root trusted_root.json",
        ) from None
