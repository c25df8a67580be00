# SPDX-License-Identifier: Apache-2.0
"""Strict and canonical JSON, and taking objects apart."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import (
    Fields,
    decode_base64,
    encode_base64,
    encode_canonical,
    encode_plain,
    parse_canonical,
    parse_strict,
)
from tests.strategies import ALPHABET

texts = st.text(ALPHABET + '\x00\x1f\x7f"\\/\n', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-limits.JSON_INTEGER, limits.JSON_INTEGER) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def strict(data: bytes):
    return parse_strict(data, what="it", limit=10_000)


def canonical(data: bytes):
    return parse_canonical(data, what="it", limit=10_000)


@given(values)
def test_every_value_has_exactly_one_canonical_form(value) -> None:
    data = rfc8785.dumps(value)
    assert encode_canonical(value) == data
    if all(ord(character) < 0x10000 for character in data.decode()):
        assert encode_plain(value) == data
    assert canonical(data) == strict(data) == value
    for other in (json.dumps(value).encode(), json.dumps(value, indent=1, ensure_ascii=False).encode()):
        assert strict(other) == value
        if other != data:
            with pytest.raises(FormatError):
                canonical(other)


@given(st.binary(max_size=60) | st.text(ALPHABET + '{}[]":,\\u019eE+.-', max_size=60).map(str.encode))
def test_what_is_accepted_as_canonical_is_what_rfc_8785_writes(data: bytes) -> None:
    try:
        value = canonical(data)
    except FormatError:
        return
    assert rfc8785.dumps(value) == data


def test_keys_are_sorted_by_utf_16_as_rfc_8785_wants() -> None:
    # U+1F600 is above U+FB01, but its first UTF-16 code unit, D83D, is below.
    data = '{"\U0001f600":1,"\ufb01":2}'.encode()
    assert encode_canonical({"\ufb01": 2, "\U0001f600": 1}) == data
    assert canonical(data) == {"\ufb01": 2, "\U0001f600": 1}
    with pytest.raises(FormatError):
        canonical('{"\ufb01":2,"\U0001f600":1}'.encode())


@pytest.mark.parametrize("value", [float("nan"), 2**53, {1: 2}, {"a": b""}, "\ud800"], ids=ascii)
def test_what_has_no_canonical_form_is_refused(value) -> None:
    with pytest.raises(FormatError):
        encode_canonical(value)


# -- taking objects apart ----------------------------------------------------------------------------------------------
def fields(**members) -> Fields:
    return Fields(members, "it")


def test_a_field_that_is_left_over_is_unknown() -> None:
    one = fields(a=1, b=2, c=3)
    one.integer("a")
    with pytest.raises(FormatError, match="b, c"):
        one.done()


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_only_objects_are_taken_apart(value) -> None:
    with pytest.raises(FormatError, match="it is malformed"):
        Fields(value, "it")


@pytest.mark.parametrize(
    ("accessor", "good", "bad"),
    [
        (lambda it: it.text("a", limit=3), "abc", ["", "abcd", 1, None, ["a"]]),
        (lambda it: it.integer("a", minimum=1, maximum=9), 9, [0, 10, True, "1", None]),
        (lambda it: it.boolean("a"), False, [0, "false", None]),
        (lambda it: it.literal("a", 1), 1, [True, "1", 2]),
        (
            lambda it: it.base64("a", limit=3),
            "AAAA",
            ["AAA", "AAAAAAAA", "AB==", "AA=A", "AA\n==", "AA==\n", 0, "ÄÄÄÄ"],
        ),
        (lambda it: it.array("a", limit=2, minimum=1), [1], [[], [1, 2, 3], {}, "ab", None]),
        (lambda it: it.texts("a", limit=2), ["x"], [[""], [1], ["x"] * 3, "x"]),
        (lambda it: it.objects("a", limit=2), [{}], [[1], {}, [{}] * 3]),
        (lambda it: it.object("a"), {}, [[], None, "{}"]),
        (lambda it: it.parsed("a", Digest), "00" * 32, ["00", 0, None]),
        (lambda it: it.optional("a", Digest), None, ["", 0, False]),
    ],
    ids=[
        "text",
        "integer",
        "boolean",
        "literal",
        "base64",
        "array",
        "texts",
        "objects",
        "object",
        "parsed",
        "optional",
    ],
)
def test_an_accessor_accepts_what_it_names_and_nothing_else(accessor, good, bad) -> None:
    accessor(fields(a=good))
    for value in bad:
        with pytest.raises(FormatError, match="a"):
            accessor(fields(a=value))
    with pytest.raises(FormatError, match="missing"):
        accessor(fields(b=good))


@given(st.binary(max_size=40))
def test_base64_comes_back(data: bytes) -> None:
    assert decode_base64(encode_base64(data), what="it", limit=40) == data


@given(st.text("AB+/=_-\n 9", max_size=12))
def test_no_two_base64_texts_mean_the_same(text: str) -> None:
    try:
        data = decode_base64(text, what="it", limit=100)
    except FormatError:
        return
    assert encode_base64(data) == text
