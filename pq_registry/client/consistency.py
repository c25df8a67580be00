# SPDX-License-Identifier: Apache-2.0
"""Online, the log itself is asked: is its newest tree a continuation of everything it has shown this client?

A receipt proves that a statement is in *a* tree the log has signed, and does not age. Whether the log shows everybody
the same tree, and whether it goes on at all, is seen here (attack cases B4 and B10):

1. The newest checkpoint is fetched and judged by a policy of the trust file in whose window its time lies.
2. It is not smaller than the checkpoint kept from last time, or than that of any receipt just verified; and each of
   their trees is its beginning. That is computed from the log's tiles, which are themselves checked against its root.
   Otherwise both notes are kept as evidence, and nothing more is believed.
3. It becomes the checkpoint that is kept.
4. Its time must not lie ``limits.CHECKPOINT_STALE_SECONDS`` in the past: a log renews its checkpoint even if nothing is
   added, so an old one means that somebody withholds what came later. Nor must it lie ahead, beyond what clocks may
   differ: it would count as new for as long as somebody wants to withhold what comes.

A checkpoint that lacks cosignatures only is not kept, and the newest one known decides whether this is stale: its
witnesses may be out of reach. But the log has signed it, so it is held against what is known (2) all the same: honest
witnesses do not cosign a fork. A verifier that is not online lets what cannot be asked pass, and says so; a log that
contradicts itself is refused always.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pq_registry import limits
from pq_registry.client.checkpoints import Checkpoints
from pq_registry.client.logroutes import LogRoutes
from pq_registry.client.trust import Verifier
from pq_registry.errors import (
    CheckpointInvalid,
    LogError,
    LogMisbehaved,
    LogStale,
    QuorumNotMet,
    TransportError,
    at_step,
)
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.instant import format_instant, from_unix
from pq_registry.format.tlogpolicy import LogPolicy, Policy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.judge import Judged, attesting_first, judge
from pq_registry.log.misbehaviour import check_follows, equivocation
from pq_registry.log.tree import Tree

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Freshness:
    """What asking the log gave: a sentence for people, and whether the log is known to be consistent and current."""

    note: str
    current: bool


class RemoteFiles:
    """The files of a registry's log, read when they are needed. A ``TileReader``."""

    def __init__(self, client: LogRoutes) -> None:
        self._client = client

    def read(self, path: str) -> bytes:
        """The file at ``path``.

        Raises:
            NotFound: if there is none.
            TransportError: if the registry does not answer.
        """
        return self._client.log_file(path)


def ask_log(client: LogRoutes, verifier: Verifier, checkpoints: Checkpoints) -> Freshness:
    """Steps 1 to 4 above.

    Args:
        client: the registry whose log it is.
        verifier: whose trust file has log policies.
        checkpoints: the memory of what the log has shown; the receipts this verifier has accepted count as well.

    Raises:
        LogRollback, LogEquivocation: if the log contradicts itself; the proof is kept.
        LogStale: if the verifier is online and the newest checkpoint to be had is too old.
        CheckpointInvalid: if it comes from the future, or no policy knows the log, or a signature is wrong.
        LogError: if the checkpoint or a tile is not what it should be.
        TransportError: if the verifier is online and the log cannot be asked.
        StorageError: if the memory cannot be read or written.
    """
    known = _shown(checkpoints, verifier)
    try:
        with at_step(4):
            newest = _newest(client, verifier, checkpoints, known)
    except TransportError as error:
        if verifier.online:
            raise
        return Freshness(f"log freshness: not checked, the log cannot be asked: {error.message}", current=False)
    if newest is None:
        return _judge_age(verifier, _latest(known), "its newest checkpoint lacks the cosignatures of its witnesses; ")
    checkpoints.advance(newest.checkpoint, newest.note)
    return _judge_age(verifier, _Shown(newest.checkpoint, newest.note, _time_of(newest)), "")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A checkpoint that was verified, and the time its signatures state, as far as that is known."""

    checkpoint: Checkpoint
    note: bytes
    time: datetime | None


def _shown(checkpoints: Checkpoints, verifier: Verifier) -> list[_Shown]:
    """What the logs of the trust file have shown this client: the checkpoints kept, and those of receipts."""
    found = []
    for origin in sorted({entry.policy.origin for entry in _policies(verifier)}):
        kept = checkpoints.get(origin)
        if kept is not None:
            found.append(_Shown(*kept, _stated_time(kept[1], verifier)))
    for receipt in verifier.receipts:
        note = TlogProof.parse(receipt.proof).checkpoint
        found.append(_Shown(receipt.checkpoint, note, receipt.attested or from_unix(receipt.leaf.time)))
    return found


def _newest(client: LogRoutes, verifier: Verifier, checkpoints: Checkpoints, known: list[_Shown]) -> Judged | None:
    """The newest checkpoint, judged and held against what is known; None if it lacks cosignatures only."""
    note = client.log_file(_CHECKPOINT)
    if any(_is_smaller(note, one.checkpoint) for one in known):
        note = client.log_file(_CHECKPOINT)  # a cache on the way may still have had the one before
    judged, accepted = _judged(note, verifier)
    tree: Tree | None = None
    for one in known:
        if one.checkpoint.origin != judged.checkpoint.origin:
            continue  # of the log before this one
        try:
            check_follows(one.checkpoint, judged.checkpoint)
            if one.checkpoint.size not in (0, judged.checkpoint.size):
                tree = tree or _tree(client, judged.checkpoint)
                # The tiles were checked against the new root, so another old root is no transmission error.
                if tree.root_at(one.checkpoint.size) != one.checkpoint.root:
                    raise equivocation(one.checkpoint, judged.checkpoint)
        except LogMisbehaved as error:
            raise checkpoints.convicted(error, one.note, judged.note) from None
    return judged if accepted else None


def _tree(client: LogRoutes, checkpoint: Checkpoint) -> Tree:
    return Tree(RemoteFiles(client), checkpoint.size, checkpoint.root)


def _is_smaller(note: bytes, known: Checkpoint) -> bool:
    checkpoint, _ = parse_checkpoint_note(note)
    return checkpoint.origin == known.origin and checkpoint.size < known.size


def _judged(note: bytes, verifier: Verifier) -> tuple[Judged, bool]:
    """The checkpoint under the first policy that accepts it at its time; else as the log alone signed it, and False."""
    checkpoint, _ = parse_checkpoint_note(note)
    refusal: CheckpointInvalid | None = None
    alone: Judged | None = None
    for entry in attesting_first(_policies(verifier)):
        if entry.policy.origin != checkpoint.origin:
            continue
        try:
            judged = judge(note, entry.policy)
            if entry.covers(_time_of(judged)):
                return judged, True
        except QuorumNotMet:
            alone = judge(note, Policy.compose(entry.policy.log, entry.policy.log_pq, (), 0))
        except CheckpointInvalid as error:
            refusal = error
    if alone is not None:
        return alone, False
    raise refusal or CheckpointInvalid(
        "no log policy of the trust file holds for the log of this registry",
        expected=", ".join(sorted({entry.policy.origin for entry in _policies(verifier)})),
        found=f"{checkpoint.origin}, {checkpoint.size} leaves",
        hint="pqreg trust log add FILE --from URL adds a log; pqreg trust log list shows which hold from when to when",
    )


def _time_of(judged: Judged) -> datetime:
    stated = judged.log_time if judged.attested is None else judged.attested
    return from_unix(stated or 0)


def _stated_time(note: bytes, verifier: Verifier) -> datetime | None:
    """The time of a checkpoint kept from before, if the trust file of today accepts it."""
    try:
        judged, accepted = _judged(note, verifier)
    except LogError:
        return None
    return _time_of(judged) if accepted else None


def _latest(known: list[_Shown]) -> _Shown | None:
    times = [(one.time, one) for one in known if one.time is not None]
    return max(times, key=lambda pair: pair[0])[1] if times else None


def _judge_age(verifier: Verifier, newest: _Shown | None, why: str) -> Freshness:
    if newest is None or newest.time is None:
        if verifier.online:
            raise QuorumNotMet(
                "the log has no checkpoint that its witnesses vouch for",
                hint="the log may be without its witnesses at the moment; if it stays so, ask its operator",
            )
        return Freshness("log freshness: not checked, the log has no checkpoint that counts", current=False)
    age = verifier.now - newest.time
    label = f"{why}the newest checkpoint that counts has {newest.checkpoint.size} leaves"
    when = format_instant(newest.time)
    if age < -timedelta(seconds=limits.CLOCK_SKEW_SECONDS):
        if verifier.online:
            raise CheckpointInvalid(
                f"the log {newest.checkpoint.origin} is ahead of time: {label}",
                expected=f"a time of {format_instant(verifier.now)} or before",
                found=when,
                hint="check the clock of this machine; if it is right, ask the log's operator and its witnesses",
            )
        return Freshness(f"log freshness: not checked, {label}, of {when}, which is yet to come", current=False)
    if age <= timedelta(seconds=limits.CHECKPOINT_STALE_SECONDS):
        return Freshness(f"log freshness: {label}, of {when}", current=not why)
    if verifier.online:
        raise LogStale(
            f"the log {newest.checkpoint.origin} seems frozen: {label}",
            expected=f"one of the last {limits.CHECKPOINT_STALE_SECONDS // 3600} hours",
            found=when,
            hint="somebody withholds what came later, or the log has stopped: ask its operator; the clock of this "
            "machine counts too",
        )
    return Freshness(f"log freshness: stale, {label}, of {when}", current=False)


def _policies(verifier: Verifier) -> tuple[LogPolicy, ...]:
    log = verifier.trust.log
    return log if isinstance(log, tuple) else ()
