# SPDX-License-Identifier: Apache-2.0
"""OMS signatures by a certificate, as ``model_signing sign certificate`` writes them.

The bundle holds the signer's certificate, the certificates between it and an authority, and a DSSE envelope. What is
required:

1. The chain leads to one of the authorities the importer named; nothing else is a root, the system's store neither.
2. Every certificate is valid **now**. The bundle proves no time of signing, so an expired certificate proves nothing;
   stock tools judge it at the first instant of its validity instead, and so never see it expire.
3. The signer's certificate is for signing: key usage ``digitalSignature`` where it states usages, and extended key
   usage ``codeSigning`` where it states those; one of the two must be stated.
4. Its key is an EC key on P-256, P-384 or P-521, and the signature over the DSSE pre-authentication encoding is valid.
"""

from __future__ import annotations

import warnings
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from pq_registry import limits
from pq_registry.crypto.signing import verify_ec_only
from pq_registry.errors import FormatError, SignatureInvalid, UsageError
from pq_registry.format.bundle import BUNDLE_TYPE
from pq_registry.format.dsse import PAYLOAD_TYPE
from pq_registry.format.importing import Verified
from pq_registry.format.strict_json import Fields, parse_strict
from pq_registry.mirror.signer import SignedBy, printable

_WHAT = "the Sigstore bundle"


def verify_certificate(bundle: bytes, authorities_pem: bytes, *, now: datetime) -> SignedBy:
    """What a certificate signed, and which one.

    Args:
        bundle: the bytes of ``model.sig``.
        authorities_pem: the certificates of the authorities to believe.
        now: the time at which all certificates must be valid.

    Raises:
        FormatError: if the bundle is malformed, or not signed by a certificate.
        SignatureInvalid: if the chain, the certificate or the signature does not hold.
        UsageError: if the authorities cannot be read.
    """
    roots = _authorities(authorities_pem)
    chain, payload, signature = _parse(bundle)
    signer = chain[0]
    root = _check_chain(chain, roots, now)
    _check_usage(signer)
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SignatureInvalid("the signer's certificate has no EC key", found=type(key).__name__)
    spki = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    verify_ec_only(payload, signature, spki)
    return SignedBy(
        payload,
        Verified.CERTIFICATE,
        (
            ("authority", root.fingerprint(hashes.SHA256()).hex()),
            ("certificate", signer.fingerprint(hashes.SHA256()).hex()),
            ("subject", printable(signer.subject.rfc4514_string())),
        ),
    )


def _authorities(pem: bytes) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of certificates that are old-fashioned, but somebody's choice
            return x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            "the file of certificate authorities cannot be read", expected="PEM certificates", found=str(error)[:200]
        ) from None


def _parse(bundle: bytes) -> tuple[list[x509.Certificate], bytes, bytes]:
    """The chain, signer first, the payload, and the signature over it."""
    fields = Fields(parse_strict(bundle, what=_WHAT, limit=limits.UPSTREAM_SIGNATURE_BYTES), "Sigstore bundle")
    fields.literal("mediaType", BUNDLE_TYPE)
    material = fields.object("verificationMaterial")
    if not material.has("x509CertificateChain"):
        raise FormatError(
            f"{_WHAT} was not signed by a certificate with its chain",
            expected="verificationMaterial.x509CertificateChain",
            found=", ".join(material.names())[:120],
            hint="say how it was signed: --require-signature key, certificate or sigstore",
        )
    holder = material.object("x509CertificateChain")
    listed = holder.objects("certificates", minimum=1, limit=limits.UPSTREAM_CERTIFICATES)
    holder.done()
    chain = [_certificate(item) for item in listed]
    if material.has("tlogEntries"):
        material.array("tlogEntries", limit=0)
    material.done()
    envelope = fields.object("dsseEnvelope")
    fields.done()
    envelope.literal("payloadType", PAYLOAD_TYPE)
    payload = envelope.base64("payload", limit=limits.STATEMENT_BYTES)
    entry = envelope.objects("signatures", minimum=1, limit=1)[0]
    envelope.done()
    if entry.has("keyid"):
        entry.literal("keyid", "")
    signature = entry.base64("sig", limit=limits.SIGNATURE_BYTES)
    entry.done()
    return chain, payload, signature


def _certificate(fields: Fields) -> x509.Certificate:
    raw = fields.base64("rawBytes", limit=limits.CERTIFICATES_FILE_BYTES)
    fields.done()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return x509.load_der_x509_certificate(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"{_WHAT} holds a malformed certificate", found=str(error)[:200]) from None


def _check_chain(chain: list[x509.Certificate], roots: list[x509.Certificate], now: datetime) -> x509.Certificate:
    """The authority to which the chain leads."""
    store = crypto.X509Store()
    try:
        for root in roots:
            store.add_cert(crypto.X509.from_cryptography(root))
        store.set_time(now)
        signer, *between = (crypto.X509.from_cryptography(item) for item in chain)
        context = crypto.X509StoreContext(store, signer, between)
        verified = context.get_verified_chain()
    except crypto.X509StoreContextError as error:
        raise SignatureInvalid(
            "the signer's certificate is not to be believed",
            expected="a chain, valid now, to one of the authorities given",
            found=printable(str(error.args[0]) if error.args else "no reason"),
        ) from None
    except (crypto.Error, ValueError) as error:
        raise SignatureInvalid("the signer's certificate cannot be checked", found=type(error).__name__) from None
    return verified[-1].to_cryptography()


def _check_usage(signer: x509.Certificate) -> None:
    try:
        extensions = signer.extensions
        usage = [item.value for item in extensions if isinstance(item.value, x509.KeyUsage)]
        extended = [item.value for item in extensions if isinstance(item.value, x509.ExtendedKeyUsage)]
        basic = [item.value for item in extensions if isinstance(item.value, x509.BasicConstraints)]
    except (ValueError, x509.DuplicateExtension) as error:
        raise SignatureInvalid("the signer's certificate is malformed", found=printable(str(error))) from None
    fits = all(item.digital_signature for item in usage) and all(
        ExtendedKeyUsageOID.CODE_SIGNING in item for item in extended
    )
    if not fits or not (usage or extended) or any(item.ca for item in basic):
        raise SignatureInvalid(
            "the signer's certificate is not for signing", expected="digitalSignature or codeSigning, and no authority"
        )
