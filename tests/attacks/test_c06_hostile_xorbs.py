# SPDX-License-Identifier: Apache-2.0
"""C6: chunked uploads that lie about themselves. What is claimed is bounded before it is unpacked, then checked."""

from __future__ import annotations

import struct
from collections.abc import Callable

import lz4.frame
import pytest

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.xetshard import parse_xet_shard
from pq_registry.service.hub import xorb
from pq_registry.service.hub.xorb import XorbDecoder
from tests.xetsamples import GROUPED, LZ4, PLAIN, SampleFile, packed_chunk, sample_shard, sample_xorb

MOST = limits.XORB_CHUNK_BYTES
BOMB = lz4.frame.compress(bytes(64 * limits.MIB))
CHUNK = packed_chunk(b"x" * 100)

HOSTILE = {
    "nothing": b"",
    "a header that is cut off": CHUNK[:5],
    "a chunk that is cut off": CHUNK[:-1],
    "an unknown version": b"\x01" + CHUNK[1:],
    "an unknown scheme": CHUNK[:4] + b"\x03" + CHUNK[5:],
    "a chunk of nothing": packed_chunk(b"", PLAIN),
    "a chunk that is too long": packed_chunk(bytes(MOST + 1), PLAIN),
    "a chunk that claims too much": packed_chunk(b"x", size=MOST + 1),
    "less than it claims": packed_chunk(b"x" * 100, size=101),
    "more than it claims": packed_chunk(b"x" * 100, size=99),
    "more than it claims, plain": packed_chunk(b"x" * 100, PLAIN, size=99),
    "more than it claims, grouped": packed_chunk(b"x" * 100, GROUPED, size=99),
    "a bomb": packed_chunk(b"", LZ4, size=MOST, body=BOMB[: MOST + limits.KIB]),
    "a bomb that claims little": packed_chunk(b"", LZ4, size=1, body=lz4.frame.compress(bytes(MOST * 4))),
    "no frame": packed_chunk(b"", LZ4, size=4, body=b"junk"),
    "a frame that is cut off": packed_chunk(b"", LZ4, size=100, body=lz4.frame.compress(b"x" * 100)[:-5]),
    "two frames": packed_chunk(b"", LZ4, size=100, body=lz4.frame.compress(b"x" * 100) * 2),
    "junk behind a frame": packed_chunk(b"", LZ4, size=100, body=lz4.frame.compress(b"x" * 100) + b"junk"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_xorbs_are_refused(what: str) -> None:
    decoder = XorbDecoder()
    with pytest.raises(FormatError):
        for _ in decoder.feed(HOSTILE[what]):
            pass
        decoder.finish("0" * 64)
    assert decoder.size <= MOST


def test_a_bomb_is_unpacked_to_one_byte_more_than_it_claims() -> None:
    assert len(BOMB) < 300_000
    assert len(xorb._inflate(BOMB, 10)) == 11


@pytest.mark.parametrize(("limit", "value"), [("XORB_CHUNKS", 3), ("XORB_BYTES", 300)])
def test_a_xorb_has_bounds(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(limits, limit, value)
    decoder = XorbDecoder()
    assert len(list(decoder.feed(CHUNK * 3))) == 3
    with pytest.raises(FormatError, match="too large"):
        list(decoder.feed(CHUNK))


def test_a_xorb_under_another_name_is_refused() -> None:
    sent, other = sample_xorb([b"one", b"two"]), sample_xorb([b"two", b"one"])
    decoder = XorbDecoder()
    list(decoder.feed(sent.packed))
    with pytest.raises(FormatError, match="another than its name"):
        decoder.finish(other.name)


NAME = "ab" * 32
GOOD = SampleFile(Digest.of(b"x"), ((NAME, 0, 1, 1),))


def with_term(*term: int) -> bytes:
    return sample_shard([SampleFile(Digest.of(b"x"), ((NAME, *term),))])  # type: ignore[arg-type]


SHARDS: dict[str, bytes] = {
    "nothing": b"",
    "another magic": b"x" + sample_shard([GOOD])[1:],
    "another version": sample_shard([GOOD], version=3),
    "no end": sample_shard([GOOD], end=False),
    "cut off in a term": sample_shard([GOOD])[:130],
    "no SHA-256": sample_shard([SampleFile(Digest.of(b"x"), GOOD.terms, flags=1 << 31)]),
    "an unknown flag": sample_shard([SampleFile(Digest.of(b"x"), GOOD.terms, flags=1 << 30 | 1)]),
    "chunks backwards": with_term(2, 1, 1),
    "no chunks": with_term(1, 1, 1),
    "chunks beyond every xorb": with_term(0, limits.XORB_CHUNKS + 1, 1),
    "no bytes": with_term(0, 1, 0),
    "more bytes than a xorb": with_term(0, 1, limits.XORB_BYTES + 1),
    "more terms than there are": sample_shard([])[:48] + b"\x11" * 32 + struct.pack("<IIQ", 1 << 30, 2**32 - 1, 0),
}


@pytest.mark.parametrize("what", SHARDS)
def test_hostile_shards_are_refused(what: str) -> None:
    with pytest.raises(FormatError):
        parse_xet_shard(SHARDS[what])


@pytest.mark.parametrize("limit", ["XET_SHARD_FILES", "XET_SHARD_TERMS"])
def test_a_shard_has_bounds(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(limits, limit, 2)
    assert len(parse_xet_shard(sample_shard([GOOD, GOOD]))) == 2
    with pytest.raises(FormatError, match="too many"):
        parse_xet_shard(sample_shard([GOOD, GOOD, GOOD]))


@pytest.mark.parametrize("parse", [parse_xet_shard, lambda data: list(XorbDecoder().feed(data))])
def test_any_bytes_are_a_typed_error_or_parsed(parse: Callable[[bytes], object]) -> None:
    import random

    good = (sample_shard([GOOD, GOOD]), sample_xorb([b"some", b"chunks", b"of bytes"]).packed)
    for seed in range(300):
        source = random.Random(seed)
        data = bytearray(good[seed % 2])
        for _ in range(source.randrange(1, 4)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            parse(bytes(data))
        except FormatError:
            continue
