# SPDX-License-Identifier: Apache-2.0
"""The release manifest ``pqreg.json``: what OMS has no field for.

It names the repository and the signer, and per file its size, SHA-256, the BLAKE3 digests of its shards and, for
safetensors, the tensor table. Its exact bytes, the RFC 8785 form of its value, are a resource of the signed release
statement. Files are sorted by the code points of their paths; the manifest never lists itself, nor anything a
verifier skips. Unknown fields are refused. docs/spec/manifest.md and docs/spec/pqreg.schema.json are its
specification.

A release of a terabyte has half a million shards, so their digests stay one ``bytes`` per file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_identity_id, parse_release_id
from pq_registry.format.instant import check_instant, format_instant, parse_instant
from pq_registry.format.name import RepositoryName
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.statement import is_ignored
from pq_registry.format.strict_json import Fields, Value, encode_base64, encode_plain, parse_canonical
from pq_registry.format.tensors import CONTROLS, TensorEntry, TensorTable

__all__ = [
    "MANIFEST_NAME",
    "SAFETENSORS_SUFFIX",
    "SCHEMA",
    "BaseRelease",
    "FileEntry",
    "Manifest",
    "TensorEntry",
    "TensorTable",
    "check_files",
    "is_reserved",
    "shard_count",
]

MANIFEST_NAME: Final = "pqreg.json"
SCHEMA: Final = "urn:pq-registry:manifest:v1"
SHARD_DIGEST_BYTES: Final = 32
SAFETENSORS_SUFFIX: Final = ".safetensors"


def shard_count(size: int) -> int:
    """Shards of a file of ``size`` bytes; an empty file has none."""
    return -(-size // limits.SHARD_BYTES)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``shards`` are the BLAKE3 digests of its shards, concatenated."""

    path: ReleasePath
    size: int
    sha256: Digest
    shards: bytes
    tensors: TensorTable | None = None

    def __post_init__(self) -> None:
        """Refuse an entry whose parts do not fit together.

        Raises:
            FormatError: naming the path and what does not fit.
        """
        if not 0 <= self.size <= limits.FILE_BYTES:
            raise FormatError(
                f"{self.path}: the size is impossible", expected=f"0 to {limits.FILE_BYTES}", found=self.size
            )
        expected = SHARD_DIGEST_BYTES * shard_count(self.size)
        if len(self.shards) != expected:
            raise FormatError(
                f"{self.path}: the shard digests do not fit the size",
                expected=f"{expected} bytes for {self.size} bytes of content",
                found=f"{len(self.shards)} bytes",
            )
        # Decided by the name alone, so that two readers cannot disagree about which files hold tensors.
        if (self.path.suffix == SAFETENSORS_SUFFIX) != (self.tensors is not None):
            raise FormatError(
                f"{self.path}: a tensor table is missing or out of place",
                expected=f"a tensor table for *{SAFETENSORS_SUFFIX}, and null for every other file",
            )
        if self.tensors is not None and self.tensors.file_size != self.size:
            raise FormatError(
                f"{self.path}: the tensor table does not cover the file",
                expected=f"{self.size} bytes",
                found=f"{self.tensors.file_size} bytes",
            )

    @property
    def shard_count(self) -> int:
        """How many shards the file has."""
        return len(self.shards) // SHARD_DIGEST_BYTES

    def shard_digest(self, index: int) -> bytes:
        """The BLAKE3 digest of shard ``index``."""
        self._check_index(index)
        return self.shards[SHARD_DIGEST_BYTES * index : SHARD_DIGEST_BYTES * (index + 1)]

    def shard_range(self, index: int) -> tuple[int, int]:
        """Offset and length of shard ``index`` in the file; only the last one may be short."""
        self._check_index(index)
        offset = index * limits.SHARD_BYTES
        return offset, min(limits.SHARD_BYTES, self.size - offset)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < self.shard_count:  # a caller's bug: never reached by outside input
            raise IndexError(f"{self.path} has {self.shard_count} shards, not {index}")

    def to_value(self) -> Value:
        """The JSON value of this entry."""
        return {
            "path": self.path.text,
            "sha256": str(self.sha256),
            "shards": encode_base64(self.shards),
            "size": self.size,
            "tensors": None if self.tensors is None else self.tensors.to_value(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> FileEntry:
        """Read the JSON value of an entry.

        Raises:
            FormatError: if it is not exactly what ``to_value`` writes.
        """
        path = fields.parsed("path", ReleasePath)
        size = fields.integer("size", maximum=limits.FILE_BYTES)
        sha256 = fields.parsed("sha256", Digest.parse)
        shards = fields.base64("shards", limit=limits.MANIFEST_BYTES)
        tensors = fields.take("tensors")
        fields.done()
        table = None if tensors is None else TensorTable.from_value(tensors, f"{path}: tensors")
        return cls(path, size, sha256, shards, table)


@dataclass(frozen=True, slots=True)
class BaseRelease:
    """A release this one was made from."""

    name: RepositoryName
    release: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of pqreg.json."""

    name: RepositoryName
    signer: str
    release_id: str
    created: datetime
    files: tuple[FileEntry, ...]
    lineage: tuple[BaseRelease, ...] = ()
    license: str | None = None
    sealing: None = None

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: naming the field.
        """
        parse_identity_id(self.signer)
        parse_release_id(self.release_id)
        check_instant(self.created, "the manifest's field 'created'")
        check_files(self.files)
        if len(self.lineage) > limits.LINEAGE or len(set(self.lineage)) != len(self.lineage):
            raise FormatError(
                "the manifest's lineage is too long or names a release twice",
                expected=f"at most {limits.LINEAGE} different releases",
                found=len(self.lineage),
            )
        if self.license is not None and (
            not 0 < len(self.license) <= limits.LICENSE_CHARS or CONTROLS.search(self.license)
        ):
            raise FormatError(
                "the manifest's license is malformed",
                expected=f"1 to {limits.LICENSE_CHARS} characters, none of them a control, or null",
                found=repr(self.license)[:120],
            )

    @property
    def total_size(self) -> int:
        """Bytes of all files, without the manifest itself."""
        return sum(entry.size for entry in self.files)

    def encode(self) -> bytes:
        """The exact bytes of pqreg.json.

        Raises:
            FormatError: if a name holds text that cannot be written as UTF-8.
        """
        # Its keys are all ours. A terabyte's manifest takes 0.1 s this way and 0.5 s with the general encoder.
        return encode_plain(
            {
                "created": format_instant(self.created),
                "files": [entry.to_value() for entry in self.files],
                "license": self.license,
                "lineage": [{"name": str(base.name), "release": str(base.release)} for base in self.lineage],
                "name": str(self.name),
                "release_id": self.release_id,
                "schema": SCHEMA,
                "sealing": None,
                "shard_size": limits.SHARD_BYTES,
                "signer": self.signer,
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read a manifest; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is not a manifest of version 1, or is of a sealed release.
        """
        fields = Fields(parse_canonical(data, what=MANIFEST_NAME, limit=limits.MANIFEST_BYTES), MANIFEST_NAME)
        fields.literal("schema", SCHEMA)
        if fields.take("sealing") is not None:
            raise FormatError(
                f"{MANIFEST_NAME} is of a sealed release",
                expected="sealing: null",
                hint="sealed releases need a newer version of pq-registry; update it and try again",
            )
        fields.literal("shard_size", limits.SHARD_BYTES)
        name = fields.parsed("name", RepositoryName.parse)
        signer = fields.parsed("signer", parse_identity_id)
        release_id = fields.parsed("release_id", parse_release_id)
        created = fields.parsed("created", parse_instant)
        license_ = fields.optional("license", str, limit=limits.LICENSE_CHARS)
        lineage = []
        for base in fields.objects("lineage", limit=limits.LINEAGE):
            lineage.append(BaseRelease(base.parsed("name", RepositoryName.parse), base.parsed("release", Digest.parse)))
            base.done()
        files = tuple(FileEntry.from_fields(entry) for entry in fields.objects("files", minimum=1, limit=limits.FILES))
        fields.done()
        return cls(name, signer, release_id, created, files, tuple(lineage), license_)


def check_files(files: Iterable[FileEntry]) -> None:
    """Refuse a list of files that no release can have.

    Raises:
        FormatError: if they are none, too many, unsorted or colliding, or one is reserved (``is_reserved``).
    """
    entries = tuple(files)
    if not 0 < len(entries) <= limits.FILES:
        raise FormatError("a release has no files or too many", expected=f"1 to {limits.FILES}", found=len(entries))
    for one, next_one in pairwise(entries):
        if one.path.text >= next_one.path.text:
            raise FormatError(
                "the manifest's files are not sorted",
                expected="paths sorted by code point, each once",
                found=f"{one.path.text!r} before {next_one.path.text!r}"[:200],
            )
    for entry in entries:
        if is_reserved(entry.path):
            raise FormatError(
                "a file stands where verifiers expect something else",
                expected=f"no file named {MANIFEST_NAME}, nor any that verifiers skip",
                found=repr(entry.path.text)[:200],
            )
    # The manifest takes part: on a file system that folds case PQREG.JSON is the same file.
    check_distinct([ReleasePath(MANIFEST_NAME), *(entry.path for entry in entries)])


def is_reserved(path: ReleasePath) -> bool:
    """Whether a publisher's file cannot have this path: the manifest's, or one that verifiers skip."""
    return path.text.casefold().split("/", 1)[0] == MANIFEST_NAME or is_ignored(path.text)
