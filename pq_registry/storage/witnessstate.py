# SPDX-License-Identifier: Apache-2.0
"""The state directory of a witness.

::

    DIR/lock                                     flock(2) held while a witness runs; the file itself means nothing
    DIR/logs/<sha256(origin)>/checkpoint         the newest cosigned checkpoint of a log
    DIR/logs/<sha256(origin)>/equivocation/      pairs of notes that prove that the log equivocates
    DIR/logs/<sha256(origin)>/unproven/          pairs for which no consistency was shown
    DIR/witness.key                              the keys, unless kept elsewhere (``pqreg_keys.notekeyfile``)

Writes are those of ``durable``: whole or not at all, and answered only after the directory was synced. The directory
must not be restored from a backup or copied to a second witness with the same keys: either makes the witness sign two
histories, which is what it is there to prevent.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pq_registry import durable, limits
from pq_registry.format.digest import Digest
from pq_registry.log.misbehaviour import keep_notes
from pq_registry.storage.datadir import DataDirectory, DataLock

KEY_NAME = "witness.key"
_CHECKPOINT = "checkpoint"


class WitnessState:
    """Implements ``WitnessStore`` in a directory that no other process uses meanwhile."""

    def __init__(self, root: Path) -> None:
        """Make the directory if it is missing, and lock it.

        Raises:
            StorageError: if another witness uses it, or it cannot be made.
        """
        self.root = root
        durable.make_directory(root / "logs", 0o700)
        self._lock = DataLock(DataDirectory(root))

    def close(self) -> None:
        """Let another process use the directory."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def folder(self, origin: str) -> Path:
        """Where everything about a log stands."""
        return self.root / "logs" / Digest.of(origin.encode("utf-8")).hex

    def load(self, origin: str) -> bytes | None:
        """The newest cosigned checkpoint of a log; None if there never was one.

        Raises:
            StorageError: if it cannot be read.
        """
        folder = self.folder(origin)
        path = folder / _CHECKPOINT
        durable.make_directory(folder, 0o700)
        durable.sweep(folder)
        with durable.reported("read", path):
            try:
                with path.open("rb") as file:
                    return file.read(limits.NOTE_BYTES + 1)
            except FileNotFoundError:
                return None

    def store(self, origin: str, note: bytes) -> None:
        """Replace it, durably.

        Raises:
            StorageError: if it may not be durable.
        """
        durable.write_file(self.folder(origin) / _CHECKPOINT, note, mode=0o600)

    def keep_evidence(self, origin: str, kind: str, notes: Sequence[bytes]) -> None:
        """Keep the notes, durably, up to ``limits.WITNESS_EVIDENCE`` of a kind; nothing kept before is replaced.

        Raises:
            StorageError: if they cannot be written.
        """
        folder = self.folder(origin) / kind
        if self.evidence(origin, kind) + len(notes) <= limits.WITNESS_EVIDENCE:
            keep_notes(folder, *notes)

    def evidence(self, origin: str, kind: str) -> int:
        """How many notes of a kind are kept.

        Raises:
            StorageError: if they cannot be listed.
        """
        folder = self.folder(origin) / kind
        with durable.reported("list", folder):
            try:
                return sum(path.suffix == ".note" for path in folder.iterdir())
            except FileNotFoundError:
                return 0
