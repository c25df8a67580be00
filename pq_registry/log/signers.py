# SPDX-License-Identifier: Apache-2.0
"""The log's two keys: Ed25519 (0x01), which C2SP demands, and ML-DSA-44 (0x06), which carries the time.

Both are named by the origin. A checkpoint is the log's own only with both lines: one alone is not believed when the
log reads back what it stored, as it would not be by a client.
"""

from __future__ import annotations

from dataclasses import dataclass

from pq_registry.crypto.notesigning import NoteSigner, verify_line
from pq_registry.errors import CheckpointInvalid, SettingError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.format.note import Note, NoteKeyType


@dataclass(frozen=True, slots=True)
class LogSigners:
    """The keys of one log.

    Raises:
        SettingError: if they are of other types, or have two names.
    """

    ed25519: NoteSigner
    mldsa: NoteSigner

    def __post_init__(self) -> None:
        types = (self.ed25519.key.type, self.mldsa.key.type)
        if types != (NoteKeyType.ED25519, NoteKeyType.MLDSA44_COSIGNATURE):
            raise SettingError("not the keys of a log", expected="an Ed25519 and an ML-DSA-44 key", found=types)
        if self.ed25519.key.name != self.mldsa.key.name:
            raise SettingError(
                "the keys of a log have two names", expected=self.ed25519.key.name, found=self.mldsa.key.name
            )

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.ed25519.key.name

    @property
    def vkeys(self) -> str:
        """Both verifier keys, a line each."""
        return f"{self.ed25519.key}\n{self.mldsa.key}\n"

    def sign(self, checkpoint: Checkpoint, time: int) -> bytes:
        """The signed note of ``checkpoint``; ``time`` is in the ML-DSA-44 line."""
        lines = (self.ed25519.sign(checkpoint, time), self.mldsa.sign(checkpoint, time))
        return Note(checkpoint.encode(), lines).encode()

    def opened(self, note: bytes) -> tuple[Checkpoint, int]:
        """The checkpoint of a note that both keys signed, and the time they signed at.

        Raises:
            FormatError: if ``note`` is no checkpoint.
            CheckpointInvalid: if a line of the two is missing or wrong, or the checkpoint is of another log.
        """
        checkpoint, parsed = parse_checkpoint_note(note)
        if checkpoint.origin != self.origin:
            raise CheckpointInvalid("a checkpoint of another log", expected=self.origin, found=checkpoint.origin)
        times = []
        for key in (self.ed25519.key, self.mldsa.key):
            lines = parsed.lines_of(key)
            if len(lines) != 1:
                raise CheckpointInvalid(
                    "the log has not signed this checkpoint", expected=f"one line of {key.type.name}", found=len(lines)
                )
            times.append(verify_line(key, checkpoint, lines[0]))
        time = times[1]
        assert time is not None  # an ML-DSA-44 line always has one
        return checkpoint, time

    def own_lines(self, note: bytes) -> bytes:
        """``note`` without the lines of others.

        Raises:
            FormatError: if ``note`` is none.
        """
        parsed = Note.parse(note)
        kept = (*parsed.lines_of(self.ed25519.key), *parsed.lines_of(self.mldsa.key))
        return Note(parsed.text, kept).encode()
