# SPDX-License-Identifier: Apache-2.0
"""C2: one document that is two things (CVE-2021-41190): every parser against every document, and hybrids of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import rfc8785

from pq_registry.errors import FormatError, PqregError, SignatureInvalid, StatementMismatch
from pq_registry.format.bundle import encode_bundle, parse_bundle
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import Manifest
from pq_registry.format.statement import RELEASE_PREDICATE, TAG_PREDICATE, ReleaseStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import changed, documents, envelope, put, tag_statement, trust_file

PAYLOAD, MANIFEST = documents()
DOCUMENTS: dict[str, bytes] = {
    "envelope": envelope(PAYLOAD).encode(),
    "bundle": encode_bundle(envelope(PAYLOAD), "ec", b"key"),
    "release": PAYLOAD,
    "tag": tag_statement().encode(),
    "manifest": MANIFEST,
    "trust": trust_file().encode(),
}
PARSERS: dict[str, Callable[[bytes], object]] = {
    "envelope": Envelope.parse,
    "bundle": parse_bundle,
    "release": ReleaseStatement.parse,
    "tag": TagStatement.parse,
    "manifest": Manifest.parse,
    "trust": TrustFile.parse,
}
REFUSALS = (FormatError, StatementMismatch, SignatureInvalid)


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("parser", PARSERS)
def test_a_document_is_read_by_its_own_parser_alone(parser: str, document: str) -> None:
    if parser == document:
        PARSERS[parser](DOCUMENTS[document])
        return
    with pytest.raises(REFUSALS):
        PARSERS[parser](DOCUMENTS[document])


@pytest.mark.parametrize("one", DOCUMENTS)
@pytest.mark.parametrize("other", DOCUMENTS)
def test_two_shapes_in_one_document_are_neither(one: str, other: str) -> None:
    if one == other or {one, other} == {"release", "tag"}:
        return  # statements have the same members; their hybrids are below
    both = rfc8785.dumps({**json.loads(DOCUMENTS[other]), **json.loads(DOCUMENTS[one])})
    for parse in PARSERS.values():
        with pytest.raises(REFUSALS):
            parse(both)


def test_a_relabelled_statement_is_neither_kind() -> None:
    relabelled = changed(PAYLOAD, put("predicateType", value=TAG_PREDICATE))
    for parse in (ReleaseStatement.parse, TagStatement.parse):
        with pytest.raises(PqregError):
            parse(relabelled)
    relabelled = changed(DOCUMENTS["tag"], put("predicateType", value=RELEASE_PREDICATE))
    for parse in (ReleaseStatement.parse, TagStatement.parse):
        with pytest.raises(PqregError):
            parse(relabelled)


def test_a_predicate_with_both_shapes_is_neither_kind() -> None:
    both = {**json.loads(PAYLOAD)["predicate"], **json.loads(DOCUMENTS["tag"])["predicate"]}
    for document in (PAYLOAD, DOCUMENTS["tag"]):
        for parse in (ReleaseStatement.parse, TagStatement.parse):
            with pytest.raises(PqregError):
                parse(changed(document, put("predicate", value=both)))


def test_the_payload_type_is_the_declared_one() -> None:
    for kind in ("application/json", "application/vnd.dsse.envelope.v1+json", "application/vnd.in-toto+json;v=1", ""):
        with pytest.raises(FormatError):
            Envelope.parse(changed(DOCUMENTS["envelope"], put("payloadType", value=kind)))


@pytest.mark.parametrize("value", [None, True, 0, "x", [], [{}], {}], ids=json.dumps)
def test_every_member_of_every_document_has_one_type(value: object) -> None:
    """Each member in turn replaced by a value of each JSON type: accepted is its own type, and null where it may be."""
    nullable = {"license", "not_before", "not_after"}
    for name, data in DOCUMENTS.items():
        for path, original in _members(json.loads(data)):
            try:
                PARSERS[name](changed(data, put(*path, value=value)))
            except REFUSALS:
                continue
            assert type(value) is type(original) or (value is None and path[-1] in nullable), (name, path)


def _members(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], object]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(path, value)] if path else []
    for key, member in items:
        found += _members(member, (*path, key))
    return found
