# SPDX-License-Identifier: Apache-2.0
"""C9: every count and size of a document at its limit, one below and one above.

Where the real limit would need hundreds of megabytes it is lowered for the test; what is tested is that the reader
asks the table of limits, and refuses at exactly the right place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, PqregError, SignatureInvalid
from pq_registry.format.bundle import encode_bundle, parse_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest, TensorEntry, TensorTable, shard_count
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.oms import ForeignStatement, parse_foreign_bundle
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.safetensors import header_size, parse_header
from pq_registry.format.statement import ReleaseStatement, Resource
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import TrustFile
from tests.format_samples import (
    ALICE,
    BOB,
    changed,
    documents,
    envelope,
    file_entry,
    identity,
    manifest,
    namespace_trust,
    put,
    safetensors,
    tag_statement,
    tensor,
    trust_file,
)

PAYLOAD, MANIFEST = documents()
BUNDLE = encode_bundle(envelope(PAYLOAD), "ec", b"key")

SIZES: dict[str, tuple[str, Callable[[bytes], object], bytes]] = {
    "envelope": ("ENVELOPE_BYTES", Envelope.parse, envelope(PAYLOAD).encode()),
    "payload of an envelope": ("STATEMENT_BYTES", Envelope.parse, envelope(PAYLOAD).encode()),
    "bundle": ("ENVELOPE_BYTES", parse_bundle, BUNDLE),
    "foreign bundle": ("ENVELOPE_BYTES", parse_foreign_bundle, BUNDLE),
    "release statement": ("STATEMENT_BYTES", ReleaseStatement.parse, PAYLOAD),
    "foreign statement": ("STATEMENT_BYTES", ForeignStatement.parse, PAYLOAD),
    "tag statement": ("TAG_STATEMENT_BYTES", TagStatement.parse, tag_statement().encode()),
    "manifest": ("MANIFEST_BYTES", Manifest.parse, MANIFEST),
    "trust file": ("TRUST_FILE_BYTES", TrustFile.parse, trust_file().encode()),
}


@pytest.mark.parametrize("name", SIZES)
def test_bytes_of_a_document(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, parse, data = SIZES[name]
    size = len(PAYLOAD) if name == "payload of an envelope" else len(data)
    for allowed in (size + 1, size):
        monkeypatch.setattr(limits, limit, allowed)
        parse(data)
    monkeypatch.setattr(limits, limit, size - 1)
    with pytest.raises(FormatError):
        parse(data)


def test_a_document_that_is_too_large_is_not_even_decoded() -> None:
    with pytest.raises(FormatError, match="too large"):
        TagStatement.parse(b"\xff" * (limits.TAG_STATEMENT_BYTES + 1))


def refused_above(count: int, limit: int, error: type[PqregError] = FormatError) -> Any:
    return pytest.raises(error) if count > limit else nullcontext()


around = pytest.mark.parametrize("more", [-1, 0, 1])


@around
def test_signatures(more: int) -> None:
    entry = {"keyid": "", "sig": "AQ=="}
    data = changed(envelope().encode(), put("signatures", value=[entry] * (limits.DSSE_SIGNATURES + more)))
    with nullcontext() if more == 0 else pytest.raises(SignatureInvalid):
        Envelope.parse(data)


@around
def test_bytes_of_a_signature(more: int) -> None:
    size = limits.SIGNATURE_BYTES + more
    with refused_above(size, limits.SIGNATURE_BYTES):
        Envelope(b"{}", b"\x01", bytes(size))
    with refused_above(size, limits.SIGNATURE_BYTES):
        Envelope(b"{}", bytes(size), b"\x01")


@around
def test_files(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = manifest(files=tuple(file_entry(f"file-{index:02d}") for index in range(20)))
    payload, data = documents(made)
    monkeypatch.setattr(limits, "FILES", 20 - more)
    with refused_above(20, limits.FILES):
        Manifest.parse(data)
    with refused_above(20, limits.FILES):
        ReleaseStatement.parse(payload)  # the manifest itself is one more, and allowed for
    with refused_above(20, limits.FILES):
        manifest(files=made.files)
    with refused_above(20, limits.FILES):
        statement_of(made, data)
    with refused_above(20, limits.FILES):
        ForeignStatement.parse(payload)


def test_no_files() -> None:
    with pytest.raises(FormatError):
        ReleaseStatement("x", ())
    with pytest.raises(FormatError):
        manifest(files=())
    ReleaseStatement("x", (Resource(ReleasePath("a"), Digest("00" * 32)),))


@around
def test_bytes_of_a_file(more: int) -> None:
    size = limits.FILE_BYTES + more
    shards = b"\0" * 32 * shard_count(size)
    with refused_above(size, limits.FILE_BYTES):
        FileEntry(ReleasePath("x"), size, Digest("00" * 32), shards)


def test_shards_of_a_file() -> None:
    for size, count in ((limits.SHARD_BYTES - 1, 1), (limits.SHARD_BYTES, 1), (limits.SHARD_BYTES + 1, 2)):
        FileEntry(ReleasePath("x"), size, Digest("00" * 32), bytes(32 * count))
        for wrong in (count - 1, count + 1):
            with pytest.raises(FormatError):
                FileEntry(ReleasePath("x"), size, Digest("00" * 32), bytes(32 * wrong))
        with pytest.raises(FormatError):
            FileEntry(ReleasePath("x"), size, Digest("00" * 32), bytes(32 * count - 1))


@around
def test_lineage(more: int) -> None:
    count = limits.LINEAGE + more
    bases = tuple(BaseRelease(RepositoryName.parse("a/b"), Digest(f"{index:064x}")) for index in range(count))
    with refused_above(count, limits.LINEAGE):
        manifest(lineage=bases)
    value = [{"name": "a/b", "release": f"sha256:{index:064x}"} for index in range(count)]
    with refused_above(count, limits.LINEAGE):
        Manifest.parse(changed(MANIFEST, put("lineage", value=value)))


@around
def test_characters_of_a_license(more: int) -> None:
    count = limits.LICENSE_CHARS + more
    with refused_above(count, limits.LICENSE_CHARS):
        Manifest.parse(changed(MANIFEST, put("license", value="x" * count)))


@around
def test_bytes_of_a_path(more: int) -> None:
    size = limits.PATH_BYTES + more
    text = ("a" * 200 + "/") * 5 + "b" * (size - 1005)
    assert len(text) == size
    with refused_above(size, limits.PATH_BYTES):
        ReleasePath(text)


@around
def test_bytes_of_a_path_component(more: int) -> None:
    size = limits.PATH_COMPONENT_BYTES + more
    with refused_above(size, limits.PATH_COMPONENT_BYTES):
        ReleasePath("x/" + "a" * size)


@around
def test_characters_of_names(more: int) -> None:
    with refused_above(96 + more, 96, NameSyntaxError):
        Namespace("a" * (96 + more))
    with refused_above(128 + more, 128, NameSyntaxError):
        Tag("v" * (128 + more))


def table(count: int = 1, *, name: str = "x", rank: int = 1, metadata: int = 0) -> TensorTable:
    pairs = tuple((f"{index:06d}", "") for index in range(metadata))
    entries = tuple(
        TensorEntry(f"{name}{index}" if count > 1 else name, "U8", (0,) * rank, 0, 0) for index in range(count)
    )
    return TensorTable(100, pairs, tuple(sorted(entries, key=lambda entry: entry.name)))


def header(tensors: dict[str, Any]) -> TensorTable:
    content = safetensors(tensors)
    return parse_header(content[: header_size(content[:8], len(content))], len(content))


@around
def test_tensors(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENSORS", 5 - more)
    with refused_above(5, limits.TENSORS):
        table(5)
    with refused_above(5, limits.TENSORS):
        header({f"x{index}": tensor("U8", [0], 0, 0) for index in range(5)})


@around
def test_dimensions_of_a_tensor(more: int) -> None:
    rank = limits.TENSOR_RANK + more
    with refused_above(rank, limits.TENSOR_RANK):
        table(rank=rank)
    with refused_above(rank, limits.TENSOR_RANK):
        header({"x": tensor("U8", [0] * rank, 0, 0)})


@around
def test_bytes_of_a_tensor_name(more: int) -> None:
    size = limits.TENSOR_NAME_BYTES + more
    for name in ("x" * size, "é" * ((size - 1) // 2) + "x" * (size - (size - 1) // 2 * 2)):
        assert len(name.encode()) == size
        with refused_above(size, limits.TENSOR_NAME_BYTES):
            table(name=name)
        with refused_above(size, limits.TENSOR_NAME_BYTES):
            header({name: tensor("U8", [0], 0, 0)})


@around
def test_metadata(more: int) -> None:
    count = limits.SAFETENSORS_METADATA + more
    with refused_above(count, limits.SAFETENSORS_METADATA):
        table(metadata=count)
    with refused_above(count, limits.SAFETENSORS_METADATA):
        header({"__metadata__": {str(index): "" for index in range(count)}})


@around
def test_bytes_of_a_header(more: int) -> None:
    size = limits.SAFETENSORS_HEADER_BYTES + more
    with refused_above(size, limits.SAFETENSORS_HEADER_BYTES):
        assert header_size(size.to_bytes(8, "little"), 10**9) == size + 8


@around
def test_bytes_of_a_tensor(more: int) -> None:
    size = limits.FILE_BYTES + more
    with refused_above(size, limits.FILE_BYTES):
        TensorTable(100, (), (TensorEntry("x", "U8", (size,), 0, size),))


@around
def test_namespaces(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {name: namespace_trust(namespace=Namespace(name)) for name in "abcde"}
    data = trust_file(namespaces=many).encode()
    monkeypatch.setattr(limits, "NAMESPACES", 5 - more)
    with refused_above(5, limits.NAMESPACES):
        TrustFile.parse(data)
    with refused_above(5, limits.NAMESPACES):
        trust_file(namespaces=many)


@around
def test_identities_of_a_namespace(more: int) -> None:
    count = limits.IDENTITIES_PER_NAMESPACE + more
    many = (identity(ALICE), identity(BOB), *(identity(f"{index:064x}") for index in range(count - 2)))
    with refused_above(count, limits.IDENTITIES_PER_NAMESPACE):
        TrustFile.parse(trust_file(namespaces={"acme": namespace_trust(identities=many)}).encode())


@around
def test_pinned_digests(more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = trust_file(namespaces={"acme": namespace_trust(pinned={Digest(f"{i:064x}") for i in range(5)})}).encode()
    monkeypatch.setattr(limits, "PINNED_DIGESTS", 5 - more)
    with refused_above(5, limits.PINNED_DIGESTS):
        TrustFile.parse(data)


@around
def test_characters_of_a_public_key(more: int) -> None:
    size = limits.IDENTITY_FILE_BYTES + more
    with refused_above(size, limits.IDENTITY_FILE_BYTES):
        TrustFile.parse(
            changed(trust_file().encode(), put("namespaces", "acme", "identities", 0, "public", value="x" * size))
        )


@around
def test_sequence_of_a_tag(more: int) -> None:
    for number in (limits.JSON_INTEGER + more, 2 + more):
        legal = 2 <= number <= limits.JSON_INTEGER  # 1 is the first statement's, which has no previous one
        with nullcontext() if legal else pytest.raises(FormatError):
            TagStatement.parse(tag_statement().encode().replace(b'"sequence":2', b'"sequence":%d' % number))
