# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree against RFC 6962's definitions, for every size to 300 and every leaf and older tree of each."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pq_registry import limits
from pq_registry.errors import ConsistencyInvalid, FormatError, ReceiptInvalid
from pq_registry.log.merkle import (
    EMPTY_ROOT,
    CompactRange,
    fold_row,
    leaf_hash,
    leaf_row,
    node_hash,
    perfect_root,
    root_from_inclusion,
    verify_consistency,
    verify_inclusion,
)
from tests.brute_tree import LEAVES, entry, mth, path, proof


def test_every_inclusion_proof():
    for size in range(1, LEAVES + 1):
        root = mth(0, size)
        for index in range(size):
            verify_inclusion(
                index=index, size=size, leaf=leaf_hash(entry(index)), proof=path(index, 0, size), root=root
            )


def test_every_consistency_proof():
    for new in range(1, LEAVES + 1):
        for old in range(1, new + 1):
            verify_consistency(
                old_size=old, old_root=mth(0, old), new_size=new, new_root=mth(0, new), proof=proof(old, new)
            )


def test_the_compact_range_has_every_root_and_can_be_put_away():
    tree = CompactRange()
    assert tree.root == EMPTY_ROOT == hashlib.sha256(b"").digest()
    for size in range(1, LEAVES + 1):
        tree.append(leaf_hash(entry(size - 1)))
        assert (tree.size, tree.root, len(tree.peaks)) == (size, mth(0, size), size.bit_count())
        tree = CompactRange.of(tree.size, tree.peaks)
    many = CompactRange()
    many.extend(leaf_row(map(entry, range(LEAVES))))
    assert (many.size, many.peaks) == (tree.size, tree.peaks)


@pytest.mark.parametrize(
    ("size", "peaks"), [(3, 1), (3, 3), (0, 1), (-1, 0), (2**63, 1), (True, 1)], ids=lambda value: str(value)
)
def test_a_compact_range_of_another_shape_is_refused(size, peaks):
    with pytest.raises(FormatError):
        CompactRange.of(size, [bytes(32)] * peaks)


def test_a_compact_range_of_short_hashes_is_refused():
    with pytest.raises(FormatError):
        CompactRange.of(1, [bytes(31)])


@given(st.integers(1, LEAVES), st.integers(0, LEAVES - 1), st.integers(0, 9), st.integers(0, 255))
def test_no_flipped_bit_is_included(size, index, position, bit):
    index %= size
    hashes = path(index, 0, size)
    fields = [leaf_hash(entry(index)), mth(0, size), *hashes]
    position %= len(fields)
    flipped = bytearray(fields[position])
    flipped[bit // 8] ^= 1 << bit % 8
    fields[position] = bytes(flipped)
    with pytest.raises(ReceiptInvalid):
        verify_inclusion(index=index, size=size, leaf=fields[0], root=fields[1], proof=fields[2:])


@given(st.integers(1, LEAVES - 1), st.integers(1, LEAVES), st.integers(0, 10), st.integers(0, 255))
def test_no_flipped_bit_is_consistent(old, more, position, bit):
    new = min(old + more, LEAVES)
    fields = [mth(0, old), mth(0, new), *proof(old, new)]
    position %= len(fields)
    flipped = bytearray(fields[position])
    flipped[bit // 8] ^= 1 << bit % 8
    fields[position] = bytes(flipped)
    with pytest.raises(ConsistencyInvalid):
        verify_consistency(old_size=old, old_root=fields[0], new_size=new, new_root=fields[1], proof=fields[2:])


@given(st.integers(1, LEAVES), st.integers(1, LEAVES), st.integers(0, LEAVES))
def test_a_history_that_differs_is_not_consistent(old, new, changed):
    """A tree that replaced a leaf of the old one: no proof of ours leads to both roots."""
    old, new = sorted((old, new))
    other = CompactRange()
    for index in range(old):
        other.append(leaf_hash(b"other" if index == changed % old else entry(index)))
    with pytest.raises(ConsistencyInvalid):
        verify_consistency(old_size=old, old_root=other.root, new_size=new, new_root=mth(0, new), proof=proof(old, new))


def test_the_largest_tree_has_proofs_of_63_hashes():
    hashes = [bytes([level]) * 32 for level in range(limits.PROOF_HASHES)]
    root = root_from_inclusion(index=5, size=limits.TREE_SIZE, leaf=bytes(32), proof=hashes)
    verify_inclusion(index=5, size=limits.TREE_SIZE, leaf=bytes(32), proof=hashes, root=root)
    with pytest.raises(ReceiptInvalid):
        root_from_inclusion(index=5, size=limits.TREE_SIZE, leaf=bytes(32), proof=hashes[1:])


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_hashes_have_32_bytes(length):
    with pytest.raises(FormatError):
        verify_inclusion(index=0, size=2, leaf=bytes(32), proof=[bytes(length)], root=bytes(32))
    with pytest.raises(FormatError):
        verify_inclusion(index=0, size=1, leaf=bytes(length), proof=[], root=bytes(32))
    with pytest.raises(FormatError):
        verify_inclusion(index=0, size=1, leaf=bytes(32), proof=[], root=bytes(length))
    with pytest.raises(FormatError):
        verify_consistency(old_size=1, old_root=bytes(length), new_size=1, new_root=bytes(32), proof=[])


def test_rows():
    row = leaf_row(map(entry, range(5)))
    assert [row[at : at + 32] for at in range(0, len(row), 32)] == [leaf_hash(entry(index)) for index in range(5)]
    assert fold_row(row) == node_hash(row[:32], row[32:64]) + node_hash(row[64:96], row[96:128])
    assert fold_row(row[:32]) == b""
    assert perfect_root(row[:128]) == mth(0, 4)


def test_hashing_is_fast():
    """65 536 leaves of the size ours have; about 0.2 s where this was written, so that a tree costs no thought."""
    begun = time.process_time()
    row = leaf_row([b"x" * 500] * 65536)
    perfect_root(row)
    assert time.process_time() - begun < 3
