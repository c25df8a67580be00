# SPDX-License-Identifier: Apache-2.0
"""Models signed by others: with a key or by a certificate, by the stock tool ``model_signing`` itself."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LACKING = importlib.util.find_spec("model_signing") is None
REASON = "PyPI's model-signing is not installed"


def secret_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Authority:
    """A certificate authority of a test's own; ``now`` is the first instant at which its certificates are valid."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    now: datetime

    @classmethod
    def new(cls, name: str = "test CA", now: datetime | None = None, *, days: int = 30) -> Authority:
        now = now or datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        key = ec.generate_private_key(ec.SECP384R1())
        return cls(key, certificate(name, key, name, key, now, days=days, ca=True), now)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, days: int = 30, ca: bool = False, usage: str = "signing"
    ) -> x509.Certificate:
        """A certificate; ``usage`` is signing, code, tls or none."""
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        return certificate(name, key, str(issuer), self.key, self.now, days=days, ca=ca, usage=usage)


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    start: datetime,
    *,
    days: int,
    ca: bool = False,
    usage: str = "signing",
) -> x509.Certificate:
    """A certificate."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    signs = usage == "signing" and not ca
    if ca or signs:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=ca, crl_sign=ca, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
    extended = {"code": ExtendedKeyUsageOID.CODE_SIGNING, "tls": ExtendedKeyUsageOID.SERVER_AUTH}.get(usage)
    if extended is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), critical=False)
    return builder.sign(issuer_key, hashes.SHA384())


def _configuration(model: Path, signature: Path) -> Any:
    from model_signing import hashing, signing

    return signing.Config().set_hashing_config(
        hashing.Config().set_ignored_paths(paths=[signature, ".gitattributes"], ignore_git_paths=True)
    )


def sign_with_key(model: Path, key: ec.EllipticCurvePrivateKey, work: Path, name: str = "model.sig") -> bytes:
    """Let the stock tool sign ``model``; the bundle, which is also written there."""
    work.mkdir(exist_ok=True)
    (work / "key.pem").write_bytes(secret_pem(key))
    signature = model / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = _configuration(model, signature).use_elliptic_key_signer(private_key=work / "key.pem")
        config.sign(model, signature)
    return signature.read_bytes()


def sign_with_certificate(
    model: Path,
    key: ec.EllipticCurvePrivateKey,
    own: x509.Certificate,
    work: Path,
    between: tuple[x509.Certificate, ...] = (),
) -> bytes:
    """The same by a certificate."""
    work.mkdir(exist_ok=True)
    (work / "key.pem").write_bytes(secret_pem(key))
    (work / "own.pem").write_bytes(own.public_bytes(serialization.Encoding.PEM))
    chain = []
    for number, item in enumerate((*between, own)):
        chain.append(work / f"chain{number}.pem")
        chain[-1].write_bytes(item.public_bytes(serialization.Encoding.PEM))
    signature = model / "model.sig"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = _configuration(model, signature).use_certificate_signer(
            private_key=work / "key.pem", signing_certificate=work / "own.pem", certificate_chain=chain[:-1] or chain
        )
        config.sign(model, signature)
    return signature.read_bytes()
