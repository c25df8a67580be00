# SPDX-License-Identifier: Apache-2.0
"""The signature that a model carries on its Hub, held against what the importer demands of it.

OpenSSF Model Signing knows three ways to sign, and each needs the importer to say whom to believe: a public key, the
authorities of certificates, or an identity and who vouches for it. Models of this project's own registries carry both
halves of a hybrid signature and a receipt instead; those are judged by the trust file, elsewhere (``mirror.staging``).

A signature counts if it verifies **and** covers what is imported: every file it lists is there, and every file of the
import is listed with the digest that it was found to have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from pq_registry.crypto.signing import verify_ec_only
from pq_registry.errors import FileDigestMismatch, FileSetMismatch, SignatureInvalid, UsageError, at_step
from pq_registry.format.digest import Digest
from pq_registry.format.importing import Verified
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.statement import EC_BUNDLE_NAME
from pq_registry.mirror.certificates import verify_certificate
from pq_registry.mirror.keyless import verify_keyless
from pq_registry.mirror.signer import SignedBy

_SIGNATURE_SUFFIX = ".oms.sig"
_LISTED = 10


@dataclass(frozen=True, slots=True)
class ByKey:
    """Signed with the secret half of this EC public key, in PEM."""

    public_pem: bytes


@dataclass(frozen=True, slots=True)
class ByCertificate:
    """Signed by a certificate that one of these authorities issued, in PEM."""

    authorities_pem: bytes


@dataclass(frozen=True, slots=True)
class ByIdentity:
    """Signed without a key by exactly this identity, for which exactly this issuer vouched, under this trusted root."""

    identity: str
    issuer: str
    trusted_root: Path | None = None


@dataclass(frozen=True, slots=True)
class ByRelease:
    """Carries the evidence of a release of this project, to be judged by the trust file."""


SignaturePolicy = ByKey | ByCertificate | ByIdentity | ByRelease


def verify_bundle(bundle: bytes, policy: ByKey | ByCertificate | ByIdentity, *, now: datetime) -> SignedBy:
    """Verify a model's signature as ``policy`` demands.

    Raises:
        SignatureInvalid: step 2, if it does not hold.
        FormatError: if it is malformed, or of another kind.
        UsageError: if what the policy names cannot be used.
    """
    with at_step(2):
        match policy:
            case ByKey(public_pem):
                parsed = parse_foreign_bundle(bundle)
                verify_ec_only(parsed.payload, parsed.signature, public_pem)
                return SignedBy(parsed.payload, Verified.KEY, (("key", _key_id(public_pem)),))
            case ByCertificate(authorities_pem):
                return verify_certificate(bundle, authorities_pem, now=now)
            case ByIdentity(identity, issuer, trusted_root):
                return verify_keyless(bundle, identity=identity, issuer=issuer, trusted_root=trusted_root)


def _key_id(public_pem: bytes) -> str:
    """The digest by which OMS names a key: of its PEM, written anew."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = serialization.load_pem_public_key(public_pem).public_bytes(serialization.Encoding.PEM, spki)
    return Digest.of(pem).hex


def check_covers(payload: bytes, imported: Mapping[str, Digest], left_out: Collection[str]) -> ForeignStatement:
    """Check that a signed statement covers every file that is imported, as it came.

    What its signer chose to ignore is not covered, so it can only be left out.

    Args:
        payload: the statement.
        imported: the files of the import by their paths, and what they were found to be.
        left_out: the other files of the model.

    Raises:
        StatementMismatch, FormatError: step 3, if it is no OMS statement over whole files.
        FileSetMismatch: step 6, if a signed file is missing, or one that is imported is not signed.
        FileDigestMismatch: step 8, if a file is not as it was signed.
    """
    with at_step(3):
        statement = ForeignStatement.parse(payload)
    signed = dict(statement.resources)
    named = [f"{path!r} is missing" for path in sorted(signed.keys() - imported.keys() - set(left_out))]
    named += [f"{path!r} is not covered" for path in sorted(imported.keys() - signed.keys())]
    if named:
        raise FileSetMismatch(
            "the model's own signature is not about these files",
            expected=f"exactly the {len(signed)} files that were signed",
            found=", ".join(named[:_LISTED]) + (f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""),
            hint="--exclude leaves out what is not covered; what is missing only the model's makers can bring back",
        )
    for path, digest in signed.items():
        if path in imported and imported[path] != digest:
            raise FileDigestMismatch(
                f"{path} is not what the model's makers signed", expected=digest, found=imported[path]
            )
    return statement


def signature_path(paths: Iterable[str], named: str | None) -> str | None:
    """Which file of a model is its signature: the one that was named, ``model.sig``, or the ``*.oms.sig`` at its root.

    Raises:
        UsageError: if the one that was named is not there, or there are several.
    """
    every = set(paths)
    if named is not None:
        if named not in every:
            raise UsageError(f"the model has no file {named!r}", hint="--signature names its signature's file")
        return named
    if EC_BUNDLE_NAME in every:
        return EC_BUNDLE_NAME
    found = sorted(text for text in every if "/" not in text and text.endswith(_SIGNATURE_SUFFIX))
    if len(found) > 1:
        raise UsageError(
            "the model has several signatures", expected="--signature FILE", found=", ".join(found[:_LISTED])
        )
    return found[0] if found else None


def require_found(path: str | None, repository: str) -> str:
    """The path of the signature that is demanded.

    Raises:
        SignatureInvalid: step 2, if there is none.
    """
    if path is None:
        raise SignatureInvalid(
            f"{repository} carries no signature",
            expected=f"{EC_BUNDLE_NAME} or another *{_SIGNATURE_SUFFIX} file at its root",
            hint="without --require-signature it is imported unsigned by its makers, and the import says so",
        )
    return path
