# SPDX-License-Identifier: Apache-2.0
"""Sigstore bundles v0.3: one half of an envelope each, as files beside a release.

``model.sig`` carries the EC half, so that stock OMS tools verify it; ``model.pq.sig`` carries the ML-DSA half. Both
hold the same payload, byte for byte, and together they are the envelope again. A bundle is written in RFC 8785 form::

    {"dsseEnvelope": {"payload": BASE64, "payloadType": "application/vnd.in-toto+json",
                      "signatures": [{"keyid": "", "sig": BASE64}]},
     "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
     "verificationMaterial": {"publicKey": {"hint": HEX}, "tlogEntries": []}}

``hint`` is the hex SHA-256 of the half's public key in PEM. Stock tools compare it with the key they are given; here
it selects nothing and is believed by nobody: keys come from the trust file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from pq_registry import limits
from pq_registry.errors import SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import PAYLOAD_TYPE, Envelope
from pq_registry.format.hexid import parse_identity_id
from pq_registry.format.strict_json import Fields, encode_base64, encode_canonical, parse_canonical

BUNDLE_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"

Half = Literal["ec", "pq"]


@dataclass(frozen=True, slots=True)
class BundleHalf:
    """A payload and one signature over it. ``hint`` is for tools that want it; nothing here does."""

    payload: bytes
    signature: bytes
    hint: str


def encode_bundle(envelope: Envelope, half: Half, spki_pem: bytes) -> bytes:
    """The bundle of one half of ``envelope``; ``spki_pem`` is that half's public key, as its PEM file has it."""
    signature = envelope.ec_signature if half == "ec" else envelope.pq_signature
    return encode_canonical(
        {
            "dsseEnvelope": {
                "payload": encode_base64(envelope.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": "", "sig": encode_base64(signature)}],
            },
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {
                "publicKey": {"hint": hashlib.sha256(spki_pem).hexdigest()},
                "tlogEntries": [],
            },
        }
    )


def parse_bundle(data: bytes) -> BundleHalf:
    """Read a bundle that ``encode_bundle`` wrote.

    Raises:
        FormatError: if ``data`` is not a bundle of exactly our form.
    """
    fields = Fields(parse_canonical(data, what="the bundle", limit=limits.ENVELOPE_BYTES), "bundle")
    fields.literal("mediaType", BUNDLE_TYPE)
    material = fields.object("verificationMaterial")
    key = material.object("publicKey")
    hint = key.parsed("hint", parse_identity_id)
    key.done()
    material.array("tlogEntries", limit=0)
    material.done()
    envelope = fields.object("dsseEnvelope")
    fields.done()
    envelope.literal("payloadType", PAYLOAD_TYPE)
    payload = envelope.base64("payload", limit=limits.STATEMENT_BYTES)
    signature = envelope.objects("signatures", minimum=1, limit=1)[0]
    envelope.done()
    signature.literal("keyid", "")
    half = BundleHalf(payload, signature.base64("sig", limit=limits.SIGNATURE_BYTES), hint)
    signature.done()
    return half


def envelope_from_bundles(ec: bytes, pq: bytes) -> Envelope:
    """The envelope of which ``ec`` and ``pq`` are the two bundles. Nothing is verified yet.

    Raises:
        FormatError: if one of them is not a bundle of exactly our form.
        SignatureInvalid: if they are not two halves of one envelope: other payloads, or an empty signature.
    """
    ec_half, pq_half = parse_bundle(ec), parse_bundle(pq)
    if ec_half.payload != pq_half.payload:
        raise SignatureInvalid(
            "the two bundles sign different statements",
            expected=f"payload {Digest.of(ec_half.payload)} in both",
            found=f"{Digest.of(pq_half.payload)} in the ML-DSA half",
            hint="evidence of two releases was mixed; fetch both files again from one source",
        )
    return Envelope(ec_half.payload, ec_half.signature, pq_half.signature)
