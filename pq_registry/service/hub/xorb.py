# SPDX-License-Identifier: Apache-2.0
"""Xorbs: blocks of chunks, as clients of the Hub's chunked uploads send them (draft-denis-xet, Hub docs "Xet" 1.1).

A xorb is a row of chunks and, with some clients, a footer that begins with ``XETBLOB`` and repeats what they say. Each
chunk is a header of 8 bytes, ``version=0, u24 packed length, scheme, u24 length``, and its packed bytes: as they are
(scheme 0), an LZ4 frame (1), or an LZ4 frame of the bytes sorted by their position modulo 4 (2).

Everything in it is its sender's claim. So lengths are bounded before anything is unpacked, unpacking stops at one byte
more than was claimed, and the name of a xorb, a tree of BLAKE3 hashes over the unpacked chunks, is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from blake3 import blake3
from lz4.frame import LZ4FrameDecompressor

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.xetshard import format_hash

_HEADER: Final = 8
_FOOTER: Final = b"XETBLOB"
_PLAIN, _LZ4, _GROUPED = range(3)
_PACKED_CHUNK: Final = limits.XORB_CHUNK_BYTES + limits.KIB
_CHUNK_KEY: Final = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY: Final = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
"""Keys of the specification; they keep hashes of contents and of nodes apart."""
_LEAST_CUT, _MOST_CUT, _MEAN_CUT = 2, 9, 4
Node = tuple[bytes, int]


def xorb_hash(chunks: Sequence[Node]) -> str:
    """The name of the xorb of chunks with these hashes and lengths."""
    nodes = list(chunks)
    while len(nodes) > 1:
        nodes = [_merged(group) for group in _groups(nodes)]
    return format_hash(nodes[0][0])


def _groups(nodes: list[Node]) -> Iterator[list[Node]]:
    start = 0
    while start < len(nodes):
        end = min(len(nodes), start + _MOST_CUT)
        if len(nodes) - start > _LEAST_CUT:
            for index in range(start + _LEAST_CUT, end):
                if int.from_bytes(nodes[index][0][24:], "little") % _MEAN_CUT == 0:
                    end = index + 1
                    break
        yield nodes[start:end]
        start = end


def _merged(group: list[Node]) -> Node:
    lines = "".join(f"{format_hash(raw)} : {size}\n" for raw, size in group)
    return blake3(lines.encode(), key=_NODE_KEY).digest(), sum(size for _, size in group)


class XorbDecoder:
    """Unpacks a xorb that arrives in pieces; holds one packed chunk in memory."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._nodes: list[Node] = []
        self._size = 0
        self._in_footer = False

    @property
    def size(self) -> int:
        """Bytes unpacked so far."""
        return self._size

    @property
    def ends(self) -> list[int]:
        """Offsets at which the chunks end, unpacked."""
        ends, offset = [], 0
        for _, size in self._nodes:
            offset += size
            ends.append(offset)
        return ends

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """Take the next piece; yields the chunks that are complete, unpacked.

        Raises:
            FormatError: if it is no xorb, or exceeds a bound.
        """
        if self._in_footer:
            return
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _HEADER:
            if self._buffer.startswith(_FOOTER, start):
                self._in_footer = True
                self._buffer.clear()
                return
            packed, scheme, size = _lengths(self._buffer[start : start + _HEADER])
            end = start + _HEADER + packed
            if len(self._buffer) < end:
                break
            chunk = unpack(bytes(self._buffer[start + _HEADER : end]), scheme, size)
            start = end
            self._size += size
            if self._size > limits.XORB_BYTES or len(self._nodes) >= limits.XORB_CHUNKS:
                raise FormatError(
                    "the xorb is too large",
                    expected=f"at most {limits.XORB_CHUNKS} chunks and {limits.XORB_BYTES} bytes",
                )
            self._nodes.append((blake3(chunk, key=_CHUNK_KEY).digest(), size))
            yield chunk
        del self._buffer[:start]

    def finish(self, name: str) -> None:
        """All pieces have been taken: the xorb must be the one of this name.

        Raises:
            FormatError: if it is another, or not whole.
        """
        if not self._nodes or self._buffer:
            raise FormatError("the xorb is not whole", expected="one or more chunks", found=f"{len(self._nodes)}")
        found = xorb_hash(self._nodes)
        if found != name:
            raise FormatError("the xorb is another than its name says", expected=name, found=found)


def unpack(packed: bytes, scheme: int, size: int) -> bytes:
    """A chunk's ``size`` bytes.

    Raises:
        FormatError: if it does not unpack to exactly that many.
    """
    if scheme == _PLAIN:
        data = packed
    else:
        data = _inflate(packed, size)
        if scheme == _GROUPED:
            data = _ungroup(data)
    if len(data) != size:
        raise FormatError("a chunk has another length than it says", expected=f"{size} bytes", found=len(data))
    return data


def _lengths(header: bytes | bytearray) -> tuple[int, int, int]:
    version, scheme = header[0], header[4]
    packed, size = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
    if version != 0 or scheme > _GROUPED:
        raise FormatError("a chunk is packed in an unknown way", expected="version 0, scheme 0 to 2")
    if not 0 < size <= limits.XORB_CHUNK_BYTES or not 0 < packed <= _PACKED_CHUNK:
        raise FormatError(
            "a chunk's length is out of bounds", expected=f"1 to {limits.XORB_CHUNK_BYTES} bytes",
            found=f"{size} bytes, packed {packed}",
        )  # fmt: skip
    return packed, scheme, size


def _inflate(packed: bytes, size: int) -> bytes:
    decompressor = LZ4FrameDecompressor()
    try:
        data: bytes = decompressor.decompress(packed, max_length=size + 1)
    except (RuntimeError, ValueError, EOFError) as error:
        raise FormatError("a chunk does not unpack", expected="an LZ4 frame", found=str(error)[:80]) from None
    if len(data) <= size and (not decompressor.eof or decompressor.unused_data):
        raise FormatError("a chunk does not unpack", expected="exactly one LZ4 frame")
    return data


def _ungroup(data: bytes) -> bytes:
    source = np.frombuffer(data, dtype=np.uint8)
    result = np.empty(len(data), dtype=np.uint8)
    start = 0
    for position in range(4):
        length = (len(data) - position + 3) // 4
        result[position::4] = source[start : start + length]
        start += length
    return result.tobytes()
