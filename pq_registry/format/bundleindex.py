# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: ``bundle.json``, the same in every volume, and ``volume.json``, which numbers it.

Both are RFC 8785 JSON. The bundle's id is the SHA-256 of ``bundle.json``. Nothing in them is believed: they say what
comes next in a volume, so that anything else is refused, and which volumes there are, so that a missing one has a
number. What the documents are worth the trust file decides, and the shards are those of the signed manifest
(``client.bundle``).

A document is exact bytes: an envelope, a manifest, a receipt or a checkpoint. A segment is a run of whole shards of one
file, the file named by its SHA-256; the segments of all volumes together are every file once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, parse_instant
from pq_registry.format.name import RepositoryName
from pq_registry.format.strict_json import Fields, encode_canonical, parse_canonical

INDEX_NAME: Final = "bundle.json"
VOLUME_NAME: Final = "volume.json"
BUNDLE_SCHEMA: Final = "urn:pq-registry:bundle:v1"
VOLUME_SCHEMA: Final = "urn:pq-registry:bundle-volume:v1"

ENVELOPE: Final = "release/envelope"
MANIFEST: Final = "release/manifest"
RECEIPT: Final = "release/receipt"
CHECKPOINT: Final = "log/checkpoint"

_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_CHAINED = rf"(?:status|tags/{_TAG}|grants/[0-9a-f]{{64}})/[1-9][0-9]{{0,15}}/(?:envelope|receipt)"
_ROLE = re.compile(rf"release/(?:envelope|manifest|receipt)|log/checkpoint|{_CHAINED}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Document:
    """Exact bytes that every volume carries; ``role`` is what they are said to be."""

    role: str
    size: int
    sha256: Digest

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse. Raises FormatError."""
        if not _ROLE.fullmatch(self.role):
            raise FormatError("a bundle has no such document", expected="a known role", found=repr(self.role)[:120])
        if not 0 < self.size <= limits.BUNDLE_DOCUMENT_BYTES:
            raise FormatError(f"{self.role} has an impossible size", found=self.size)


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of whole shards of the file with this SHA-256; ``first`` is the number of its first shard."""

    blob: Digest
    first: int
    shards: int
    size: int

    @property
    def name(self) -> str:
        """Its name in a volume."""
        return f"files/{self.blob.hex}.{self.first}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """``bundle.json``: whose release it is, the documents, and per volume the segments in their order."""

    name: RepositoryName
    release: Digest
    created: datetime
    documents: tuple[Document, ...]
    volumes: tuple[tuple[Segment, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse. Raises FormatError."""
        roles = [document.role for document in self.documents]
        if roles != sorted(set(roles)) or not {ENVELOPE, MANIFEST} <= set(roles):
            raise FormatError(
                f"{INDEX_NAME}: the documents are wrong",
                expected="each once, by role, with the release's envelope and manifest among them",
            )
        if sum(document.size for document in self.documents) > limits.BUNDLE_DOCUMENTS_BYTES:
            raise FormatError(
                f"{INDEX_NAME}: the documents are too large", expected=f"at most {limits.BUNDLE_DOCUMENTS_BYTES} bytes"
            )

    def encode(self) -> bytes:
        """The exact bytes."""
        return encode_canonical(
            {
                "created": format_instant(self.created),
                "documents": [
                    {"role": one.role, "sha256": str(one.sha256), "size": one.size} for one in self.documents
                ],
                "name": str(self.name),
                "release": str(self.release),
                "schema": BUNDLE_SCHEMA,
                "volumes": [
                    [
                        {"file": str(one.blob), "first": one.first, "shards": one.shards, "size": one.size}
                        for one in volume
                    ]
                    for volume in self.volumes
                ],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read ``bundle.json``; ``parse(data).encode() == data``.

        Raises:
            FormatError: if it is not of exactly our form.
        """
        fields = Fields(parse_canonical(data, what=INDEX_NAME, limit=limits.BUNDLE_INDEX_BYTES), INDEX_NAME)
        fields.literal("schema", BUNDLE_SCHEMA)
        name = fields.parsed("name", RepositoryName.parse)
        release = fields.parsed("release", Digest.parse)
        created = fields.parsed("created", parse_instant)
        documents = tuple(
            _document(item) for item in fields.objects("documents", limit=limits.BUNDLE_DOCUMENTS, minimum=2)
        )
        volumes = []
        for number, volume in enumerate(fields.array("volumes", limit=limits.BUNDLE_VOLUMES, minimum=1), 1):
            where = Fields({"segments": volume}, f"{INDEX_NAME}: volume {number}")
            volumes.append(tuple(_segment(item) for item in where.objects("segments", limit=limits.FILES * 2)))
        fields.done()
        return cls(name, release, created, documents, tuple(volumes))


@dataclass(frozen=True, slots=True)
class Volume:
    """``volume.json``: which bundle this is a volume of, and which one, from 1."""

    bundle: Digest
    number: int

    def encode(self) -> bytes:
        """The exact bytes."""
        return encode_canonical({"bundle": str(self.bundle), "schema": VOLUME_SCHEMA, "volume": self.number})

    @classmethod
    def parse(cls, data: bytes) -> Volume:
        """Read ``volume.json``.

        Raises:
            FormatError: if it is not of exactly our form.
        """
        value = parse_canonical(data, what=VOLUME_NAME, limit=limits.BUNDLE_VOLUME_INDEX_BYTES)
        fields = Fields(value, VOLUME_NAME)
        fields.literal("schema", VOLUME_SCHEMA)
        bundle = fields.parsed("bundle", Digest.parse)
        number = fields.integer("volume", minimum=1, maximum=limits.BUNDLE_VOLUMES)
        fields.done()
        return cls(bundle, number)


def document_name(position: int) -> str:
    """The name of a document in a volume: its place in ``bundle.json``, never anything that was read."""
    return f"documents/{position:05d}"


def _document(fields: Fields) -> Document:
    role = fields.text("role", limit=512)
    size = fields.integer("size", minimum=1, maximum=limits.BUNDLE_DOCUMENT_BYTES)
    found = Document(role, size, fields.parsed("sha256", Digest.parse))
    fields.done()
    return found


def _segment(fields: Fields) -> Segment:
    blob = fields.parsed("file", Digest.parse)
    first = fields.integer("first")
    shards = fields.integer("shards", minimum=1)
    found = Segment(blob, first, shards, fields.integer("size", minimum=1, maximum=limits.BUNDLE_SEGMENT_BYTES * 2))
    fields.done()
    return found
