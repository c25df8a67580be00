# SPDX-License-Identifier: Apache-2.0
"""Receipts, made when they are asked for from tiles and published checkpoints, and checked before they are handed out.

A leaf's receipt is under the first checkpoint that covers it and meets the service's own policy; that one was attested
soonest. Where witnesses were away, it is under the first checkpoint that covers it at all, and ``quorum`` is false.

Nothing is taken from the tile store on trust: tiles are authenticated under a checkpoint whose signatures verify, and
each inclusion proof is verified against the leaf rebuilt from the envelope, by its whole hash (case B7). What does not
fit is a failure of the storage, never a receipt.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

from pq_registry import limits
from pq_registry.errors import FormatError, LogError, NotFound, QuorumNotMet, StorageError
from pq_registry.format.leaf import Leaf
from pq_registry.format.tlogpolicy import Policy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.judge import Judged, judge
from pq_registry.log.merkle import leaf_hash, verify_inclusion
from pq_registry.log.stores import LogLock, TileStore
from pq_registry.log.tree import Tree

_NEWEST = 8
"""Checkpoints whose leaves are remembered: those of the batches that are being answered."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A receipt of a leaf, and whether it meets the service's own policy in the time allowed."""

    receipt: bytes
    quorum: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """A published checkpoint that was judged, and its tree."""

    judged: Judged
    quorum: bool
    tree: Tree


class Receipts:
    """Makes receipts; may be used from many threads."""

    def __init__(self, lock: LogLock, tiles: TileStore, policy: Policy) -> None:
        self._lock = lock
        self._tiles = tiles
        self._policy = policy
        self._log_alone = Policy.compose(policy.log, policy.log_pq, [], 0)
        self._known = lru_cache(limits.LOG_KNOWN_CHECKPOINTS)(self._look_at)
        self._covered: tuple[tuple[int, _Known], ...] = ()
        self._turn = threading.Lock()

    def of(self, leaf: Leaf, index: int) -> Proof | None:
        """The receipt of ``leaf``, which is at ``index``; None while no published checkpoint covers it.

        Raises:
            StorageError: if what is stored does not prove that.
        """
        entry = leaf.encode()
        try:
            known = self._covering(index)
            if known is None:
                return None
            checkpoint = known.judged.checkpoint
            hashes = known.tree.inclusion_proof(index)
            verify_inclusion(
                index=index, size=checkpoint.size, leaf=leaf_hash(entry), proof=hashes, root=checkpoint.root
            )
            receipt = TlogProof(index, hashes, known.judged.note, entry).encode()
        except (LogError, FormatError, NotFound) as error:
            raise StorageError(
                f"the log's stored files do not prove leaf {index}: {error.message}",
                expected=error.expected,
                found=error.found,
                hint="run pqreg fsck",
            ) from error
        return Proof(receipt, known.quorum and _in_time(known.judged.attested, leaf))

    def _covering(self, index: int) -> _Known | None:
        """The checkpoint for a leaf. The leaves of a batch ask for theirs at the same time: one of them looks it up."""
        found = self._remembered(index)
        if found is not None:
            return found
        with self._turn:
            found = self._remembered(index)
            if found is not None:
                return found
            note = self._lock.published_covering(index)
            if note is None:
                return None
            known = self._known(note)
            if known.quorum:
                # The first with a quorum that covers this leaf is that of every leaf from here to its end. One without
                # may be bettered.
                others = [entry for entry in self._covered if entry[1] is not known]
                sizes = [entry[1].judged.checkpoint.size for entry in others]
                before = max((size for size in sizes if size < index), default=index)
                start = before if before < index and self._lock.published_covering(before) == note else index
                self._covered = ((start, known), *others[: _NEWEST - 1])
            return known

    def _remembered(self, index: int) -> _Known | None:
        covered = self._covered
        return next((known for start, known in covered if start <= index < known.judged.checkpoint.size), None)

    def _look_at(self, note: bytes) -> _Known:
        try:
            judged, quorum = judge(note, self._policy), True
        except QuorumNotMet:
            judged, quorum = judge(note, self._log_alone), False
        checkpoint = judged.checkpoint
        return _Known(judged, quorum, Tree(self._tiles, checkpoint.size, checkpoint.root))


def _in_time(attested: int | None, leaf: Leaf) -> bool:
    # Without a witness besides the log itself nobody attests the time; a policy without any is met all the same.
    return attested is None or leaf.time <= attested <= leaf.time + limits.ATTESTATION_SECONDS
