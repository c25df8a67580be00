# SPDX-License-Identifier: Apache-2.0
"""The one envelope of this project: DSSE over exact payload bytes, signed twice.

An envelope is the RFC 8785 form of::

    {"payload": BASE64, "payloadType": "application/vnd.in-toto+json",
     "signatures": [{"keyid": "", "sig": BASE64}, {"keyid": "", "sig": BASE64}]}

The first signature is the EC half, the second the post-quantum half: stock tools look at the first one only. There is
nothing in an envelope that selects a key or an algorithm: ``keyid`` is empty and any other field is refused. Both
halves sign ``pae(payload)``. Nothing here verifies a signature, and the payload is not looked into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import Fields, encode_base64, encode_canonical, parse_canonical

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
MEDIA_TYPE: Final = "application/vnd.dsse.envelope.v1+json"

_BOTH_HALVES = "two signatures: the EC half, then the ML-DSA half"


def pae(payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding of ``payload`` under our payload type."""
    # Lengths are of bytes. Two well-known libraries count characters; with an ASCII type that cannot differ, and
    # Envelope.parse accepts no other type.
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and the two halves of its signature, verified or not."""

    payload: bytes
    ec_signature: bytes
    pq_signature: bytes

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the payload or a half is too large.
            SignatureInvalid: if a half is missing.
        """
        if len(self.payload) > limits.STATEMENT_BYTES:
            raise FormatError(
                "the payload is too large",
                expected=f"at most {limits.STATEMENT_BYTES} bytes",
                found=f"{len(self.payload)} bytes",
            )
        for half, signature in (("EC", self.ec_signature), ("ML-DSA", self.pq_signature)):
            if not signature:
                raise SignatureInvalid(f"the {half} half of the signature is empty", expected=_BOTH_HALVES)
            if len(signature) > limits.SIGNATURE_BYTES:
                raise FormatError(
                    f"the {half} half of the signature is too large",
                    expected=f"at most {limits.SIGNATURE_BYTES} bytes",
                    found=f"{len(signature)} bytes",
                )

    @property
    def payload_digest(self) -> Digest:
        """SHA-256 of the payload: what identifies a statement (signatures are randomised and do not)."""
        return Digest.of(self.payload)

    def encode(self) -> bytes:
        """The exact bytes that are stored and sent."""
        return encode_canonical(
            {
                "payload": encode_base64(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [
                    {"keyid": "", "sig": encode_base64(self.ec_signature)},
                    {"keyid": "", "sig": encode_base64(self.pq_signature)},
                ],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Read an envelope; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not an envelope of exactly our form.
            SignatureInvalid: if it has not exactly two signatures, or an empty one.
        """
        fields = Fields(parse_canonical(data, what="the envelope", limit=limits.ENVELOPE_BYTES), "envelope")
        fields.literal("payloadType", PAYLOAD_TYPE)
        payload = fields.base64("payload", limit=limits.STATEMENT_BYTES)
        signatures = fields.take("signatures")
        fields.done()
        if not isinstance(signatures, list):
            fields.fail("signatures", "an array", signatures)
        if len(signatures) != limits.DSSE_SIGNATURES:
            raise SignatureInvalid(
                "the envelope does not carry both halves of the signature",
                expected=_BOTH_HALVES,
                found="1 signature" if len(signatures) == 1 else f"{len(signatures)} signatures",
                hint="a half was stripped or added on the way; get the envelope from another source",
            )
        halves = []
        for index, item in enumerate(signatures):
            entry = Fields(item, f"envelope.signatures[{index}]")
            entry.literal("keyid", "")
            halves.append(entry.base64("sig", limit=limits.SIGNATURE_BYTES))
            entry.done()
        return cls(payload, halves[0], halves[1])
