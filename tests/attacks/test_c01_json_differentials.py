# SPDX-License-Identifier: Apache-2.0
"""C1: JSON texts that two parsers read differently (in-toto/specification #74). One error class for all of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.bundle import encode_bundle, parse_bundle
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import Manifest
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.statement import ReleaseStatement, predicate_type
from pq_registry.format.strict_json import parse_strict
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import documents, envelope, manifest, tag_statement, trust_file

PAYLOAD, MANIFEST = documents()
PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "envelope": (Envelope.parse, envelope(PAYLOAD).encode()),
    "bundle": (parse_bundle, encode_bundle(envelope(PAYLOAD), "ec", b"key")),
    "release": (ReleaseStatement.parse, PAYLOAD),
    "kind": (predicate_type, PAYLOAD),
    "tag": (TagStatement.parse, tag_statement().encode()),
    "manifest": (Manifest.parse, MANIFEST),
    "trust": (TrustFile.parse, trust_file().encode()),
    "foreign statement": (ForeignStatement.parse, PAYLOAD),
    "foreign bundle": (parse_foreign_bundle, encode_bundle(envelope(PAYLOAD), "ec", b"key")),
}
every_parser = pytest.mark.parametrize("name", PARSERS)

DIFFERENTIALS = {
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":1}',
    "nested duplicate": b'{"a":[{"b":1,"b":2}]}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "minus Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "1e0": b'{"a":1e0}',
    "1.0": b'{"a":1.0}',
    "minus zero": b'{"a":-0}',
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "hex": b'{"a":0x1}',
    "2^53": b'{"a":9007199254740992}',
    "minus 2^53": b'{"a":-9007199254740992}',
    "a million digits": b'{"a":' + b"9" * 1_000_000 + b"}",
    "high surrogate": b'{"a":"\\ud800"}',
    "low surrogate": b'{"a":"\\udc00"}',
    "surrogate as key": b'{"\\ud800":1}',
    "surrogate in bytes": b'{"a":"\xed\xa0\x80"}',
    "overlong": b'{"a":"\xc0\xaf"}',
    "latin-1": b'{"a":"\xe4"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "depth 33": b"[" * 33 + b"]" * 33,
    "depth 10000": b"[" * 10_000 + b"]" * 10_000,
    "depth 10000 of objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "never closed": b"[" * 10_000,
    "trailing comma": b'{"a":1,}',
    "comment": b'{"a":1}//',
    "single quotes": b"{'a':1}",
    "control in text": b'{"a":"\n"}',
    "two documents": b"{}{}",
    "NUL": b"{}\0",
    "nothing": b"",
    "blank": b"  ",
}


@pytest.mark.parametrize("data", DIFFERENTIALS.values(), ids=DIFFERENTIALS.keys())
def test_what_parsers_disagree_about_is_one_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_strict(data, what="it", limit=limits.MANIFEST_BYTES)
    for parse, _ in PARSERS.values():
        with pytest.raises(FormatError):
            parse(data)


@pytest.mark.parametrize("data", [b"[" * 32 + b"]" * 32, b'{"a":9007199254740991}', b'{"a":"\\ud83d\\ude00"}'])
def test_the_neighbours_within_the_bounds_are_read(data: bytes) -> None:
    assert parse_strict(data, what="it", limit=100) == json.loads(data)


@every_parser
def test_the_genuine_document_is_read(name: str) -> None:
    parse, data = PARSERS[name]
    parse(data)


@every_parser
def test_an_injected_duplicate(name: str) -> None:
    """Each member of each object again, with the same value: whoever takes the first or the last reads the same."""
    parse, data = PARSERS[name]
    value = json.loads(data)
    for key, member in value.items():
        doubled = json.dumps({**value, "": member}).replace('"": ', json.dumps(key) + ": ").encode()
        assert json.loads(doubled) == value
        with pytest.raises(FormatError):
            parse(doubled)


@every_parser
def test_a_key_in_another_case_is_another_key(name: str) -> None:
    """Go's encoding/json matches keys without regard to case; here such a key is unknown, alone or besides."""
    parse, data = PARSERS[name]
    if parse is predicate_type:
        return  # it only chooses the parser, which then looks at every key
    value = json.loads(data)
    for key in value:
        instead = {other.upper() if other == key else other: member for other, member in value.items()}
        besides = {**value, key.upper(): None}
        for changed in (instead, besides):
            with pytest.raises(FormatError):
                parse(json.dumps(changed, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize("name", ["envelope", "bundle", "release", "tag", "manifest"])
def test_one_value_has_one_spelling(name: str) -> None:
    """Escapes, spaces and order: everything signed has exactly one form."""
    parse, data = PARSERS[name]
    value = json.loads(data)
    first = next(iter(value))
    spellings = [
        json.dumps(value, indent=2),
        json.dumps(value, separators=(",", ":"), sort_keys=True) + " ",
        json.dumps(dict(reversed(value.items())), separators=(",", ":")),
        data.decode().replace(f'"{first}"', f'"\\u{ord(first[0]):04x}{first[1:]}"', 1),
        data.decode().replace("/", "\\/"),
    ]
    for spelling in spellings:
        assert json.loads(spelling) == value
        with pytest.raises(FormatError):
            parse(spelling.encode())


def test_text_is_not_normalised() -> None:
    """NFC and NFD of one name are two byte strings; the second is refused, not converted."""
    data = manifest(license="Möglich").encode()
    decomposed = data.decode().replace("ö", "o\u0308").encode()
    assert Manifest.parse(decomposed).license == "Mo\u0308glich"  # free text is kept as it is
    assert Manifest.parse(decomposed).encode() == decomposed
