# SPDX-License-Identifier: Apache-2.0
"""Shard digests and whole-file digests against the plain definitions."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.crypto import shards
from pq_registry.crypto.shards import ShardHasher, check_shard, check_shards, shard_count, shard_digests
from pq_registry.errors import ShardMismatch

SIZE = limits.SHARD_BYTES
SIZES = [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 2 * SIZE + 17]


def content(size: int) -> bytes:
    return (b"pq-registry" * (size // 11 + 1))[:size]  # 11 does not divide a shard, so no two are alike


def defined(data: bytes) -> bytes:
    return b"".join(blake3(data[start : start + SIZE]).digest() for start in range(0, len(data), SIZE))


@pytest.mark.parametrize("size", SIZES)
def test_digests_are_as_defined(size: int) -> None:
    data = content(size)
    hasher = ShardHasher()
    hasher.update(data)
    result = hasher.result()
    assert result == (size, result.sha256, defined(data))
    assert result.sha256.hex == hashlib.sha256(data).hexdigest()
    assert shard_digests(data) == defined(data)
    assert shard_count(size) == len(defined(data)) // 32


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, SIZE + 3), max_size=6))
def test_pieces_of_any_size_give_the_same(pieces: list[int]) -> None:
    data = content(sum(pieces))
    hasher = ShardHasher()
    start = 0
    for size in pieces:
        hasher.update(memoryview(data)[start : start + size])
        start += size
    assert hasher.result() == (len(data), hasher.result().sha256, defined(data))
    assert hasher.result().sha256.hex == hashlib.sha256(data).hexdigest()


def test_the_result_can_be_asked_midway_without_changing_it() -> None:
    data = content(SIZE + 100)
    hasher = ShardHasher()
    hasher.update(data[:50])
    assert hasher.result().shards == defined(data[:50])
    hasher.update(data[50:])
    assert hasher.result().shards == defined(data)


def test_buffers_of_other_items_are_taken_as_bytes() -> None:
    import array

    numbers = array.array("I", range(1000))
    hasher = ShardHasher()
    hasher.update(memoryview(numbers))
    assert hasher.result().size == 4000
    assert shard_digests(memoryview(numbers)) == defined(numbers.tobytes())


@pytest.mark.parametrize("size", SIZES)
def test_right_shards_pass(size: int) -> None:
    check_shards(defined(content(size)), content(size), path="w", first_index=3)


@pytest.mark.parametrize("position", [0, SIZE - 1, SIZE, 2 * SIZE + 16])
def test_a_flipped_bit_is_found_and_its_shard_named(position: int) -> None:
    data = bytearray(content(2 * SIZE + 17))
    expected = defined(bytes(data))
    data[position] ^= 0x10
    with pytest.raises(ShardMismatch, match=f"shard {7 + position // SIZE} of model/w") as caught:
        check_shards(expected, data, path="model/w", first_index=7)
    assert caught.value.step == 8


def test_swapped_and_missing_shards_are_found() -> None:
    data = bytearray(content(2 * SIZE))
    data[:SIZE] = bytes(SIZE)
    expected = defined(bytes(data))
    with pytest.raises(ShardMismatch):
        check_shards(expected[32:] + expected[:32], data, path="w")
    for wrong in (expected[:32], expected + expected[:32], expected[:-1], b""):
        with pytest.raises(ShardMismatch, match="number of shards"):
            check_shards(wrong, data, path="w")


@pytest.mark.parametrize("expected", [b"", bytes(31), bytes(32), bytes(33)])
def test_a_digest_of_another_length_never_matches(expected: bytes) -> None:
    with pytest.raises(ShardMismatch):
        check_shard(expected, b"data", path="w", index=0)


def test_a_shortened_digest_never_matches() -> None:
    whole = shards.shard_digest(b"data")
    check_shard(whole, b"data", path="w", index=0)
    with pytest.raises(ShardMismatch):
        check_shard(whole[:-1], b"data", path="w", index=0)
