# SPDX-License-Identifier: Apache-2.0
r"""Checkpoints, as in C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint): what a log says its tree is.

A checkpoint is the text of a signed note::

    <origin>\n
    <size, decimal>\n
    <base64(root hash)>\n

Extension lines are refused: an ML-DSA-44 cosignature does not cover them, so two readers could be shown different
ones under the same signature. The origin is the name of the log's keys. Nothing here verifies a signature.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.note import Note, check_key_name, check_note_text
from pq_registry.format.strict_json import decode_base64, encode_base64

HASH_BYTES: Final = 32
EMPTY_TREE: Final = hashlib.sha256(b"").digest()
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def parse_decimal(text: str, what: str, *, most: int = limits.TREE_SIZE) -> int:
    """An integer from 0 to ``most`` in its only decimal form: ASCII digits without sign or leading zero.

    Raises:
        FormatError: if ``text``, which is called ``what``, is anything else.
    """
    # int() alone would accept "1_0", " 5", "+7" and digits of other scripts.
    if not _DECIMAL.fullmatch(text) or int(text) > most:
        raise FormatError(f"{what} is malformed", expected=f"a decimal from 0 to {most}", found=repr(text)[:40])
    return int(text)


def parse_hash(text: str, what: str) -> bytes:
    """A SHA-256 hash in base64.

    Raises:
        FormatError: if ``text``, which is called ``what``, is anything else.
    """
    value = decode_base64(text, what=what, limit=HASH_BYTES)
    if len(value) != HASH_BYTES:
        raise FormatError(f"{what} is malformed", expected=f"{HASH_BYTES} bytes in base64", found=f"{len(value)} bytes")
    return value


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree: whose, how large, and its root."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if a field is impossible.
        """
        check_key_name(self.origin)
        if type(self.size) is not int or not 0 <= self.size <= limits.TREE_SIZE:
            raise FormatError(
                "a checkpoint's size is impossible", expected=f"0 to {limits.TREE_SIZE}", found=repr(self.size)[:40]
            )
        if len(self.root) != HASH_BYTES or (self.size == 0 and self.root != EMPTY_TREE):
            raise FormatError(
                "a checkpoint's root is impossible",
                expected="32 bytes; for the empty tree the hash of nothing",
                found=f"{self.root.hex()} at size {self.size}"[:120],
            )

    def encode(self) -> bytes:
        """The note's text."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read a note's text; ``parse(text).encode() == text``.

        Raises:
            FormatError: if ``text`` is no checkpoint of exactly our form.
        """
        if len(text) > limits.NOTE_BYTES:
            raise FormatError("the checkpoint is too large", expected=f"at most {limits.NOTE_BYTES} bytes")
        lines = check_note_text(text).split("\n")
        if len(lines) != 4:  # three lines, and what follows the last newline
            raise FormatError(
                "not a checkpoint",
                expected="origin, size and root, without extension lines",
                found=f"{len(lines) - 1} lines",
            )
        return cls(
            lines[0],
            parse_decimal(lines[1], "the checkpoint's size"),
            parse_hash(lines[2], "the checkpoint's root"),
        )


def parse_checkpoint_note(data: bytes) -> tuple[Checkpoint, Note]:
    """Read a signed note whose text is a checkpoint.

    Raises:
        FormatError: if ``data`` is not one.
    """
    note = Note.parse(data)
    return Checkpoint.parse(note.text), note
