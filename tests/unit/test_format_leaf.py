# SPDX-License-Identifier: Apache-2.0
"""A leaf's two quick ways, writing it out and taking it apart, against RFC 8785 and the strict parser."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format import leaf as module
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.strict_json import encode_canonical

HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
PART = st.from_regex(r"[A-Za-z0-9]([._-]?[A-Za-z0-9]){0,20}", fullmatch=True)


@st.composite
def leaves(draw) -> Leaf:
    kind = draw(st.sampled_from(Kind))
    name = draw(PART) if kind.of_namespace else f"{draw(PART)}/{draw(PART)}"
    payload, ec, pq = (Digest(draw(HEX)) for _ in range(3))
    return Leaf(
        identity=draw(HEX),
        kind=kind,
        name=name,
        payload=payload,
        ec=ec,
        pq=pq,
        time=draw(st.integers(0, limits.JSON_INTEGER)),
    )


def slowly(data: bytes) -> Leaf | str:
    """What the strict JSON parser alone makes of it."""
    quick = module._WRITTEN
    module._WRITTEN = re.compile(r"(?!)")
    try:
        return quickly(data)
    finally:
        module._WRITTEN = quick


def quickly(data: bytes) -> Leaf | str:
    try:
        return Leaf.parse(data)
    except FormatError:
        return "refused"


@given(leaves())
def test_written_as_rfc_8785_says(leaf):
    value = {
        "i": leaf.identity,
        "k": leaf.kind.value,
        "n": leaf.name,
        "p": leaf.payload.hex,
        "s": [leaf.ec.hex, leaf.pq.hex],
        "t": leaf.time,
        "v": 1,
    }
    assert leaf.encode() == encode_canonical(value)
    assert Leaf.parse(leaf.encode()) == slowly(leaf.encode()) == leaf


@given(
    leaves(),
    st.integers(0, 400),
    st.sampled_from([b"", b" ", b"0", b"A", b"\\", b'"', b"\n", b"\xc3\xa9", b"--", b"9" * 20]),
)
def test_both_ways_agree_about_anything_else(leaf, at, inserted):
    data = leaf.encode()
    at %= len(data)
    for altered in (data[:at] + inserted + data[at:], data[:at] + inserted + data[at + 1 :]):
        found = quickly(altered)
        assert found == slowly(altered)
        assert found == "refused" or found.encode() == altered


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"k":"tag"', b'"k":"release"'),
        (b'"k":"tag"', b'"k":"tags"'),
        (b'"k":"tag"', b'"k":"status"'),
        (b'"n":"acme/x"', b'"n":"acme"'),
        (b'"n":"acme/x"', b'"n":"acme/x/y"'),
        (b'"n":"acme/x"', b'"n":"acme/../x"'),
        (b'"n":"acme/x"', b'"n":"acme/x--y"'),
        (b'"n":"acme/x"', b'"n":"/"'),
        (b'"t":5', b'"t":05'),
        (b'"t":5', b'"t":9007199254740992'),
        (b'"t":5', b'"t":-5'),
        (b'"t":5', b'"t":5e0'),
        (b'"v":1', b'"v":2'),
    ],
)
def test_both_ways_agree_about_values(old, new):
    digest = Digest("ab" * 32)
    leaf = Leaf(identity="cd" * 32, kind=Kind.TAG, name="acme/x", payload=digest, ec=digest, pq=digest, time=5)
    data = leaf.encode()
    assert old in data
    assert quickly(data.replace(old, new)) == slowly(data.replace(old, new))
