# SPDX-License-Identifier: Apache-2.0
"""A Sigstore of a test's own: authority, certificate log and signature log, with the trusted root that names them.

Only as much of each as an offline verifier looks at; every log has one entry. ``sign`` makes the bundle that
``model_signing sign sigstore`` would have brought home.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pq_registry.format.dsse import PAYLOAD_TYPE

ISSUER_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
SCT_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


class Sigstore:
    """Keys of the three services. What they vouch for began an hour ago."""

    def __init__(self) -> None:
        self.authority, self.certificates, self.rekor = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self.start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test.example")])
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        self.root = (
            self._builder(name, self.authority, timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.authority.public_key()), critical=False)
            .sign(self.authority, hashes.SHA256())
        )

    def trusted_root(self) -> bytes:
        """``trusted_root.json``."""

        def log(key: ec.EllipticCurvePrivateKey, url: str) -> dict[str, Any]:
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(spki(key)),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2020-01-01T00:00:00Z"},
                },
                "logId": {"keyId": b64(hashlib.sha256(spki(key)).digest())},
            }

        authority = {
            "subject": {"organization": "test.example", "commonName": "test"},
            "uri": "https://fulcio.test.example",
            "certChain": {"certificates": [{"rawBytes": b64(self.root.public_bytes(Encoding.DER))}]},
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                "tlogs": [log(self.rekor, "https://rekor.test.example")],
                "certificateAuthorities": [authority],
                "ctlogs": [log(self.certificates, "https://ct.test.example")],
                "timestampAuthorities": [],
            }
        ).encode()

    def sign(self, payload: bytes, *, identity: str, issuer: str, kind: str = PAYLOAD_TYPE) -> bytes:
        """The bundle of a keyless signature by ``identity`` over a payload of this type."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue(key, identity, issuer)
        signature = sign(key, f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
        body = rfc8785.dumps(
            {
                "apiVersion": "0.0.1",
                "kind": "dsse",
                "spec": {
                    "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                    "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
                    "signatures": [
                        {"signature": b64(signature), "verifier": b64(certificate.public_bytes(Encoding.PEM))}
                    ],
                },
            }
        )
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(certificate.public_bytes(Encoding.DER))},
                    "tlogEntries": [self._entry(body)],
                },
                "dsseEnvelope": {
                    "payload": b64(payload),
                    "payloadType": kind,
                    "signatures": [{"sig": b64(signature)}],
                },
            }
        ).encode()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test.example")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.start + lifetime)
        )

    def _issue(self, key: ec.EllipticCurvePrivateKey, identity: str, issuer: str) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        name = x509.RFC822Name(identity) if "://" not in identity else x509.UniformResourceIdentifier(identity)
        builder = (
            self._builder(x509.Name([]), key, timedelta(minutes=10))
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.public_key()), critical=False
            )
            .add_extension(x509.UnrecognizedExtension(ISSUER_OID, issuer.encode()), critical=False)
        )
        before = builder.sign(self.authority, hashes.SHA256()).tbs_certificate_bytes
        proof = self._certificate_proof(before)
        return builder.add_extension(x509.UnrecognizedExtension(SCT_OID, proof), critical=False).sign(
            self.authority, hashes.SHA256()
        )

    def _certificate_proof(self, before: bytes) -> bytes:
        """The list with one signed certificate timestamp (RFC 6962 §3.2) over the certificate without it."""
        stamp = int(self.start.timestamp() * 1000)
        issuer = hashlib.sha256(spki(self.authority)).digest()
        entry = issuer + len(before).to_bytes(3, "big") + before
        signature = sign(self.certificates, struct.pack("!BBQH", 0, 0, stamp, 1) + entry + b"\0\0")
        log = hashlib.sha256(spki(self.certificates)).digest()
        timestamp = b"\0" + log + struct.pack("!QHBBH", stamp, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!H", len(timestamp)) + timestamp
        content = struct.pack("!H", len(listed)) + listed
        return b"\x04" + bytes([len(content)] if len(content) < 128 else [0x81, len(content)]) + content

    def _entry(self, body: bytes) -> dict[str, Any]:
        """The entry of Rekor's only leaf, with its promise and its proof."""
        log = hashlib.sha256(spki(self.rekor)).digest()
        when = int((self.start + timedelta(minutes=1)).timestamp())
        promise = sign(
            self.rekor,
            rfc8785.dumps({"body": b64(body), "integratedTime": when, "logID": log.hex(), "logIndex": 0}),
        )
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"rekor.test.example\n1\n{b64(root)}\n"
        checkpoint = f"{note}\n\u2014 rekor.test.example {b64(log[:4] + sign(self.rekor, note.encode()))}\n"
        return {
            "logIndex": "0",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(when),
            "inclusionPromise": {"signedEntryTimestamp": b64(promise)},
            "inclusionProof": {
                "logIndex": "0", "rootHash": b64(root), "treeSize": "1", "hashes": [],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": b64(body),
        }  # fmt: skip
