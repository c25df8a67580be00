# SPDX-License-Identifier: Apache-2.0
"""F8: crashes before the signature is checked (GHSA-846p-jg2w-w324, CVE-2025-1975): any bytes are a value or one of
our errors, and what is read is written as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pq_registry.errors import PqregError
from pq_registry.format import pickle_opcodes
from pq_registry.format.bundle import encode_bundle, envelope_from_bundles, parse_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.executables import refusal
from pq_registry.format.hexid import parse_identity_id, parse_release_id
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Reference, RepositoryName, Tag
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import bind
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.statement import ReleaseStatement, predicate_type
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import WEIGHTS, documents, envelope, tag_statement, trust_file
from tests.strategies import ALPHABET, paths

PAYLOAD, MANIFEST = documents()
BUNDLE = encode_bundle(envelope(PAYLOAD), "ec", b"key")
STATEMENT = ReleaseStatement.parse(PAYLOAD)
ROUND_TRIP: dict[str, tuple[Any, bytes]] = {
    "envelope": (Envelope, envelope(PAYLOAD).encode()),
    "release": (ReleaseStatement, PAYLOAD),
    "tag": (TagStatement, tag_statement().encode()),
    "manifest": (Manifest, MANIFEST),
}


def _safetensors(data: bytes) -> object:
    return parse_header(data[: header_size(data[:8], len(data))], len(data))


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    **{name: (kind.parse, data) for name, (kind, data) in ROUND_TRIP.items()},
    "trust": (TrustFile.parse, trust_file().encode()),
    "kind": (predicate_type, PAYLOAD),
    "bundle": (parse_bundle, BUNDLE),
    "bundles": (lambda data: envelope_from_bundles(data, BUNDLE), BUNDLE),
    "foreign bundle": (parse_foreign_bundle, BUNDLE),
    "foreign statement": (ForeignStatement.parse, PAYLOAD),
    "bind": (lambda data: bind(STATEMENT, Digest.of(PAYLOAD), data), MANIFEST),
    "safetensors": (_safetensors, WEIGHTS),
}
TEXTS: dict[str, Callable[[str], object]] = {
    "digest": Digest.parse,
    "bare digest": Digest,
    "repository": RepositoryName.parse,
    "reference": Reference.parse,
    "tag": Tag,
    "path": ReleasePath,
    "instant": parse_instant,
    "identity": parse_identity_id,
    "release id": parse_release_id,
}


def value_or_error(parse: Callable[[Any], object], data: Any) -> object | None:
    """Anything but one of our errors fails the test by escaping."""
    try:
        return parse(data)
    except PqregError as error:
        assert error.message
        assert str(error)
        return None


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300))
def test_random_bytes(name: str, data: bytes) -> None:
    value_or_error(PARSERS[name][0], data)


pieces = st.sampled_from(
    [b"", b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"-1", b"0", b"1e9", b"9" * 20, b'"a"',
     b"\\u0000", b"\\ud800", b"\xff", b"\0", b"../", b"sha256:", b"AAAA", b"=", b"[" * 50, b'{"":' * 50, b"A" * 500]
)  # fmt: skip


@st.composite
def bent(draw: st.DrawFn, data: bytes) -> bytes:
    """A genuine document with some of its bytes changed, moved, removed or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        other = draw(st.integers(0, len(data)))
        middle = draw(pieces | st.just(data[start:end] * 2) | st.just(data[other : other + 40]) | st.binary(max_size=3))
        data = data[:start] + middle + data[end:]
    return data


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150)
@given(draw=st.data())
def test_bent_documents(name: str, draw: st.DataObject) -> None:
    parse, data = PARSERS[name]
    value_or_error(parse, draw.draw(bent(data)))


@pytest.mark.parametrize("name", ROUND_TRIP)
@settings(max_examples=150)
@given(draw=st.data())
def test_what_is_read_is_written_as_it_was(name: str, draw: st.DataObject) -> None:
    kind, data = ROUND_TRIP[name]
    changed = draw.draw(bent(data))
    value = value_or_error(kind.parse, changed)
    assert value is None or value.encode() == changed  # type: ignore[attr-defined]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(ALPHABET, max_size=5) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(ALPHABET, max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def regrown(draw: st.DrawFn, data: bytes) -> bytes:
    """A genuine document in which one member, at any depth, became any JSON value; written canonically."""
    document = json.loads(data)
    parent: Any = document
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = draw(st.sampled_from(keys))
        if not isinstance(parent[key], dict | list) or not parent[key] or draw(st.booleans()):
            parent[key] = draw(json_values)
            return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        parent = parent[key]


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "safetensors"])
@settings(max_examples=150)
@given(draw=st.data())
def test_documents_with_a_foreign_member(name: str, draw: st.DataObject) -> None:
    parse, data = PARSERS[name]
    value_or_error(parse, draw.draw(regrown(data)))


@pytest.mark.parametrize("name", TEXTS)
@given(text=st.text(max_size=80) | st.text("0123456789abcdefABCDEF:/@.-TZ", max_size=80))
def test_random_text(name: str, text: str) -> None:
    value = value_or_error(TEXTS[name], text)
    if value is not None and name not in ("bare digest", "reference", "instant"):
        assert str(value) == text
    if name == "instant" and value is not None:
        assert format_instant(value) == text  # type: ignore[arg-type]


@given(paths, st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"c__main__\nx\n(" + tail))
def test_any_file_is_published_or_refused_with_a_reason(path: ReleasePath, head: bytes) -> None:
    reason = refusal(path, head)
    assert reason is None or reason.startswith("is ")
    pickle_opcodes.is_pickle(head)
