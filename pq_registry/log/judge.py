# SPDX-License-Identifier: Apache-2.0
"""Whether a checkpoint is to be believed: signed by the policy's log, and cosigned as the policy demands.

In this order (C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-policy):

1. The note is parsed strictly and its origin is the policy's log.
2. The log's Ed25519 line is there and verifies.
3. Every line of a witness the policy names verifies. A known key with a wrong signature refuses the whole note, even
   if the quorum could be met without it: somebody has tampered. Lines of unknown keys are ignored.
4. The names that verified meet the quorum. Policies that could be met without ML-DSA-44 do not load: see
   ``format.tlogpolicy``.

The attested time is the largest among the cosignatures of the policy's witnesses other than the log itself: the tree
existed by then at the latest. Without such a witness there is none, whatever time the log itself has signed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import CheckpointInvalid, QuorumNotMet
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import Note, VerifierKey
from pq_registry.format.tlogpolicy import LOG_PQ, LogPolicy, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A checkpoint that a policy accepts.

    ``attested`` is the attested time and ``log_time`` the one the log signed itself, in seconds since 1970;
    ``cosigners`` are the key names of the quorum's independent witnesses whose lines verified, so a witness with two
    keys is one of them; the log itself is not.
    """

    checkpoint: Checkpoint
    note: bytes
    attested: int | None
    log_time: int | None
    cosigners: frozenset[str]


def judge(note: bytes, policy: Policy) -> Judged:
    """The checkpoint in ``note``, if ``policy`` accepts it.

    Raises:
        FormatError: if ``note`` is not a checkpoint of exactly our form.
        CheckpointInvalid: if it is of another log, lacks the log's signature, or carries a wrong one of a known key.
        QuorumNotMet: if the cosignatures that verify are not enough.
    """
    checkpoint, parsed = parse_checkpoint_note(note)
    if checkpoint.origin != policy.origin:
        raise CheckpointInvalid("the checkpoint is of another log", expected=policy.origin, found=checkpoint.origin)
    if not _verified(parsed, checkpoint, policy.log):
        raise CheckpointInvalid(
            "the checkpoint is not signed by the log of the policy",
            expected=f"a line of {policy.log.name}+{policy.log.key_id.hex()}",
            found=", ".join(f"{line.name}+{line.key_id.hex()}" for line in parsed.signatures)[:300],
        )
    times = {
        name: max(time or 0 for time in verified)
        for name, witness in policy.witnesses.items()
        if (verified := _verified(parsed, checkpoint, witness.key))
    }
    if not policy.satisfied(times.keys()):
        raise QuorumNotMet(
            "too few witnesses have cosigned the checkpoint",
            expected=f"the quorum of {policy.origin}'s policy over {', '.join(sorted(policy.witnesses))}",
            found=", ".join(sorted(times)) or "no cosignature",
            hint="the log may be without its witnesses at the moment; if it stays so, ask its operator",
        )
    attesting = frozenset(times) & policy.attesting
    return Judged(
        checkpoint=checkpoint,
        note=note,
        attested=max((times[name] for name in attesting), default=None),
        log_time=times.get(LOG_PQ),
        cosigners=frozenset(policy.witnesses[name].key.name for name in attesting),
    )


def attesting_first(policies: Iterable[LogPolicy]) -> list[LogPolicy]:
    """Policies in the order in which they are tried: one that gives an attested time before one that cannot."""
    return sorted(policies, key=lambda entry: not entry.policy.attesting)


def signed_by_log(note: bytes, policies: Iterable[LogPolicy]) -> Checkpoint | None:
    """The checkpoint in ``note`` if its log signed it with both of its keys, whoever else did; None if not.

    Enough to convict a log of two histories, and to believe nothing: that needs ``judge``. Both keys are asked for, so
    that nobody who has broken Ed25519 can accuse a log of what it did not do.

    Raises:
        FormatError: if ``note`` is not a checkpoint of exactly our form.
        CheckpointInvalid: if a line of the log is wrong.
    """
    checkpoint, parsed = parse_checkpoint_note(note)
    for entry in policies:
        keys = (entry.policy.log, entry.policy.log_pq)
        if entry.policy.origin == checkpoint.origin and all(_verified(parsed, checkpoint, key) for key in keys):
            return checkpoint
    return None


def _verified(note: Note, checkpoint: Checkpoint, key: VerifierKey) -> list[int | None]:
    """The times in the lines of ``key``, all of which verify; empty if it has signed nothing."""
    return [verify_line(key, checkpoint, line) for line in note.lines_of(key)]
