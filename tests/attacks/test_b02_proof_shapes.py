# SPDX-License-Identifier: Apache-2.0
"""B2, proofs of a shape that no tree has: wrong index or size, too long, too short, a leaf posing as a node.

Each is tried for every size to 300 (the small ones with every index), on the bare proof and, for some, through a whole
receipt. Sigstore's Python client lacked the check of the index; without lengths being demanded, a proof for one size
can be read as one for another.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import ConsistencyInvalid, FormatError, PqregError, ReceiptInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.leaf import Kind
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.merkle import EMPTY_ROOT, leaf_hash, node_hash, verify_consistency, verify_inclusion
from pq_registry.log.receipt import verify_receipt
from tests.brute_tree import LEAVES, entry, mth, path, proof
from tests.logsamples import MemoryLog
from tests.samples import publisher, tag_statement

SIZES = [*range(1, 34), 63, 64, 65, 127, 128, 129, 255, 256, 257, LEAVES]
FILL = b"\x55" * 32


def refused(index, size, leaf, hashes, root) -> None:
    with pytest.raises(ReceiptInvalid):
        verify_inclusion(index=index, size=size, leaf=leaf, proof=hashes, root=root)


@pytest.mark.parametrize("size", SIZES)
def test_an_index_that_is_not_in_the_tree(size):
    leaf, root = leaf_hash(entry(size - 1)), mth(0, size)
    hashes = path(size - 1, 0, size)
    for index in (size, size + 1, 2 * size, 2**63, -1, -size):
        refused(index, size, leaf, hashes, root)


@pytest.mark.parametrize("size", SIZES)
def test_the_right_proof_at_another_index(size):
    for index in range(size) if size < 34 else (0, 1, size // 2, size - 1):
        hashes = path(index, 0, size)
        for other in {index ^ 1, index + 1, index - 1, 0, size - 1} - {index}:
            refused(other, size, leaf_hash(entry(index)), hashes, mth(0, size))


@pytest.mark.parametrize("size", SIZES)
def test_too_long_and_too_short(size):
    for index in {0, size // 2, size - 1}:
        leaf, root, hashes = leaf_hash(entry(index)), mth(0, size), path(index, 0, size)
        for altered in (hashes[:-1], hashes[1:], [*hashes, FILL], [FILL, *hashes], [*hashes, root], hashes + hashes):
            if len(altered) != len(hashes):
                refused(index, size, leaf, altered, root)


@pytest.mark.parametrize("size", SIZES)
def test_a_proof_read_for_another_size(size):
    """The root fits; only the size that the checkpoint names does not."""
    for index in {0, size // 2, size - 1}:
        hashes = path(index, 0, size)
        for other in {size - 1, size + 1, 2 * size, size // 2} - {size}:
            try:
                verify_inclusion(index=index, size=other, leaf=leaf_hash(entry(index)), proof=hashes, root=mth(0, size))
            except ReceiptInvalid:
                continue
            # Where the path has the same shape in both trees no check of the proof alone can tell them apart: the size
            # is bound to the root by the signature on the checkpoint.
            assert shape(index, other) == shape(index, size)


def shape(index: int, size: int) -> list[bool]:
    """For each sibling on the path, whether it stands on the left."""
    sides, start, end = [], 0, size
    while end - start > 1:
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        left = index >= middle
        sides.append(left)
        start, end = (middle, end) if left else (start, middle)
    return sides


def test_the_empty_tree_includes_nothing():
    for index in (0, -1, 1):
        for leaf in (EMPTY_ROOT, leaf_hash(b"")):
            refused(index, 0, leaf, [], EMPTY_ROOT)
            refused(index, 0, leaf, [FILL], EMPTY_ROOT)


def test_a_tree_of_one_leaf_has_an_empty_proof():
    verify_inclusion(index=0, size=1, leaf=leaf_hash(b""), proof=[], root=leaf_hash(b""))
    refused(0, 1, leaf_hash(b""), [leaf_hash(b"")], leaf_hash(b""))
    refused(0, 1, leaf_hash(b"x"), [], leaf_hash(b""))
    refused(0, 1, EMPTY_ROOT, [], leaf_hash(b""))


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 255, 256, 257])
def test_a_node_posing_as_a_leaf(size):
    """The node over leaves 0 and 1 is hash 0 of a tree of half the size, with the same root."""
    leaf = node_hash(leaf_hash(entry(0)), leaf_hash(entry(1)))
    hashes = path(0, 0, size)[1:]
    refused(0, size, leaf, hashes, mth(0, size))
    # As an entry, the node's bytes get the leaf's prefix and so another hash.
    entry_of_node = leaf_hash(b"\x01" + leaf_hash(entry(0)) + leaf_hash(entry(1)))
    half = (size + 1) // 2
    if shape(0, half) == shape(0, size)[:-1]:
        refused(0, half, entry_of_node, hashes, mth(0, size))


def test_a_leaf_posing_as_a_node():
    """An entry that spells out a node does not hash to it."""
    left, right = leaf_hash(b"left"), leaf_hash(b"right")
    for crafted in (left + right, b"\x01" + left + right, b"\x00" + left + right):
        assert leaf_hash(crafted) != node_hash(left, right)
    assert leaf_hash(b"") != EMPTY_ROOT


@pytest.mark.parametrize("size", [-1, 2**63, 2**64, True, 1.0, "1", None])
def test_sizes_that_no_tree_has(size):
    refused(0, size, FILL, [], FILL)
    for old, new in ((size, 1), (1, size)):
        with pytest.raises(ConsistencyInvalid):
            verify_consistency(old_size=old, old_root=FILL, new_size=new, new_root=FILL, proof=[])


def inconsistent(old: int, old_root: bytes, new: int, new_root: bytes, hashes: list[bytes]) -> None:
    with pytest.raises(ConsistencyInvalid):
        verify_consistency(old_size=old, old_root=old_root, new_size=new, new_root=new_root, proof=hashes)


@pytest.mark.parametrize("new", SIZES[1:])
def test_consistency_proofs_too_long_and_too_short(new):
    for old in {1, new // 2, new - 1} - {0}:
        hashes = proof(old, new)
        roots = (mth(0, old), mth(0, new))
        for altered in (hashes[:-1], hashes[1:], [*hashes, FILL], [FILL, *hashes], [roots[0], *hashes], []):
            if len(altered) != len(hashes):
                inconsistent(old, roots[0], new, roots[1], altered)


def test_consistency_from_nothing_and_with_itself():
    root = mth(0, 5)
    verify_consistency(old_size=0, old_root=EMPTY_ROOT, new_size=5, new_root=root, proof=[])
    verify_consistency(old_size=5, old_root=root, new_size=5, new_root=root, proof=[])
    verify_consistency(old_size=0, old_root=EMPTY_ROOT, new_size=0, new_root=EMPTY_ROOT, proof=[])
    inconsistent(0, EMPTY_ROOT, 5, root, [root])
    inconsistent(0, FILL, 5, root, [])
    inconsistent(0, EMPTY_ROOT, 0, FILL, [])
    inconsistent(5, root, 5, root, [root])
    inconsistent(5, root, 5, mth(0, 4), [])
    inconsistent(5, mth(0, 4), 5, root, [])


@pytest.mark.parametrize("new", [1, 2, 5, 256])
def test_a_tree_that_shrinks(new):
    for old in (new + 1, 2 * new, 300):
        inconsistent(old, mth(0, old), new, mth(0, new), proof(new, old))
        inconsistent(old, mth(0, old), new, mth(0, new), [])


# -- through a receipt -----------------------------------------------------------------------------------------------
SIGNER = publisher()
STATEMENT: dict[str, Any] = {
    "envelope": sign_envelope(tag_statement(Digest.of(b"release")).encode(), SIGNER),
    "kind": Kind.TAG,
    "name": "acme/minilm",
    "identity": SIGNER.identity.id,
}


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: {"index": proof.index + 1},
        lambda proof: {"index": proof.index - 1},
        lambda proof: {"index": proof.index + 256},
        lambda proof: {"index": limits.TREE_SIZE - 1},
        lambda proof: {"hashes": proof.hashes[:-1]},
        lambda proof: {"hashes": (*proof.hashes, FILL)},
        lambda proof: {"hashes": ()},
        lambda proof: {"hashes": tuple(reversed(proof.hashes))},
        lambda proof: {"hashes": (FILL,) * limits.PROOF_HASHES},
    ],
    ids=["next", "previous", "beyond", "last possible", "short", "long", "none", "reversed", "63"],
)
def test_a_receipt_of_another_shape(change):
    log = MemoryLog(witnesses=1)
    log.append_raw(*[b"x"] * 99)
    log.append(**STATEMENT)
    log.append_raw(*[b"x"] * 100)
    log.publish()
    genuine = TlogProof.parse(log.receipt(99))
    verify_receipt(genuine.encode(), **STATEMENT, policies=log.policies())
    forged = dataclasses.replace(genuine, **change(genuine)).encode()
    with pytest.raises(ReceiptInvalid):
        verify_receipt(forged, **STATEMENT, policies=log.policies())


@pytest.mark.parametrize("index", ["-1", "+5", " 5", "5 ", "05", "1_0", "٣", "0x5", "", "5.0", "9223372036854775807"])
def test_an_index_written_otherwise(index):
    log = MemoryLog()
    log.append_raw(*[b"x"] * 5)
    data = log.log(**STATEMENT)
    assert b"\nindex 5\n" in data
    with pytest.raises(PqregError) as refusal:
        verify_receipt(
            data.replace(b"\nindex 5\n", f"\nindex {index}\n".encode()), **STATEMENT, policies=log.policies()
        )
    assert isinstance(refusal.value, (FormatError, ReceiptInvalid))
