# SPDX-License-Identifier: Apache-2.0
"""The files of a release, as pqreg.json and pqreg.inner list them: size, SHA-256, shard digests, tensor table of each.

An entry's parts must fit one another: as many shard digests as its size needs, a tensor table for safetensors and for
nothing else, and a table that covers the file exactly. A list of entries is sorted by the code points of the paths and
names neither the manifest nor anything that verifiers skip.

A release of a terabyte has half a million shards, so their digests stay one ``bytes`` per file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.sealing import INNER_NAME, SLICE_BYTES, plaintext_size
from pq_registry.format.statement import is_ignored
from pq_registry.format.strict_json import Fields, Value, encode_base64
from pq_registry.format.tensors import TensorTable

MANIFEST_NAME: Final = "pqreg.json"
SHARD_DIGEST_BYTES: Final = 32
SAFETENSORS_SUFFIX: Final = ".safetensors"


def shard_count(size: int, slice_size: int = limits.SHARD_BYTES) -> int:
    """Shards of a file of ``size`` bytes, each ``slice_size`` but the last; an empty file has none."""
    return -(-size // slice_size)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: ``shards`` are the BLAKE3 digests of its shards, concatenated.

    Of a ``sealed`` file, ``size`` and all digests are those of its stored bytes.
    """

    path: ReleasePath
    size: int
    sha256: Digest
    shards: bytes
    tensors: TensorTable | None = None
    sealed: bool = False

    def __post_init__(self) -> None:
        """Refuse an entry whose parts do not fit together.

        Raises:
            FormatError: naming the path and what does not fit.
        """
        if not 0 <= self.size <= limits.FILE_BYTES:
            raise FormatError(
                f"{self.path}: the size is impossible", expected=f"0 to {limits.FILE_BYTES}", found=self.size
            )
        if self.sealed:
            plaintext_size(self.size)
        expected = SHARD_DIGEST_BYTES * shard_count(self.size, self.slice_size)
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
    def slice_size(self) -> int:
        """Bytes of every shard but the last, as stored."""
        return SLICE_BYTES if self.sealed else limits.SHARD_BYTES

    @property
    def plaintext_size(self) -> int:
        """Bytes of the file once it is unsealed; of a file that is not sealed, its size."""
        return plaintext_size(self.size) if self.sealed else self.size

    @property
    def shard_count(self) -> int:
        """How many shards the file has."""
        return len(self.shards) // SHARD_DIGEST_BYTES

    def shard_digest(self, index: int) -> bytes:
        """The BLAKE3 digest of shard ``index``."""
        self._check_index(index)
        return self.shards[SHARD_DIGEST_BYTES * index : SHARD_DIGEST_BYTES * (index + 1)]

    def shard_range(self, index: int) -> tuple[int, int]:
        """Offset and length of shard ``index`` in the stored file; only the last one may be short."""
        self._check_index(index)
        slice_size = self.slice_size
        offset = index * slice_size
        return offset, min(slice_size, self.size - offset)

    def plaintext_range(self, index: int) -> tuple[int, int]:
        """Offset and length of shard ``index`` in the file once it is unsealed."""
        _, length = self.shard_range(index)
        return index * limits.SHARD_BYTES, length - (limits.SEAL_TAG_BYTES if self.sealed else 0)

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
    def from_fields(cls, fields: Fields, *, sealed: bool = False) -> FileEntry:
        """Read the JSON value of an entry of a manifest that is ``sealed`` or not.

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
        return cls(path, size, sha256, shards, table, sealed)


def take_files(fields: Fields, *, sealed: bool = False) -> tuple[FileEntry, ...]:
    """The field ``files``, of a manifest that is ``sealed`` or not.

    Raises:
        FormatError: if an entry is not of exactly our form.
    """
    entries = fields.objects("files", minimum=1, limit=limits.FILES)
    return tuple(FileEntry.from_fields(entry, sealed=sealed) for entry in entries)


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
                "the files are not sorted",
                expected="paths sorted by code point, each once",
                found=f"{one.path.text!r} before {next_one.path.text!r}"[:200],
            )
    for entry in entries:
        if is_reserved(entry.path):
            raise FormatError(
                "a file stands where verifiers expect something else",
                expected=f"no file named {MANIFEST_NAME} or {INNER_NAME}, nor any that verifiers skip",
                found=repr(entry.path.text)[:200],
            )
    # The manifest takes part: on a file system that folds case PQREG.JSON is the same file.
    check_distinct([ReleasePath(MANIFEST_NAME), *(entry.path for entry in entries)])


def is_reserved(path: ReleasePath) -> bool:
    """Whether a publisher's file cannot have this path: the manifest's, pqreg.inner's, or one that verifiers skip."""
    return path.text.casefold().split("/", 1)[0] in (MANIFEST_NAME, INNER_NAME) or is_ignored(path.text)
