# SPDX-License-Identifier: Apache-2.0
"""A log that contradicts itself: what two signed checkpoints prove, and how the proof is kept.

Two checkpoints under the log's own key are all the evidence there is, and all that is needed: whoever has both can show
them to anybody. So both notes are written down before anything else happens, under names made of their content, and
nothing that was written is ever replaced. Case B4 of the attack list.

That a larger tree does not continue a smaller one is found by ``log.monitor``, from the log's own tiles, and shown to
others by a fork proof (``format.forkproof``).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pq_registry.durable import make_directory, write_file
from pq_registry.errors import AlreadyExists, ConsistencyInvalid, FormatError, LogEquivocation, LogRollback
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.forkproof import ForkProof
from pq_registry.log.merkle import verify_consistency

SUFFIX = ".note"
FORK_SUFFIX = ".fork"


def check_follows(old: Checkpoint, new: Checkpoint) -> None:
    """Compare two checkpoints of one log by what they say alone; ``new`` was shown after ``old``.

    Raises:
        LogRollback: if the tree has become smaller.
        LogEquivocation: if two trees of one size have different roots.
    """
    if new.size < old.size:
        raise LogRollback(
            f"the log {old.origin} shows a smaller tree than before",
            expected=f"{old.size} leaves or more",
            found=f"{new.size} leaves",
            hint="keep both checkpoints; compare with the log's witnesses, and ask its operator",
        )
    if new.size == old.size and new.root != old.root:
        raise equivocation(old, new)


def equivocation(old: Checkpoint, new: Checkpoint) -> LogEquivocation:
    """The error for two signed trees of which neither is the start of the other."""
    return LogEquivocation(
        f"the log {old.origin} has signed two trees that contradict each other",
        expected=f"a tree that continues the one of {old.size} leaves with root {old.root.hex()}",
        found=f"one of {new.size} leaves with root {new.root.hex()}, which does not",
        hint="this is proof of misbehaviour: keep both checkpoints, believe neither, and show them to others",
    )


def proves_fork(proof: ForkProof, old: Checkpoint, new: Checkpoint) -> bool:
    """Whether ``new`` is shown to be no continuation of ``old``; both are signed, which is not looked at here."""
    try:
        verify_consistency(
            old_size=old.size, old_root=proof.root, new_size=new.size, new_root=new.root, proof=proof.hashes
        )
    except (ConsistencyInvalid, FormatError):
        return False
    return proof.root != old.root and old.origin == new.origin


def keep_notes(directory: Path, *notes: bytes) -> tuple[Path, ...]:
    """Write each note to ``directory`` as ``<sha256 of the note>.note``, durably; what is there already stays.

    Raises:
        StorageError: if a note cannot be written.
    """
    return tuple(keep_evidence(directory, note, SUFFIX) for note in notes)


def keep_evidence(directory: Path, data: bytes, suffix: str) -> Path:
    """Write ``data`` to ``directory`` under its SHA-256, durably; what is there already stays.

    Raises:
        StorageError: if it cannot be written.
    """
    make_directory(directory, 0o700)
    path = directory / f"{Digest.of(data).hex}{suffix}"
    with contextlib.suppress(AlreadyExists):  # the name is the content's digest: it is this content
        write_file(path, data, mode=0o600, replace=False)
    return path
