# SPDX-License-Identifier: Apache-2.0
"""pqreg.json: one form, whose parts fit together."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import jsonschema
import pytest
import rfc8785

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry, Manifest, TensorTable, is_reserved, shard_count
from pq_registry.format.path import ReleasePath
from tests.format_samples import Edit, changed, drop, each, file_entry, manifest, put

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/spec/pqreg.schema.json").read_text("utf-8"))
ENCODED = manifest().encode()
MODEL = 3  # the index of model.safetensors
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def fits_schema(data: bytes) -> bool:
    return VALIDATOR.is_valid(json.loads(data))


def test_a_manifest_comes_back() -> None:
    parsed = Manifest.parse(ENCODED)
    assert parsed == manifest()
    assert parsed.encode() == ENCODED
    assert parsed.total_size == sum(entry.size for entry in parsed.files)


def test_the_form_is_the_one_specified() -> None:
    # One zero byte: its BLAKE3 is a test vector of the BLAKE3 team.
    small = manifest(files=(file_entry("a", b"\x00"),), lineage=(), license=None)
    assert json.loads(small.encode()) == {
        "schema": "urn:pq-registry:manifest:v1",
        "name": "acme/minilm",
        "signer": "a1" * 32,
        "release_id": "00112233445566778899aabbccddeeff",
        "created": "2026-11-21T12:00:00Z",
        "shard_size": 2097152,
        "files": [
            {
                "path": "a",
                "size": 1,
                "sha256": "sha256:6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "shards": "LTre3/EbYfFMiG41r6A2c23Nh6dNJ7XBUQIl0PWS4hM=",
                "tensors": None,
            }
        ],
        "lineage": [],
        "license": None,
        "sealing": None,
    }


def test_the_schema_accepts_what_we_write() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(json.loads(ENCODED))
    VALIDATOR.validate(json.loads(manifest(lineage=(), license=None).encode()))


# What the parser refuses, and whether a JSON Schema can say so too.
SHAPES = (
    drop("schema"),
    drop("sealing"),
    drop("license"),
    drop("lineage"),
    drop("files"),
    drop("files", 0, "tensors"),
    drop("files", MODEL, "tensors", "header_size"),
    drop("files", MODEL, "tensors", "entries", 0, "dtype"),
    put("schema", value="urn:pq-registry:manifest:v2"),
    put("note", value=""),
    put("files", 0, "note", value=""),
    put("files", MODEL, "tensors", "note", value=""),
    put("files", MODEL, "tensors", "entries", 0, "note", value=""),
    put("lineage", 0, "note", value=""),
    put("name", value="acme"),
    put("name", value="acme/mini--lm"),
    put("name", value="acme/mini..lm"),
    put("name", value="acme/minilm:v1"),
    put("name", value=None),
    put("signer", value="A1" * 32),
    put("signer", value="a1" * 16),
    put("release_id", value="00" * 32),
    put("release_id", value=0),
    put("created", value="2026-11-21T12:00:00+00:00"),
    put("created", value="2026-11-21T12:00:00.5Z"),
    put("created", value="2026-11-21"),
    put("created", value=1795262400),
    put("shard_size", value=1048576),
    put("shard_size", value="2097152"),
    put("files", value=[]),
    put("files", value={}),
    put("files", 0, value="config.json"),
    put("files", 0, "path", value=""),
    put("files", 0, "path", value="a\\b"),
    put("files", 0, "size", value=-1),
    put("files", 0, "size", value=True),
    put("files", 0, "size", value="3"),
    put("files", 0, "size", value=limits.FILE_BYTES + 1),
    put("files", 0, "sha256", value="00" * 32),
    put("files", 0, "sha256", value="sha256:" + "AB" * 32),
    put("files", 0, "sha256", value="sha512:" + "00" * 32),
    put("files", 0, "shards", value="="),
    put("files", 0, "shards", value=[]),
    put("files", 0, "tensors", value=[]),
    put("files", MODEL, "tensors", "header_size", value=9),
    put("files", MODEL, "tensors", "header_size", value=True),
    put("files", MODEL, "tensors", "metadata", value={"format": "pt"}),
    put("files", MODEL, "tensors", "metadata", value=[["format"]]),
    put("files", MODEL, "tensors", "metadata", value=[["format", 1]]),
    put("files", MODEL, "tensors", "entries", value={}),
    put("files", MODEL, "tensors", "entries", 1, "dtype", value="F128"),
    put("files", MODEL, "tensors", "entries", 1, "dtype", value=None),
    put("files", MODEL, "tensors", "entries", 1, "shape", value=[-1]),
    put("files", MODEL, "tensors", "entries", 1, "shape", value=[True]),
    put("files", MODEL, "tensors", "entries", 1, "shape", value="[3]"),
    put("files", MODEL, "tensors", "entries", 1, "shape", value=[1] * 17),
    put("files", MODEL, "tensors", "entries", 1, "begin", value="0"),
    put("files", MODEL, "tensors", "entries", 1, "end", value=None),
    put("files", MODEL, "tensors", "entries", 1, "name", value=""),
    put("files", MODEL, "tensors", "entries", 1, "name", value="a\nb"),
    put("files", MODEL, "tensors", "entries", 1, "name", value="__metadata__"),
    put("files", MODEL, "tensors", "entries", 1, "name", value=7),
    put("lineage", value=None),
    put("lineage", 0, "release", value="5e" * 32),
    put("lineage", 0, "name", value="base"),
    put("license", value=""),
    put("license", value="M\nIT"),
    put("license", value="x" * (limits.LICENSE_CHARS + 1)),
    put("license", value=["MIT"]),
    put("sealing", value={}),
    put("sealing", value=False),
)


@each(*SHAPES)
def test_parser_and_schema_refuse_the_same_shapes(change: Edit) -> None:
    data = changed(ENCODED, change)
    assert not fits_schema(data)
    with pytest.raises(FormatError):
        Manifest.parse(data)


@each(
    lambda document: document["files"].reverse(),
    lambda document: document["files"].append(document["files"][-1]),
    put("files", 1, "path", value="1_Pooling"),
    put("files", 1, "path", value="Empty"),
    put("files", 1, "path", value="a/../b"),
    put("files", 1, "path", value=unicodedata.normalize("NFD", "möbel")),
    put("files", 1, "path", value="con.txt"),
    put("files", 1, "size", value=2097153),
    put("files", 2, "size", value=1),
    put("files", 1, "shards", value=""),
    put("files", 1, "shards", value="AAAA"),
    put("files", 1, "path", value="config.safetensors"),
    put("files", MODEL, "path", value="model.weights"),
    put("files", MODEL, "tensors", value=None),
    put("files", MODEL, "size", value=1000),
    put("files", MODEL, "tensors", "header_size", value=1000),
    put("files", MODEL, "tensors", "metadata", value=[["b", ""], ["a", ""]]),
    put("files", MODEL, "tensors", "metadata", value=[["a", ""], ["a", ""]]),
    put("files", MODEL, "tensors", "entries", value=[]),
    lambda document: document["files"][MODEL]["tensors"]["entries"].reverse(),
    put("files", MODEL, "tensors", "entries", 0, "name", value="a"),
    put("files", MODEL, "tensors", "entries", 0, "shape", value=[2, 3]),
    put("files", MODEL, "tensors", "entries", 0, "dtype", value="F16"),
    lambda document: document["lineage"].append(document["lineage"][0]),
    put("created", value="2026-02-30T12:00:00Z"),
)
def test_what_no_schema_can_say_the_parser_does(change) -> None:
    with pytest.raises(FormatError):
        Manifest.parse(changed(ENCODED, change))


@pytest.mark.parametrize(
    "path",
    [
        "pqreg.json",
        "PQREG.json",
        "pqreg.json/x",
        "pqreg.inner",
        "Pqreg.Inner",
        "model.sig",
        ".git/config",
        "Model.tlog-proof",
    ],
)
def test_reserved_places(path: str) -> None:
    assert is_reserved(ReleasePath(path))
    with pytest.raises(FormatError):
        manifest(files=(file_entry(path, b"x"),))


def test_reserved_places_are_found_under_full_case_folding() -> None:
    # U+017F folds to s, and NFC leaves it alone.
    assert is_reserved(ReleasePath(".gitattribute\u017f"))
    assert not is_reserved(ReleasePath("sub/pqreg.json"))


def test_only_canonical_bytes_are_a_manifest() -> None:
    value = json.loads(ENCODED)
    assert rfc8785.dumps(value) == ENCODED
    for other in (json.dumps(value, indent=2).encode(), ENCODED + b"\n", json.dumps(value).encode()):
        with pytest.raises(FormatError):
            Manifest.parse(other)


@pytest.mark.parametrize(
    ("size", "count", "last"),
    [(0, 0, None), (1, 1, 1), (2097151, 1, 2097151), (2097152, 1, 2097152), (2097153, 2, 1), (4194304, 2, 2097152)],
)
def test_shards_of_a_file(size: int, count: int, last: int | None) -> None:
    shards = b"".join(bytes([index]) * 32 for index in range(count))
    entry = FileEntry(ReleasePath("x"), size, Digest("00" * 32), shards)
    assert shard_count(size) == entry.shard_count == count
    assert [entry.shard_digest(index) for index in range(count)] == [bytes([index]) * 32 for index in range(count)]
    ranges = [entry.shard_range(index) for index in range(count)]
    assert sum(length for _, length in ranges) == size
    assert [offset for offset, _ in ranges] == [index * 2097152 for index in range(count)]
    if last is not None:
        assert ranges[-1][1] == last
    for outside in (-1, count):
        with pytest.raises(IndexError):
            entry.shard_digest(outside)
        with pytest.raises(IndexError):
            entry.shard_range(outside)


@pytest.mark.parametrize(
    "fields",
    [
        {"created": datetime(2026, 11, 21)},
        {"created": datetime(2026, 11, 21, microsecond=1, tzinfo=UTC)},
        {"created": datetime(2026, 11, 21, tzinfo=timezone(timedelta(hours=1)))},
        {"signer": "A1" * 32},
        {"release_id": "00" * 15},
        {"license": ""},
        {"files": ()},
        {"lineage": manifest().lineage * 2},
    ],
    ids=str,
)
def test_a_value_that_could_not_be_read_back_is_not_made(fields) -> None:
    with pytest.raises(FormatError):
        manifest(**fields)


def test_text_that_is_no_text_is_not_written() -> None:
    with pytest.raises(FormatError):
        manifest(license="\ud800").encode()


def test_a_year_below_1000_comes_back() -> None:
    early = manifest(created=datetime(26, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert Manifest.parse(early.encode()) == early


def test_a_table_belongs_to_safetensors_alone() -> None:
    entry = manifest().files[MODEL]
    assert isinstance(entry.tensors, TensorTable)
    with pytest.raises(FormatError, match="table"):
        replace(entry, tensors=None)
    with pytest.raises(FormatError, match="table"):
        replace(entry, path=ReleasePath("model.bin"))
    with pytest.raises(FormatError, match="table"):
        replace(manifest().files[0], path=ReleasePath("x.SafeTensors"))
    replace(manifest().files[0], path=ReleasePath("sub/.safetensors"))  # a hidden file, not a suffix
