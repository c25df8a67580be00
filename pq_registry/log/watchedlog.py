# SPDX-License-Identifier: Apache-2.0
"""What a witness needs of its surroundings: the keys of the logs it watches, and a store for what it has signed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

from pq_registry.crypto.notesigning import verify_line
from pq_registry.errors import CheckpointInvalid, FormatError, SettingError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.note import Note, NoteKeyType, SignatureLine, VerifierKey

_LOG_TYPES: Final = (NoteKeyType.ED25519, NoteKeyType.MLDSA44_COSIGNATURE)


class Evidence(StrEnum):
    """What a pair of notes shows."""

    EQUIVOCATION = "equivocation"
    UNPROVEN = "unproven"


class WitnessStore(Protocol):
    """Where a witness keeps what it has signed; ``storage.witnessstate``."""

    def load(self, origin: str) -> bytes | None:
        """The newest cosigned checkpoint of a log; None if there never was one.

        Raises:
            StorageError: if it cannot be read.
        """
        ...

    def store(self, origin: str, note: bytes) -> None:
        """Replace it, durably.

        Raises:
            StorageError: if it may not be durable.
        """
        ...

    def keep_evidence(self, origin: str, kind: str, notes: Sequence[bytes]) -> None:
        """Keep both notes, durably; nothing kept before is replaced.

        Raises:
            StorageError: if they cannot be written.
        """
        ...


class WatchedLog:
    """A log a witness was told to watch. All of ``keys`` must have signed a checkpoint."""

    def __init__(self, keys: Sequence[VerifierKey]) -> None:
        """Take the log's keys.

        Raises:
            SettingError: if there are none, or they have several names or other types.
        """
        names = {key.name for key in keys}
        if (
            len(names) != 1
            or len({key.type for key in keys}) != len(keys)
            or {key.type for key in keys} - {*_LOG_TYPES}
        ):
            raise SettingError(
                "not the keys of a log",
                expected="one or both of an Ed25519 (1) and an ML-DSA-44 (6) key of one name",
                found=", ".join(f"{key.name} ({key.type.value})" for key in keys)[:300] or "nothing",
            )
        self.origin = keys[0].name
        self.keys = tuple(keys)

    @classmethod
    def parse(cls, text: str) -> WatchedLog:
        """A log from its verifier keys, a line each, as ``pqreg log vkey`` prints them.

        Raises:
            FormatError: if a line is no verifier key.
            SettingError: if the keys are not those of one log.
        """
        if not text.endswith("\n"):
            raise FormatError("not a list of verifier keys", expected="a key per line")
        return cls([VerifierKey.parse(line) for line in text.removesuffix("\n").split("\n")])

    def own_note(self, checkpoint: Checkpoint, note: Note) -> bytes:
        """``note`` with the lines of the log's keys only, each of which verifies.

        Raises:
            CheckpointInvalid: if one is missing, or a line of one is not valid.
        """
        lines: list[SignatureLine] = []
        for key in self.keys:
            found = note.lines_of(key)
            for line in found:
                verify_line(key, checkpoint, line)
            if not found:
                raise CheckpointInvalid("the checkpoint is not signed by the log", expected=str(key.key_id.hex()))
            lines.append(found[0])
        return Note(note.text, tuple(lines)).encode()

    def check_lines(self, checkpoint: Checkpoint, note: Note) -> None:
        """Check what a witness stored: one key may have been added since, so not all need have signed.

        Raises:
            CheckpointInvalid: if no configured key has signed, or a line of one is not valid.
        """
        lines = [(key, line) for key in self.keys for line in note.lines_of(key)]
        if not lines:
            raise CheckpointInvalid("the checkpoint is not signed by the log", expected=self.origin)
        for key, line in lines:
            verify_line(key, checkpoint, line)
