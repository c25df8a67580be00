# SPDX-License-Identifier: Apache-2.0
"""Every value that can be made is written in one way and read back as itself."""

from __future__ import annotations

import json

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from pq_registry.format.bundle import encode_bundle, envelope_from_bundles
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.manifest import Manifest, TensorTable
from pq_registry.format.oms import ForeignStatement
from pq_registry.format.release import bind, statement_of
from pq_registry.format.safetensors import encode_header, parse_header
from pq_registry.format.statement import ReleaseStatement
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests import strategies


@given(strategies.envelopes)
def test_envelopes(envelope: Envelope) -> None:
    data = envelope.encode()
    assert Envelope.parse(data) == envelope
    assert Envelope.parse(data).encode() == data == rfc8785.dumps(json.loads(data))


@given(strategies.envelopes, st.binary(max_size=20))
def test_bundles(envelope: Envelope, key: bytes) -> None:
    assert envelope_from_bundles(encode_bundle(envelope, "ec", key), encode_bundle(envelope, "pq", key)) == envelope


@given(strategies.manifests)
def test_manifests_and_the_statements_that_bind_them(manifest: Manifest) -> None:
    data = manifest.encode()
    assert Manifest.parse(data) == manifest
    assert Manifest.parse(data).encode() == data == rfc8785.dumps(json.loads(data))
    statement = statement_of(manifest, data)
    payload = statement.encode()
    assert ReleaseStatement.parse(payload) == statement
    assert ReleaseStatement.parse(payload).encode() == payload == rfc8785.dumps(json.loads(payload))
    assert bind(statement, Digest.of(payload), data) == manifest
    assert ForeignStatement.parse(payload).model_name == statement.model_name


@given(strategies.tensor_tables())
def test_tensor_tables(table: TensorTable) -> None:
    assert TensorTable.from_value(json.loads(json.dumps(table.to_value())), "x") == table
    header = encode_header(table)
    found = parse_header(header, len(header) + table.data_size)
    assert (found.metadata, found.tensors) == (table.metadata, table.tensors)
    assert len(header) >= table.header_size


@given(strategies.tag_statements())
def test_tag_statements(statement: TagStatement) -> None:
    payload = statement.encode()
    assert TagStatement.parse(payload) == statement
    assert TagStatement.parse(payload).encode() == payload == rfc8785.dumps(json.loads(payload))


@given(strategies.trust_files())
def test_trust_files(trust: TrustFile) -> None:
    data = trust.encode()
    assert TrustFile.parse(data) == trust
    assert TrustFile.parse(data).encode() == data


@given(strategies.instants)
def test_instants(instant) -> None:
    assert parse_instant(format_instant(instant)) == instant
    assert len(format_instant(instant)) == 20
