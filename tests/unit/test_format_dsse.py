# SPDX-License-Identifier: Apache-2.0
"""Envelopes: one form, two halves, and what each departure from it is called."""

from __future__ import annotations

import base64

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import PAYLOAD_TYPE, Envelope, pae
from tests.format_samples import changed, drop, each, envelope, put

ENCODED = envelope(b'{"a":1}').encode()
SIG = base64.b64encode(b"signature").decode()


def test_the_form_is_the_one_specified() -> None:
    assert Envelope(b"hello", b"\x01", b"\x02\x03").encode() == (
        b'{"payload":"aGVsbG8=","payloadType":"application/vnd.in-toto+json",'
        b'"signatures":[{"keyid":"","sig":"AQ=="},{"keyid":"","sig":"AgM="}]}'
    )


def test_an_envelope_comes_back() -> None:
    parsed = Envelope.parse(ENCODED)
    assert parsed == envelope(b'{"a":1}')
    assert parsed.encode() == ENCODED
    assert parsed.payload_digest == Digest.of(b'{"a":1}')


def test_any_bytes_can_be_a_payload() -> None:
    payload = bytes(range(256))
    assert Envelope.parse(envelope(payload).encode()).payload == payload


def test_pae_is_of_bytes() -> None:
    assert pae("ö".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xb6"


@each(
    put("payloadType", value="application/json"),
    put("payloadType", value=PAYLOAD_TYPE + "ö"),
    put("payloadType", value=PAYLOAD_TYPE.upper()),
    put("payload", value="e30"),
    put("payload", value="e31="),
    put("payload", value="e3 0="),
    put("payload", value=None),
    put("signatures", 0, "keyid", value="a1"),
    put("signatures", 1, "keyid", value=None),
    put("signatures", 0, "cert", value=""),
    put("signatures", 0, "sig", value="AQ"),
    put("signatures", value={"ec": "AQ==", "pq": "AQ=="}),
    put("signatures", 0, value="AQ=="),
    put("alg", value="ES384+MLDSA87"),
    drop("payload"),
    drop("payloadType"),
    drop("signatures"),
    drop("signatures", 0, "keyid"),
    drop("signatures", 1, "sig"),
)
def test_another_form_is_refused(change) -> None:
    with pytest.raises(FormatError):
        Envelope.parse(changed(ENCODED, change))


@each(
    drop("signatures", 1),
    drop("signatures", 0),
    put("signatures", value=[]),
    put("signatures", value=[{"keyid": "", "sig": SIG}] * 3),
    put("signatures", 1, "sig", value=""),
    put("signatures", 0, "sig", value=""),
)
def test_a_missing_or_additional_half_is_a_matter_of_signatures(change) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        Envelope.parse(changed(ENCODED, change))
    assert caught.value.step == 2


def test_an_envelope_that_is_not_canonical_is_refused() -> None:
    for other in (ENCODED + b"\n", b" " + ENCODED, ENCODED.replace(b",", b", ", 1)):
        with pytest.raises(FormatError):
            Envelope.parse(other)


def test_a_value_that_could_not_be_read_back_is_not_made() -> None:
    with pytest.raises(SignatureInvalid):
        Envelope(b"{}", b"", b"\x01")
    with pytest.raises(SignatureInvalid):
        Envelope(b"{}", b"\x01", b"")
    with pytest.raises(FormatError):
        Envelope(b"{}", b"\x01", bytes(limits.SIGNATURE_BYTES + 1))
