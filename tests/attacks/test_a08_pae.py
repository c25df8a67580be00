# SPDX-License-Identifier: Apache-2.0
"""A8: DSSE's pre-authentication encoding counts bytes; two Python libraries count characters."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.errors import FormatError
from pq_registry.format.dsse import PAYLOAD_TYPE, Envelope, pae
from tests.format_samples import changed, envelope, put

GOLDEN = {
    b"hello world": b"DSSEv1 28 application/vnd.in-toto+json 11 hello world",
    b"": b"DSSEv1 28 application/vnd.in-toto+json 0 ",
    b"\x00": b"DSSEv1 28 application/vnd.in-toto+json 1 \x00",
    "ö€😀".encode(): b"DSSEv1 28 application/vnd.in-toto+json 9 \xc3\xb6\xe2\x82\xac\xf0\x9f\x98\x80",
    b"\xff\xfe": b"DSSEv1 28 application/vnd.in-toto+json 2 \xff\xfe",
    b"11 hello": b"DSSEv1 28 application/vnd.in-toto+json 8 11 hello",
    b"a" * 1000: b"DSSEv1 28 application/vnd.in-toto+json 1000 " + b"a" * 1000,
}


@pytest.mark.parametrize("payload", GOLDEN, ids=ascii)
def test_golden_vectors(payload: bytes) -> None:
    assert pae(payload) == GOLDEN[payload]


def test_the_length_of_the_type_is_its_own() -> None:
    assert len(PAYLOAD_TYPE.encode()) == len(PAYLOAD_TYPE) == 28


@given(st.binary(max_size=200))
def test_the_encoding_can_be_taken_apart_in_one_way(payload: bytes) -> None:
    version, type_length, rest = pae(payload).split(b" ", 2)
    assert version == b"DSSEv1"
    kind, rest = rest[: int(type_length)], rest[int(type_length) + 1 :]
    length, rest = rest.split(b" ", 1)
    assert (kind, int(length), rest) == (PAYLOAD_TYPE.encode(), len(payload), payload)


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.in-toto+jsön",
        "application/vnd.in-toto+json\u200b",
        "application/vnd.in-toto+json ",
        "application/vnd.in-toto+json 2 {}",
        "Application/vnd.in-toto+json",
        "\uff41pplication/vnd.in-toto+json",
        "",
    ],
    ids=ascii,
)
def test_no_other_type_gets_as_far_as_being_counted(kind: str) -> None:
    data = changed(envelope().encode(), put("payloadType", value=kind))
    with pytest.raises(FormatError):
        Envelope.parse(data)


def test_a_payload_that_is_not_text_is_signed_as_it_is() -> None:
    payload = bytes(range(256))
    parsed = Envelope.parse(envelope(payload).encode())
    assert pae(parsed.payload).endswith(b" 256 " + payload)
    assert base64.b64encode(payload) in envelope(payload).encode()
