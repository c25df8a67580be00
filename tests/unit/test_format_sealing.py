# SPDX-License-Identifier: Apache-2.0
"""Sealed manifests and pqreg.inner: one form, whose parts fit together."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import FormatError, InnerMismatch, ManifestMismatch
from pq_registry.format.bundle import encode_bundle, parse_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.inner import Inner, bind_inner, plaintext_statement
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest, Sealing
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import bind
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, plaintext_size, sealed_size, stored_path
from pq_registry.format.statement import ReleaseStatement
from tests.format_samples import changed, drop, each, file_entry, put
from tests.sealing_samples import Sealed, seal

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/spec/pqreg.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@cache
def sealed() -> Sealed:
    return seal()


def test_a_sealed_manifest_comes_back_and_fits_the_schema() -> None:
    data = sealed().manifest_bytes
    parsed = Manifest.parse(data)
    assert parsed == sealed().manifest
    assert parsed.encode() == data
    VALIDATOR.validate(json.loads(data))
    value = json.loads(data)
    assert set(value["sealing"]) == {"commitment", "inner_sha256"}
    assert [entry["path"] for entry in value["files"]] == [INNER_NAME, "sealed/00000", "sealed/00001", "sealed/00002"]
    assert (value["lineage"], value["license"]) == ([], None)
    assert parsed.inner == parsed.files[0]
    assert parsed.sealed_files == parsed.files[1:]
    assert bind(ReleaseStatement.parse(sealed().payload), sealed().release, data) == parsed


def test_nothing_of_the_plaintext_is_in_the_open() -> None:
    data = sealed().manifest_bytes + sealed().payload
    for word in (b"config", b"weights", b"empty", b"safetensors"):
        assert word not in data


@each(
    put("sealing", value={}),
    put("sealing", value=False),
    put("sealing", value="AES-256-GCM"),
    drop("sealing", "commitment"),
    drop("sealing", "inner_sha256"),
    put("sealing", "cipher", value="AES-256-GCM"),
    put("sealing", "commitment", value=""),
    put("sealing", "commitment", value="AA=="),
    put("sealing", "commitment", value="A" * 42 + "B="),
    put("sealing", "commitment", value=None),
    put("sealing", "inner_sha256", value="00" * 32),
    put("license", value="MIT"),
    put("lineage", value=[{"name": "acme/base", "release": "sha256:" + "00" * 32}]),
    put("files", 0, "path", value="pqreg.inneR"),
    put("files", 0, "size", value=0),
    put("files", 1, "path", value="sealed/0"),
    put("files", 1, "path", value="config.json"),
    put("files", 1, "tensors", value={"entries": [], "header_size": 10, "metadata": []}),
    lambda document: document["files"].pop(0),
    lambda document: document["files"].__delitem__(slice(1, None)),
)
def test_parser_and_schema_refuse_the_same_shapes(change) -> None:
    data = changed(sealed().manifest_bytes, change)
    assert not VALIDATOR.is_valid(json.loads(data))
    with pytest.raises(FormatError):
        Manifest.parse(data)


@each(
    put("sealing", value=None),
    lambda document: document["files"].pop(1),
    lambda document: document["files"].pop(2),
    lambda document: document["files"].reverse(),
    lambda document: document["files"].append(document["files"][-1]),
    put("files", 3, "path", value="sealed/00003"),
    put("files", 1, "size", value=16),
    put("files", 1, "size", value=15),
    put("files", 3, "size", value=2 * SLICE_BYTES + 16),
    put("files", 3, "size", value=3 * SLICE_BYTES + 17),
    put("files", 1, "shards", value=""),
)
def test_what_no_schema_can_say_the_parser_does(change) -> None:
    with pytest.raises(FormatError):
        Manifest.parse(changed(sealed().manifest_bytes, change))


def test_a_plain_release_holds_no_pqreg_inner() -> None:
    with pytest.raises(FormatError):
        replace(sealed().manifest, sealing=None)


def test_a_plain_manifest_is_not_read_as_sealed() -> None:
    entry = sealed().manifest.files[3]
    assert (entry.slice_size, entry.shard_count) == (SLICE_BYTES, 3)
    assert [entry.shard_range(index) for index in range(3)] == [
        (0, SLICE_BYTES), (SLICE_BYTES, SLICE_BYTES), (2 * SLICE_BYTES, 77 + 16),
    ]  # fmt: skip
    assert [entry.plaintext_range(index) for index in range(3)] == [
        (0, limits.SHARD_BYTES), (limits.SHARD_BYTES, limits.SHARD_BYTES), (2 * limits.SHARD_BYTES, 77),
    ]  # fmt: skip
    plain = file_entry("x", b"abc")
    assert (plain.slice_size, plain.plaintext_size, plain.plaintext_range(0)) == (limits.SHARD_BYTES, 3, (0, 3))


@pytest.mark.parametrize(
    ("size", "stored"),
    [(0, 0), (1, 17), (limits.SHARD_BYTES, SLICE_BYTES), (limits.SHARD_BYTES + 1, SLICE_BYTES + 17),
     (2 * limits.SHARD_BYTES, 2 * SLICE_BYTES)],
)  # fmt: skip
def test_sizes(size: int, stored: int) -> None:
    assert sealed_size(size) == stored
    assert plaintext_size(stored) == size


@pytest.mark.parametrize("stored", [-1, 1, 15, 16, SLICE_BYTES + 1, SLICE_BYTES + 16, 5 * SLICE_BYTES + 16])
def test_sizes_no_sealed_file_has(stored: int) -> None:
    with pytest.raises(FormatError):
        plaintext_size(stored)
    with pytest.raises(FormatError):
        FileEntry(ReleasePath("sealed/00000"), max(stored, 1), Digest("00" * 32), bytes(32), sealed=True)


@given(st.integers(0, limits.FILE_BYTES))
def test_sizes_come_back(size: int) -> None:
    assert plaintext_size(sealed_size(size)) == size


@given(st.integers(0, limits.FILE_BYTES))
def test_a_stored_size_has_at_most_one_plaintext_size(stored: int) -> None:
    try:
        size = plaintext_size(stored)
    except FormatError:
        assert 0 < stored % SLICE_BYTES <= limits.SEAL_TAG_BYTES
    else:
        assert sealed_size(size) == stored


def test_stored_names_have_five_digits_and_an_end() -> None:
    assert stored_path(0).text == "sealed/00000"
    assert stored_path(limits.SEALED_FILES - 1).text == "sealed/99998"
    for index in (-1, limits.SEALED_FILES):
        with pytest.raises(FormatError):
            stored_path(index)


def test_the_inner_document_comes_back() -> None:
    inner = replace(
        sealed().inner,
        license="LicenseRef-Secret",
        lineage=(BaseRelease(RepositoryName.parse("acme/base"), Digest("00" * 32)),),
    )
    data = inner.encode()
    assert Inner.parse(data) == inner
    assert set(json.loads(data)) == {"blind", "files", "license", "lineage", "oms", "schema"}
    assert inner.oms_statement.model_name == "secret"


@each(
    put("schema", value="urn:pq-registry:manifest:v1"),
    put("note", value=1),
    drop("blind"),
    put("blind", value=""),
    put("blind", value="AA=="),
    put("files", value=[]),
    lambda document: document["files"].reverse(),
    put("files", 0, "path", value="pqreg.json"),
    put("files", 0, "path", value="pqreg.inner"),
    put("files", 0, "path", value=".git/config"),
    put("files", 0, "path", value="../config.json"),
    put("files", 0, "path", value="another.json"),
    put("files", 0, "sha256", value="sha256:" + "00" * 32),
    lambda document: document["files"].pop(),
    put("oms", value=None),
    put("oms", value={}),
    put("oms", "mediaType", value="application/json"),
    put("oms", "dsseEnvelope", "payload", value="e30="),
    put("license", value=""),
)
def test_other_inner_documents_are_refused(change) -> None:
    data = changed(sealed().inner.encode(), change)
    with pytest.raises(FormatError):
        Inner.parse(data)


def test_only_canonical_bytes_are_an_inner_document() -> None:
    data = sealed().inner.encode()
    for other in (data + b"\n", json.dumps(json.loads(data)).encode(), b"", b"[]"):
        with pytest.raises(FormatError):
            Inner.parse(other)


def test_the_committed_inner_document_is_bound() -> None:
    assert bind_inner(sealed().manifest, sealed().inner.encode()) == sealed().inner


def committed(inner: Inner) -> Manifest:
    """The manifest with a commitment to another inner document."""
    sealing = sealed().manifest.sealing
    assert sealing is not None
    return replace(sealed().manifest, sealing=Sealing(sealing.commitment, Digest.of(inner.encode())))


def with_files(files: tuple[FileEntry, ...], model: str = "acme/secret") -> Inner:
    payload = plaintext_statement(RepositoryName.parse(model), files).encode()
    return replace(sealed().inner, files=files, oms=encode_bundle(Envelope(payload, b"0", b"0"), "ec", b""))


def test_another_inner_document_is_refused_before_it_is_parsed() -> None:
    for other in (b"", b"not json", replace(sealed().inner, blind=bytes(32)).encode()):
        with pytest.raises(InnerMismatch):
            bind_inner(sealed().manifest, other)


def test_an_inner_document_of_other_files_is_refused() -> None:
    files = sealed().inner.files
    for inner in (
        with_files(files[:2]),
        with_files((*files, file_entry("z"))),
        with_files((replace(files[0], size=files[0].size + 1), *files[1:])),
        with_files(files, model="acme/other"),
    ):
        with pytest.raises(InnerMismatch):
            bind_inner(committed(inner), inner.encode())


def test_the_bundle_inside_is_no_release() -> None:
    half = parse_bundle(sealed().inner.oms)
    statement = ReleaseStatement.parse(half.payload)
    with pytest.raises(ManifestMismatch, match=r"has no pqreg\.json"):
        bind(statement, Digest.of(half.payload), sealed().manifest_bytes)
