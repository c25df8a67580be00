# SPDX-License-Identifier: Apache-2.0
"""A log that contradicts itself: what two signed checkpoints prove, and how the proof is kept.

Two checkpoints under the log's own key are all the evidence there is, and all that is needed: whoever has both can show
them to anybody. So both notes are written down before anything else happens, under names made of their content, and
nothing that was written is ever replaced. Case B4 of the attack list.

That a larger tree does not continue a smaller one takes a consistency proof and is judged by ``log.monitor``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pq_registry.durable import make_directory, write_file
from pq_registry.errors import AlreadyExists, LogEquivocation, LogRollback
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest

SUFFIX = ".note"


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


def keep_notes(directory: Path, *notes: bytes) -> tuple[Path, ...]:
    """Write each note to ``directory`` as ``<sha256 of the note>.note``, durably; what is there already stays.

    Raises:
        StorageError: if a note cannot be written.
    """
    make_directory(directory, 0o700)
    paths = []
    for note in notes:
        path = directory / f"{Digest.of(note).hex}{SUFFIX}"
        with contextlib.suppress(AlreadyExists):  # the name is the content's digest: it is this note
            write_file(path, note, mode=0o600, replace=False)
        paths.append(path)
    return tuple(paths)
