# SPDX-License-Identifier: Apache-2.0
"""Shards of the Xet protocol: how files are made of chunks (draft-denis-xet). Not our shards.

::

    32 bytes magic, u64 version = 2, u64 length of the footer
    for each file: hash[32], u32 flags, u32 n, u64 0; n terms; n verifications if flag 31; metadata if flag 30
    a record whose hash is 32 x FF ends the files; what follows describes xorbs and is not needed

Every record has 48 bytes, numbers are little-endian. A term is ``hash[32] of a xorb, u32 flags, u32 bytes, u32 first
chunk, u32 end chunk (exclusive)``. The first 32 bytes of the metadata are the file's SHA-256, its name here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest

_RECORD: Final = 48
_MAGIC: Final = b"HFRepoMetaData\x00"
_VERSION: Final = 2
_END: Final = b"\xff" * 32
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30
_HASH = struct.Struct("<4Q")
_FILE = struct.Struct("<32sIIQ")
_TERM = struct.Struct("<32sIIII")
_HEAD = struct.Struct("<32sQQ")


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks, ``first`` to ``end`` (exclusive), of one xorb; together ``size`` bytes."""

    xorb: str
    first: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class XetFile:
    """A file by its SHA-256, and what it is made of."""

    sha256: Digest
    size: int
    terms: tuple[Term, ...]


def format_hash(raw: bytes) -> str:
    """A hash as the protocol writes it: four u64, each printed with its first byte last."""
    return "".join(f"{word:016x}" for word in _HASH.unpack(raw))


def parse_xet_shard(data: bytes) -> tuple[XetFile, ...]:
    """The files a shard describes.

    Raises:
        FormatError: if it is no shard, exceeds a bound, or does not say the SHA-256 of a file.
    """
    if len(data) > limits.XET_SHARD_BYTES:
        raise FormatError("the shard is too large", expected=f"at most {limits.XET_SHARD_BYTES} bytes")
    reader = _Records(data)
    files: list[XetFile] = []
    terms = 0
    while True:
        record = reader.next()
        if record[:32] == _END:
            return tuple(files)
        _, flags, count, _ = _FILE.unpack(record)
        terms += count
        if flags & ~(_VERIFIED | _DESCRIBED) or not flags & _DESCRIBED:
            raise FormatError(
                "the shard does not say what its files are", expected="the SHA-256 of each", found=f"flags {flags:#x}",
                hint="upload with a current huggingface_hub, or with HF_HUB_DISABLE_XET=1",
            )  # fmt: skip
        if len(files) >= limits.XET_SHARD_FILES or terms > limits.XET_SHARD_TERMS:
            raise FormatError(
                "the shard has too many files or terms",
                expected=f"at most {limits.XET_SHARD_FILES} files and {limits.XET_SHARD_TERMS} terms",
            )
        found = tuple(_term(reader.next()) for _ in range(count))
        if flags & _VERIFIED:
            reader.skip(count)
        size = sum(term.size for term in found)
        files.append(XetFile(Digest(format_hash(reader.next()[:32])), size, found))


class _Records:
    def __init__(self, data: bytes) -> None:
        if len(data) < _RECORD:
            raise FormatError("the shard is cut off", expected=f"{_RECORD} bytes or more", found=len(data))
        magic, version, _ = _HEAD.unpack_from(data)
        if not magic.startswith(_MAGIC) or version != _VERSION:
            raise FormatError("not a shard of chunked uploads", expected=f"version {_VERSION}", found=version)
        self._data = data
        self._offset = _RECORD

    def next(self) -> bytes:
        record = self._data[self._offset : self._offset + _RECORD]
        if len(record) != _RECORD:
            raise FormatError("the shard is cut off", expected="a record that ends its files")
        self._offset += _RECORD
        return record

    def skip(self, count: int) -> None:
        self._offset += count * _RECORD


def _term(record: bytes) -> Term:
    raw, _, size, first, end = _TERM.unpack(record)
    if not first < end <= limits.XORB_CHUNKS or not 0 < size <= limits.XORB_BYTES:
        raise FormatError(
            "a term of the shard is out of bounds", expected=f"chunks within 0 to {limits.XORB_CHUNKS}",
            found=f"{first} to {end}, {size} bytes",
        )  # fmt: skip
    return Term(format_hash(raw), first, end, size)
