# SPDX-License-Identifier: Apache-2.0
"""Follows a log: from the last checkpoint that was verified to the next, leaf by leaf.

In this order, each time a checkpoint is shown:

1. It is judged under the policies of the trust file: the log's own lines, and the quorum of witnesses. One without its
   quorum is believed nothing; but if the log signed it with both keys, it can still convict the log in step 2.
2. It is compared with the last one verified: a smaller tree is a rollback, and a tree whose beginning is not the old
   tree is equivocation. Both notes are then kept as evidence and nothing else changes, not even the state.
3. It is kept as the last one verified. From here on no other history is accepted, whatever happens to the rest.
4. The leaves that are new are read from the entry tiles and given out in batches; the tree over all leaves since the
   first is recomputed from them. At the end its root must be the checkpoint's.

The state is a checkpoint and, for the recomputation, at most 63 hashes. It moves on with every batch, so a monitor that
is killed at any point continues there, also when the log has grown meanwhile. Memory is bounded by a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

from pq_registry import limits
from pq_registry.errors import (
    CheckpointInvalid,
    LogMisbehaved,
    PqregError,
    QuorumNotMet,
)
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.digest import Digest
from pq_registry.format.forkproof import ForkProof
from pq_registry.format.instant import format_instant, from_unix, in_window
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.log.judge import Judged, attesting_first, judge, signed_by_log
from pq_registry.log.merkle import CompactRange, leaf_row
from pq_registry.log.misbehaviour import check_follows, equivocation
from pq_registry.log.tree import TileReader, Tree


@dataclass(frozen=True, slots=True)
class Followed:
    """How far a log has been followed: the last checkpoint verified, and the tree over the leaves read so far."""

    note: bytes
    size: int = 0
    peaks: tuple[bytes, ...] = ()

    @property
    def checkpoint(self) -> Checkpoint:
        """What the note says."""
        return parse_checkpoint_note(self.note)[0]


@dataclass(frozen=True, slots=True)
class Batch:
    """New leaves, the first of which has index ``start``; keep ``followed`` together with what was made of them."""

    start: int
    entries: list[bytes]
    followed: Followed


class MonitorState(Protocol):
    """Where a monitor keeps what it must not forget. Every method is durable before it returns."""

    def load(self) -> Followed | None:
        """What was kept last, or None before the first checkpoint."""

    def keep(self, followed: Followed) -> None:
        """Replace what was kept."""

    def keep_misbehaviour(self, error: LogMisbehaved, old: bytes, new: bytes, fork: ForkProof | None) -> None:
        """Keep two checkpoints that contradict each other; never over others that were kept before.

        Args:
            error: what they show.
            old: the one that was verified before.
            new: the one that was shown now.
            fork: that ``new`` does not continue ``old``, where it is the larger one.
        """


class Monitor:
    """One log as it is seen through ``reader``."""

    def __init__(self, reader: TileReader, policies: Sequence[LogPolicy], state: MonitorState) -> None:
        """Nothing is read yet.

        Args:
            reader: the log's tiles; nothing it gives is believed before it was authenticated.
            policies: those of the trust file.
            state: what is kept between runs.
        """
        self._reader = reader
        self._policies = policies
        self._state = state

    def accept(self, note: bytes) -> Judged:
        """Steps 1 to 3: judge a checkpoint and make it the one that is followed.

        Raises:
            LogRollback, LogEquivocation: if it contradicts the last one; both notes are kept, the state is not changed.
            CheckpointInvalid, QuorumNotMet: if no policy accepts it, or it is of another log than the one followed.
            LogError, FormatError: if the tiles do not belong to it.
            TransportError, StorageError: if tiles cannot be read or the state not be kept.
        """
        known = self._state.load()
        try:
            judged = judge_any(note, self._policies)
        except QuorumNotMet:
            # A second history is proof against the log as soon as the log has signed it; witnesses never would.
            signed = signed_by_log(note, self._policies)
            if known is not None and signed is not None:
                self._compare(known, signed, note)
            raise
        if known is None:
            self._state.keep(Followed(note))
            return judged
        self._compare(known, judged.checkpoint, note)
        if note != known.note:
            self._state.keep(replace(known, note=note))
        return judged

    def batches(self, note: bytes, *, leaves: int = limits.MONITOR_BATCH_LEAVES) -> Iterator[Batch]:
        """All four steps. The caller keeps each batch's ``followed`` before it asks for the next batch.

        Raises:
            LogMisbehaved: as ``accept``, or if the leaves do not give the root that the log signed.
            LogError, FormatError, TransportError, StorageError: as ``accept``.
        """
        self.accept(note)
        followed = self._state.load()
        assert followed is not None  # accept has kept it
        yield from self.remaining(followed, leaves=leaves)

    def remaining(self, followed: Followed, *, leaves: int = limits.MONITOR_BATCH_LEAVES) -> Iterator[Batch]:
        """Step 4 alone: what is still to be read of a checkpoint that was accepted."""
        checkpoint = followed.checkpoint
        if followed.size == checkpoint.size:
            return
        tree = Tree(self._reader, checkpoint.size, checkpoint.root)
        peaks = CompactRange.of(followed.size, followed.peaks)
        entries = tree.entries(followed.size, checkpoint.size)
        while peaks.size < checkpoint.size:
            start = peaks.size
            # Batches end where tiles do, so that after a kill no tile is asked for twice.
            batch = list(islice(entries, min(leaves - start % leaves, checkpoint.size - start)))
            if not batch:
                raise CheckpointInvalid("the log's tiles end before its checkpoint", expected=checkpoint.size,
                                        found=peaks.size)  # fmt: skip
            peaks.extend(leaf_row(batch))
            if peaks.size == checkpoint.size and peaks.root != checkpoint.root:
                # Each leaf was authenticated, and so was that the old tree is the start of the new one.
                raise CheckpointInvalid(
                    "the tree over the leaves that were read has another root than the log signed",
                    expected=checkpoint.root.hex(),
                    found=peaks.root.hex(),
                    hint="the state directory was altered, or this is a defect; keep the directory and report it",
                )
            yield Batch(start, batch, replace(followed, size=peaks.size, peaks=peaks.peaks))

    def advance(self, note: bytes) -> Iterator[tuple[int, bytes]]:
        """All four steps, leaf by leaf: ``(index, entry)``; the state moves on after each batch that was taken whole.

        Raises:
            LogMisbehaved, LogError, FormatError, TransportError, StorageError: as ``batches``.
        """
        for batch in self.batches(note):
            yield from enumerate(batch.entries, batch.start)
            self._state.keep(batch.followed)

    def _compare(self, known: Followed, new: Checkpoint, note: bytes) -> None:
        """Step 2."""
        old = known.checkpoint
        if new.origin != old.origin:
            raise CheckpointInvalid(
                "the registry shows another log than the one that is followed here",
                expected=old.origin,
                found=new.origin,
                hint="if the log was replaced on purpose, follow the new one with a state directory of its own",
            )
        fork = None
        try:
            check_follows(old, new)
            if 0 < old.size < new.size:
                # The old tree's root as the new tree has it, from tiles that were authenticated under the new root.
                tree = Tree(self._reader, new.size, new.root)
                root = tree.root_at(old.size)
                if root != old.root:
                    fork = ForkProof(Digest.of(known.note), Digest.of(note), root, tree.consistency_proof(old.size))
                    raise equivocation(old, new)
        except LogMisbehaved as error:
            self._state.keep_misbehaviour(error, known.note, note, fork)
            raise


def judge_any(note: bytes, policies: Sequence[LogPolicy]) -> Judged:
    """Judge a checkpoint under the first policy of its log that it satisfies, within that policy's window.

    Policies with an independent witness are tried before those without.

    Raises:
        CheckpointInvalid: if no policy is for this log, or its signatures are wrong.
        QuorumNotMet: if the cosignatures of no policy suffice.
        FormatError: if ``note`` is no checkpoint.
    """
    origin = parse_checkpoint_note(note)[0].origin
    refusal: PqregError | None = None
    for entry in attesting_first(policies):
        if entry.policy.origin != origin:
            continue
        try:
            judged = judge(note, entry.policy)
        except (CheckpointInvalid, QuorumNotMet) as error:
            refusal = error
            continue
        # A policy needs the log's own dated line (log-pq), so one of the two times is there.
        when = from_unix(judged.attested or judged.log_time or 0)
        if in_window(when, entry.not_before, entry.not_after):
            return judged
        refusal = CheckpointInvalid(
            f"the policy for {origin} does not hold at the time of this checkpoint", found=format_instant(when)
        )
    if refusal is None:
        refusal = CheckpointInvalid(
            "the trust file has no policy for this log",
            expected=", ".join(sorted({entry.policy.origin for entry in policies})) or "a policy",
            found=origin,
            hint="pqreg trust log add",
        )
    raise refusal


__all__ = ["Batch", "Followed", "Monitor", "MonitorState", "judge_any"]
