# SPDX-License-Identifier: Apache-2.0
"""Sigstore bundles of the two halves, and the envelope they are together."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from pq_registry.errors import FormatError, SignatureInvalid
from pq_registry.format.bundle import encode_bundle, envelope_from_bundles, parse_bundle
from tests.format_samples import changed, documents, drop, each, envelope, put

PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
ENVELOPE = envelope(documents()[0])
EC = encode_bundle(ENVELOPE, "ec", PEM)
PQ = encode_bundle(ENVELOPE, "pq", PEM)


def test_the_form_is_the_one_specified() -> None:
    assert encode_bundle(replace(ENVELOPE, payload=b"hello", ec_signature=b"\x01"), "ec", PEM) == (
        b'{"dsseEnvelope":{"payload":"aGVsbG8=","payloadType":"application/vnd.in-toto+json",'
        b'"signatures":[{"keyid":"","sig":"AQ=="}]},'
        b'"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"'
        + hashlib.sha256(PEM).hexdigest().encode()
        + b'"},"tlogEntries":[]}}'
    )


def test_each_bundle_holds_its_half() -> None:
    ec, pq = parse_bundle(EC), parse_bundle(PQ)
    assert (ec.payload, ec.signature) == (ENVELOPE.payload, ENVELOPE.ec_signature)
    assert (pq.payload, pq.signature) == (ENVELOPE.payload, ENVELOPE.pq_signature)


def test_two_bundles_are_the_envelope_again() -> None:
    assert envelope_from_bundles(EC, PQ) == ENVELOPE


def test_halves_of_two_releases_are_no_envelope() -> None:
    other = encode_bundle(envelope(b"{}"), "pq", PEM)
    with pytest.raises(SignatureInvalid) as caught:
        envelope_from_bundles(EC, other)
    assert caught.value.step == 2


def test_the_hint_selects_nothing() -> None:
    forged = changed(EC, put("verificationMaterial", "publicKey", "hint", value="00" * 32))
    assert envelope_from_bundles(forged, PQ) == ENVELOPE


@each(
    put("mediaType", value="application/vnd.dev.sigstore.bundle+json;version=0.3"),
    put("verificationMaterial", "publicKey", "hint", value="zz"),
    put("verificationMaterial", "publicKey", "rawBytes", value="AAAA"),
    put("verificationMaterial", "tlogEntries", value=[{}]),
    put("verificationMaterial", "certificate", value={}),
    put("dsseEnvelope", "payloadType", value="text/plain"),
    put("dsseEnvelope", "signatures", value=[]),
    put("dsseEnvelope", "signatures", value=[{"keyid": "", "sig": "AQ=="}] * 2),
    put("dsseEnvelope", "signatures", 0, "keyid", value="x"),
    put("messageSignature", value={}),
    drop("verificationMaterial"),
    drop("dsseEnvelope"),
    drop("verificationMaterial", "tlogEntries"),
)
def test_another_form_is_refused(change) -> None:
    with pytest.raises(FormatError):
        parse_bundle(changed(EC, change))


def test_an_empty_half_is_no_half() -> None:
    empty = changed(PQ, put("dsseEnvelope", "signatures", 0, "sig", value=""))
    with pytest.raises(SignatureInvalid):
        envelope_from_bundles(EC, empty)
