# SPDX-License-Identifier: Apache-2.0
"""Well-formed documents without keys: the signatures are any bytes, the digests are of nothing in particular."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import blake3
import pytest
import rfc8785

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import BaseRelease, FileEntry, Manifest
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.path import ReleasePath
from pq_registry.format.release import statement_of
from pq_registry.format.safetensors import parse_header
from pq_registry.format.tag import TagStatement
from pq_registry.format.trustfile import NamespaceTrust, TrustedIdentity, TrustFile

ALICE = "a1" * 32
BOB = "b0" * 32
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


def safetensors(
    tensors: dict[str, Any] | str, data: bytes = b"", *, length: int | None = None, pad: bytes = b""
) -> bytes:
    """A safetensors file: header (a value, or its text as it stands), data, and a length field that may lie."""
    text = tensors if isinstance(tensors, str) else json.dumps(tensors, separators=(",", ":"))
    header = text.encode("utf-8", "surrogatepass") + pad
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def tensor(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    """A tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS = safetensors(
    {
        "__metadata__": {"format": "pt"},
        "b": tensor("F32", [2, 2], 0, 16),
        "a": tensor("BF16", [3], 16, 22),
        "nothing": tensor("I64", [0, 4], 16, 16),
    },
    bytes(range(22)),
)


def file_entry(path: str, content: bytes = b"") -> FileEntry:
    """The manifest's entry of a file with this content."""
    table = None
    if path.endswith(".safetensors"):
        size = 8 + int.from_bytes(content[:8], "little")
        table = parse_header(content[:size], len(content))
    shards = b"".join(
        blake3.blake3(content[start : start + limits.SHARD_BYTES]).digest()
        for start in range(0, len(content), limits.SHARD_BYTES)
    )
    return FileEntry(ReleasePath(path), len(content), Digest.of(content), shards, table)


def manifest(**fields: Any) -> Manifest:
    """A manifest with something in every field."""
    whole = Manifest(
        name=RepositoryName.parse("acme/minilm"),
        signer=ALICE,
        release_id="00112233445566778899aabbccddeeff",
        created=NOW,
        files=(
            file_entry("1_Pooling/config.json", b"{}\n"),
            file_entry("config.json", b'{"hidden_size":384}\n'),
            file_entry("empty"),
            file_entry("model.safetensors", WEIGHTS),
        ),
        lineage=(BaseRelease(RepositoryName.parse("acme/base"), Digest("5e" * 32)),),
        license="Apache-2.0",
    )
    return replace(whole, **fields)


def documents(made: Manifest | None = None) -> tuple[bytes, bytes]:
    """Payload of the release statement, and the manifest's bytes."""
    made = made or manifest()
    data = made.encode()
    return statement_of(made, data).encode(), data


def tag_statement(**fields: Any) -> TagStatement:
    """A tag's second statement."""
    whole = TagStatement(
        repository=RepositoryName.parse("acme/minilm"),
        tag=Tag("v1"),
        signer=ALICE,
        sequence=2,
        previous=Digest("11" * 32),
        target=Digest("22" * 32),
        issued=NOW,
        expires=NOW + YEAR,
    )
    return replace(whole, **fields)


def envelope(payload: bytes = b"{}") -> Envelope:
    """An envelope whose signatures are of the right lengths and of nothing."""
    return Envelope(payload, b"\x30" + bytes(103), bytes(range(256)) * 18 + bytes(19))


def identity(id_: str = ALICE, **fields: Any) -> TrustedIdentity:
    """A trust file's entry of an identity; its key is no key."""
    return TrustedIdentity(id_, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", **fields)


def namespace_trust(**fields: Any) -> NamespaceTrust:
    """Something in every field."""
    whole = NamespaceTrust(
        namespace=Namespace("acme"),
        identities=(identity(not_before=NOW, not_after=NOW + YEAR), identity(BOB)),
        publishers=(ALICE,),
        min_profile=5,
        pinned=frozenset({Digest("33" * 32), Digest("22" * 32)}),
        revokers=(BOB,),
    )
    return replace(whole, **fields)


def trust_file(**fields: Any) -> TrustFile:
    """Something in every field."""
    whole = TrustFile(
        version=7,
        created=NOW,
        expires=NOW + YEAR,
        namespaces={"acme": namespace_trust()},
        grace_days=14,
        offline_status="require",
    )
    return replace(whole, **fields)


@dataclass(frozen=True)
class Edit:
    """A change of one member of a document; an absent value removes it."""

    keys: tuple[str | int, ...]
    value: Any

    def __call__(self, document: Any) -> None:
        for key in self.keys[:-1]:
            document = document[key]
        if self.value is _ABSENT:
            del document[self.keys[-1]]
        else:
            document[self.keys[-1]] = self.value

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.keys))}={'absent' if self.value is _ABSENT else repr(self.value)[:40]}"


_ABSENT = object()
Change = Callable[[Any], object]


def put(*keys: str | int, value: Any) -> Edit:
    """The change that sets the member at ``keys``."""
    return Edit(keys, value)


def drop(*keys: str | int) -> Edit:
    """The change that removes the member at ``keys``."""
    return Edit(keys, _ABSENT)


def changed(data: bytes, *changes: Change) -> bytes:
    """The canonical bytes of a document after ``changes`` have altered its value in place."""
    value = json.loads(data)
    for change in changes:
        change(value)
    return rfc8785.dumps(value)


def each(*changes: Change) -> pytest.MarkDecorator:
    """Run a test once for each of ``changes``."""
    # A function's repr holds its address, which differs between the workers of one run.
    names = [f"{index}-{change if isinstance(change, Edit) else 'function'}" for index, change in enumerate(changes)]
    return pytest.mark.parametrize("change", changes, ids=names)
