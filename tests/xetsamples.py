# SPDX-License-Identifier: Apache-2.0
"""Xorbs and shards as a client of chunked uploads makes them, and as one that lies would."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import lz4.frame
from blake3 import blake3

from pq_registry.format.digest import Digest
from pq_registry.service.hub import xorb as packing

PLAIN, LZ4, GROUPED = range(3)
FOOTER = b"XETBLOB" + b"\x01" * 60


def packed_chunk(data: bytes, scheme: int = LZ4, *, size: int | None = None, body: bytes | None = None) -> bytes:
    """A chunk; ``size`` and ``body`` are what a liar would say and send."""
    if body is None:
        grouped = b"".join(data[position::4] for position in range(4)) if scheme == GROUPED else data
        body = grouped if scheme == PLAIN else lz4.frame.compress(grouped)
    claimed = len(data) if size is None else size
    return b"\0" + len(body).to_bytes(3, "little") + bytes([scheme]) + claimed.to_bytes(3, "little") + body


@dataclass(frozen=True)
class SampleXorb:
    """A xorb, and the name it has to be sent under."""

    name: str
    packed: bytes
    chunks: tuple[bytes, ...]


def sample_xorb(
    chunks: Sequence[bytes], schemes: Sequence[int] = (PLAIN, LZ4, GROUPED), *, footer: bytes = b""
) -> SampleXorb:
    """A xorb of these chunks, packed in turns."""
    nodes = [(blake3(chunk, key=packing._CHUNK_KEY).digest(), len(chunk)) for chunk in chunks]
    packed = b"".join(packed_chunk(chunk, schemes[n % len(schemes)]) for n, chunk in enumerate(chunks))
    return SampleXorb(packing.xorb_hash(nodes), packed + footer, tuple(chunks))


def raw_hash(name: str) -> bytes:
    """A hash as it stands in a shard."""
    return b"".join(bytes.fromhex(name[start : start + 16])[::-1] for start in range(0, 64, 16))


@dataclass(frozen=True)
class SampleFile:
    """A file of a shard: its SHA-256, and runs of chunks (xorb, first, end, bytes)."""

    sha256: Digest
    terms: tuple[tuple[str, int, int, int], ...]
    flags: int = 1 << 31 | 1 << 30


def whole(xorb: SampleXorb) -> SampleFile:
    """The file that is exactly one xorb."""
    content = b"".join(xorb.chunks)
    return SampleFile(Digest.of(content), ((xorb.name, 0, len(xorb.chunks), len(content)),))


def sample_shard(files: Sequence[SampleFile], *, version: int = 2, end: bool = True) -> bytes:
    """A shard that describes these files."""
    data = b"HFRepoMetaData\0".ljust(32, b"U") + struct.pack("<QQ", version, 0)
    for file in files:
        data += b"\x11" * 32 + struct.pack("<IIQ", file.flags, len(file.terms), 0)
        for name, first, stop, size in file.terms:
            data += raw_hash(name) + struct.pack("<IIII", 0, size, first, stop)
        if file.flags >> 31:
            data += b"\x22" * 48 * len(file.terms)
        if file.flags >> 30 & 1:
            data += raw_hash(file.sha256.hex).ljust(48, b"\0")
    return data + (b"\xff" * 32).ljust(48, b"\0") if end else data
