# SPDX-License-Identifier: Apache-2.0
"""The signature file of a trust file, ``trust.json.sig``: a DSSE envelope with a payload type of its own.

It is the RFC 8785 form of::

    {"payload": BASE64 of the exact bytes of trust.json,
     "payloadType": "application/vnd.pq-registry.trust+json",
     "signatures": [EC half, ML-DSA half]  or  [EC half, ML-DSA half, SLH-DSA]}

each signature as ``{"keyid": "", "sig": BASE64}`` over ``message(payload)``. Because of its payload type nothing else
that an identity signed can be taken for the signature of a trust file, and the reverse. As in every envelope here,
nothing in it names a key or an algorithm: whoever verifies knows which keys must have signed, and whether the third
signature is one of them. So taking the third one away helps nobody who is asked for it. docs/spec/trust.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.strict_json import Fields, Value, encode_base64, encode_canonical, parse_canonical

PAYLOAD_TYPE: Final = "application/vnd.pq-registry.trust+json"
SUFFIX: Final = ".sig"
"""What is added to the name of the trust file."""

_HALVES: Final = "the EC half, the ML-DSA half and, if there is one, SLH-DSA"


def message(payload: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class TrustSignature:
    """The bytes of a trust file and their signatures, verified or not."""

    payload: bytes
    ec_signature: bytes
    pq_signature: bytes
    slh_signature: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the payload or a signature is too large.
            SignatureInvalid: if a signature is empty.
        """
        bounds = [
            ("payload", self.payload, limits.TRUST_FILE_BYTES),
            ("EC half", self.ec_signature, limits.SIGNATURE_BYTES),
            ("ML-DSA half", self.pq_signature, limits.SIGNATURE_BYTES),
        ]
        if self.slh_signature is not None:
            bounds.append(("SLH-DSA signature", self.slh_signature, limits.SLH_SIGNATURE_BYTES))
        for name, value, most in bounds:
            if not value:
                raise SignatureInvalid(f"the {name} of the trust file's signature is empty", expected=_HALVES)
            if len(value) > most:
                raise FormatError(f"the {name} is too large", expected=f"at most {most} bytes", found=len(value))

    @property
    def message(self) -> bytes:
        """What the signatures are over."""
        return message(self.payload)

    def encode(self) -> bytes:
        """The exact bytes of the file."""
        made = [self.ec_signature, self.pq_signature]
        if self.slh_signature is not None:
            made.append(self.slh_signature)
        signatures: list[Value] = [{"keyid": "", "sig": encode_base64(signature)} for signature in made]
        return encode_canonical(
            {"payload": encode_base64(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": signatures}
        )

    @classmethod
    def parse(cls, data: bytes) -> TrustSignature:
        """Read a signature file; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not one of exactly this form.
            SignatureInvalid: if it has not two or three signatures, or an empty one.
        """
        what = "the trust file's signature"
        fields = Fields(parse_canonical(data, what=what, limit=limits.TRUST_SIGNATURE_BYTES), what)
        fields.literal("payloadType", PAYLOAD_TYPE)
        payload = fields.base64("payload", limit=limits.TRUST_FILE_BYTES)
        signatures = fields.take("signatures")
        fields.done()
        if not isinstance(signatures, list):
            fields.fail("signatures", "an array", signatures)
        if len(signatures) not in (2, 3):
            raise SignatureInvalid(f"{what} has not two or three signatures", expected=_HALVES, found=len(signatures))
        made = []
        for index, item in enumerate(signatures):
            entry = Fields(item, f"{what}.signatures[{index}]")
            entry.literal("keyid", "")
            made.append(entry.base64("sig", limit=limits.SIGNATURE_BYTES if index < 2 else limits.SLH_SIGNATURE_BYTES))
            entry.done()
        return cls(payload, made[0], made[1], made[2] if len(made) == 3 else None)
