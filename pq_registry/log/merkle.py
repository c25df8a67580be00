# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of a log: its hashes, its proofs and the state from which it grows (RFC 6962 §2.1, RFC 9162 §2.1).

A leaf is hashed as ``SHA-256(00 || entry)`` and a node as ``SHA-256(01 || left || right)``, so that neither can pose as
the other. Proofs list hashes of 32 bytes from the leaf's side to the root's. Whatever a proof does not need must not be
in it, and the sizes are part of what is checked: an index that is not in the tree is refused before anything is hashed.

Whether two trees that disagree are equivocation is judged by the callers, who hold the signed checkpoints.

Rows of hashes are kept as one ``bytes``, 32 to a hash: one object for a whole tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from pq_registry import limits
from pq_registry.errors import ConsistencyInvalid, FormatError, LogError, ReceiptInvalid
from pq_registry.format.tile import HASH_BYTES

EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two halves."""
    return sha256(b"\x01" + left + right).digest()


def leaf_row(entries: Iterable[bytes]) -> bytes:
    """The hashes of leaves, in a row."""
    return b"".join([sha256(b"\x00" + entry).digest() for entry in entries])


def fold_row(row: bytes) -> bytes:
    """The row above: each pair of hashes as one node. An odd hash at the end has no partner yet and is left out."""
    pairs = range(0, len(row) - HASH_BYTES, 2 * HASH_BYTES)
    return b"".join([sha256(b"\x01" + row[at : at + 2 * HASH_BYTES]).digest() for at in pairs])


def perfect_root(row: bytes) -> bytes:
    """The root over a power of two of hashes."""
    while len(row) > HASH_BYTES:
        row = fold_row(row)
    return row


def root_from_inclusion(*, index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root of the tree of ``size`` leaves in which the leaf hash ``leaf`` stands at ``index`` (RFC 9162 §2.1.3.2).

    Raises:
        FormatError: if a hash has not 32 bytes.
        ReceiptInvalid: if no such tree exists, or the proof has another length than it must have.
    """
    _check_size(size, ReceiptInvalid)
    if type(index) is not int or not 0 <= index < size:
        raise ReceiptInvalid("no such leaf in a tree of this size", expected=f"0 to {size - 1}", found=repr(index)[:80])
    _check_hashes((leaf, *proof))
    # Up to the level where the path to the leaf joins the right edge every level has a sibling; above it only those
    # where the edge itself is a right child.
    inner = (index ^ (size - 1)).bit_length()
    needed = inner + (index >> inner).bit_count()
    if len(proof) != needed:
        raise ReceiptInvalid(
            f"an inclusion proof of leaf {index} in a tree of {size} has another length",
            expected=f"{needed} hashes",
            found=f"{len(proof)}",
        )
    node = leaf
    for level, sibling in enumerate(proof):
        left = level >= inner or index >> level & 1
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    return node


def verify_inclusion(*, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash ``leaf`` stands at ``index`` in the tree of ``size`` leaves with this ``root``.

    Raises:
        FormatError: if a hash has not 32 bytes.
        ReceiptInvalid: if it does not, or the proof has not exactly the shape it must have.
    """
    _check_hashes((root,))
    found = root_from_inclusion(index=index, size=size, leaf=leaf, proof=proof)
    if found != root:
        raise ReceiptInvalid(
            f"the proof does not lead from leaf {index} to the root of the checkpoint",
            expected=root.hex(),
            found=found.hex(),
        )


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is the start of the new one (RFC 9162 §2.1.4.2).

    The empty tree is the start of every tree and equal trees need no proof; either way the proof must be empty.

    Raises:
        FormatError: if a hash has not 32 bytes.
        ConsistencyInvalid: if the proof does not show it, has another shape, or the old tree is the larger one.
    """
    _check_size(old_size, ConsistencyInvalid)
    _check_size(new_size, ConsistencyInvalid)
    _check_hashes((old_root, new_root, *proof))
    if old_size > new_size:
        raise ConsistencyInvalid("the tree has shrunk", expected=f"at least {old_size} leaves", found=f"{new_size}")
    for size, root in ((old_size, old_root), (new_size, new_root)):
        if size == 0 and root != EMPTY_ROOT:
            raise ConsistencyInvalid("an empty tree has another root", expected=EMPTY_ROOT.hex(), found=root.hex())
    if old_size in {0, new_size}:
        _check_length(proof, 0, old_size, new_size)
        roots = (old_root, old_root if old_size else new_root)
    else:
        roots = _roots_from_consistency(old_size, old_root, new_size, proof)
    for name, expected, found in (("old", old_root, roots[0]), ("new", new_root, roots[1])):
        if found != expected:
            raise ConsistencyInvalid(
                f"the proof does not lead to the {name} tree's root ({old_size} and {new_size} leaves)",
                expected=expected.hex(),
                found=found.hex(),
            )


def _roots_from_consistency(
    old_size: int, old_root: bytes, new_size: int, proof: Sequence[bytes]
) -> tuple[bytes, bytes]:
    # The proof is that of the old tree's last perfect subtree in the new tree, with that subtree's hash before it
    # unless it is the whole old tree and so known.
    shift = (old_size & -old_size).bit_length() - 1
    index, last = (old_size - 1) >> shift, (new_size - 1) >> shift
    inner = (index ^ last).bit_length()
    known = index == 0
    _check_length(proof, inner + (index >> inner).bit_count() + (not known), old_size, new_size)
    seed, rest = (old_root, proof) if known else (proof[0], proof[1:])
    old = new = seed
    for level, sibling in enumerate(rest):
        if level >= inner or index >> level & 1:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old, new


class CompactRange:
    """A growing tree of which only the roots of its perfect subtrees are kept: at most 63 hashes."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add the hash of the next leaf."""
        peaks, rest = self._peaks, self.size
        while rest & 1:
            leaf = sha256(b"\x01" + peaks.pop() + leaf).digest()
            rest >>= 1
        peaks.append(leaf)
        self.size += 1

    def extend(self, row: bytes) -> None:
        """Add the hashes of the next leaves, in a row."""
        for at in range(0, len(row), HASH_BYTES):
            self.append(row[at : at + HASH_BYTES])

    @classmethod
    def of(cls, size: int, peaks: Sequence[bytes]) -> CompactRange:
        """The state that ``peaks`` gave.

        Raises:
            FormatError: if a tree of ``size`` leaves has another number of perfect subtrees, or a hash not 32 bytes.
        """
        _check_size(size, FormatError)
        _check_hashes(peaks)
        if len(peaks) != size.bit_count():
            raise FormatError(
                f"not the state of a tree of {size} leaves",
                expected=f"{size.bit_count()} hashes",
                found=f"{len(peaks)}",
            )
        made = cls()
        made.size, made._peaks = size, list(peaks)
        return made

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest first."""
        return tuple(self._peaks)

    @property
    def root(self) -> bytes:
        """The root of the tree."""
        return root_of_peaks(self._peaks)


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that get smaller from left to right; EMPTY_ROOT over none."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def _check_size(size: int, error: type[LogError | FormatError]) -> None:
    if type(size) is not int or not 0 <= size <= limits.TREE_SIZE:
        raise error("no tree has this size", expected=f"0 to {limits.TREE_SIZE}", found=repr(size)[:80])


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for value in hashes:
        if len(value) != HASH_BYTES:
            raise FormatError("not a SHA-256 hash", expected=f"{HASH_BYTES} bytes", found=f"{len(value)} bytes")


def _check_length(proof: Sequence[bytes], needed: int, old_size: int, new_size: int) -> None:
    if len(proof) != needed:
        raise ConsistencyInvalid(
            f"a consistency proof from {old_size} to {new_size} leaves has another length",
            expected=f"{needed} hashes",
            found=f"{len(proof)}",
        )
