# SPDX-License-Identifier: Apache-2.0
"""Xorbs and shards of chunked uploads, as clients send them."""

from __future__ import annotations

import random

import pytest

from pq_registry.format.digest import Digest
from pq_registry.format.xetshard import Term, XetFile, parse_xet_shard
from pq_registry.service.hub.xorb import XorbDecoder
from tests.xetsamples import FOOTER, GROUPED, LZ4, PLAIN, SampleFile, sample_shard, sample_xorb, whole

CHUNKS = [random.Random(size).randbytes(size) for size in (1, 2, 3, 4, 5, 7, 8_192, 65_537, 131_072)]


@pytest.mark.parametrize("scheme", [PLAIN, LZ4, GROUPED])
@pytest.mark.parametrize("footer", [b"", FOOTER])
@pytest.mark.parametrize("step", [1, 1000, 10**6])
def test_a_xorb_is_unpacked_however_it_arrives(scheme: int, footer: bytes, step: int) -> None:
    chunks = CHUNKS if step > 1 else CHUNKS[:6]
    xorb = sample_xorb(chunks, [scheme], footer=footer)
    decoder = XorbDecoder()
    found = [
        chunk for start in range(0, len(xorb.packed), step) for chunk in decoder.feed(xorb.packed[start : start + step])
    ]
    decoder.finish(xorb.name)
    assert found == chunks
    assert decoder.ends[-1] == decoder.size == sum(map(len, chunks))


NAMES = {
    1: "df93298cdbf67cd507aed28d6290c0cf7f9aa0aa88dfa629cffcf98680659410",
    2: "9411677364f3f9ff9ea75fb85b68420fa8a8707a194ced74fce68737bd9f2bd3",
    10: "f1a86d190fc4437b45d0d0689419476f387356174fabb3a0102fab3f195612e0",
    300: "47c70beeee5803857c64f86702ff79826ac951c829847804c7c5240d83b11cf5",
}
"""By number of chunks. That hf-xet gives xorbs these names, too, the uploads in tests/e2e show: others are refused."""


def test_the_name_of_a_xorb_stays_what_it_is() -> None:
    for count, name in NAMES.items():
        chunks = [bytes([n % 251]) * (n + 1) for n in range(count)]
        assert sample_xorb(chunks, [PLAIN]).name == name


def test_a_shard_says_what_files_are_made_of() -> None:
    first, second = sample_xorb(CHUNKS), sample_xorb(CHUNKS[:3])
    size = len(CHUNKS[1])
    mixed = SampleFile(Digest.of(b"mixed"), ((second.name, 1, 2, size), (first.name, 0, 1, 1)), flags=1 << 30)
    found = parse_xet_shard(sample_shard([whole(first), mixed, SampleFile(Digest.of(b""), ())]) + b"xorbs follow")
    total = sum(map(len, CHUNKS))
    assert found == (
        XetFile(Digest.of(b"".join(CHUNKS)), total, (Term(first.name, 0, len(CHUNKS), total),)),
        XetFile(Digest.of(b"mixed"), size + 1, (Term(second.name, 1, 2, size), Term(first.name, 0, 1, 1))),
        XetFile(Digest.of(b""), 0, ()),
    )
