# SPDX-License-Identifier: Apache-2.0
"""The newest checkpoint of each log this client has verified, and the proof where a log contradicts itself.

``STATE/logs/<sha256 of the origin>`` holds the exact note. It only moves to a tree that continues the one before; that
is for the caller to check. It is keyed by the log's name and not by URL: whoever serves the log is held to what was
seen. ``STATE/evidence/<sha256 of the note>.note`` are the notes that together prove misbehaviour; nothing that lies
there is ever replaced or removed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pq_registry import limits
from pq_registry.client.state import locked, read_record
from pq_registry.durable import make_directory, write_file
from pq_registry.errors import FormatError, LogMisbehaved
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.misbehaviour import check_follows, equivocation, keep_notes
from pq_registry.log.receipt import Receipt


class Checkpoints:
    """The record under ``state_dir``, which is made when there is something to record."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "logs"
        self._evidence = state_dir / "evidence"

    def get(self, origin: str) -> tuple[Checkpoint, bytes] | None:
        """The newest checkpoint of this log, and its note.

        Raises:
            FormatError: if the record is damaged.
            StorageError: if it cannot be read.
        """
        path = self._path(origin)
        note = read_record(path, limits.NOTE_BYTES)
        if note is None:
            return None
        try:
            checkpoint, _ = parse_checkpoint_note(note)
            if checkpoint.origin != origin:
                raise FormatError("the checkpoint is of another log", expected=origin, found=checkpoint.origin)
        except FormatError as error:
            raise FormatError(
                f"the record of the last checkpoint seen of {origin} is damaged",
                expected=error.expected,
                found=error.found or error.message,
                hint=f"find out who changed {path}; deleting it allows the log to show another tree",
            ) from None
        return checkpoint, note

    def advance(self, checkpoint: Checkpoint, note: bytes) -> None:
        """Record a checkpoint that continues the one recorded; a larger one recorded meanwhile stays.

        Raises:
            LogEquivocation: if one of the same size and another root was recorded meanwhile; both are kept.
            StorageError: if it cannot be written.
        """
        make_directory(self._directory, 0o700)
        with locked(self._directory):
            known = self.get(checkpoint.origin)
            if known is not None and known[0].size == checkpoint.size and known[0].root != checkpoint.root:
                raise self.convicted(equivocation(known[0], checkpoint), known[1], note)
            if known is None or known[0].size <= checkpoint.size:
                write_file(self._path(checkpoint.origin), note, mode=0o600)

    def compare(self, receipt: Receipt) -> None:
        """Hold a receipt's checkpoint against the one recorded, as far as that goes without the log's tiles.

        Raises:
            LogEquivocation: if the two trees have one size and are not the same; both notes are kept.
            FormatError: if the record is damaged.
            StorageError: if it cannot be read, or the evidence cannot be written.
        """
        known = self.get(receipt.checkpoint.origin)
        if known is None or known[0].size != receipt.checkpoint.size:
            return
        try:
            check_follows(known[0], receipt.checkpoint)
        except LogMisbehaved as error:
            raise self.convicted(error, known[1], TlogProof.parse(receipt.proof).checkpoint) from None

    def convicted(self, error: LogMisbehaved, *notes: bytes) -> LogMisbehaved:
        """The same error, after the notes that prove it have been written down.

        Raises:
            StorageError: if they cannot be written.
        """
        paths = keep_notes(self._evidence, *notes)
        kept = "the evidence is kept: " + " ".join(str(path) for path in paths)
        error.hint = kept if error.hint is None else f"{error.hint}; {kept}"
        return error

    def _path(self, origin: str) -> Path:
        return self._directory / hashlib.sha256(origin.encode()).hexdigest()
