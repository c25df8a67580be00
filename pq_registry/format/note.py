# SPDX-License-Identifier: Apache-2.0
r"""Signed notes and verifier keys, as in C2SP signed-note (https://c2sp.org/signed-note).

A note is a text that ends in a newline, an empty line, and one or more signature lines::

    <text, ends in \n>
    \n
    — <name> <base64(key id || signature)>\n

It is split at its last empty line. A key is written ``<name>+<hex8(key id)>+<base64(type || public key)>``, and its id
is the first four bytes of SHA-256(name || 0x0A || type || public key). An id finds the line to verify and proves
nothing: a line counts once its signature has been verified under the whole key (``crypto.notesigning``).

``Note.parse(data).encode() == data`` and ``str(VerifierKey.parse(text)) == text``, or the bytes are refused. Names of
keys we are asked to know are stricter than signed-note's: printable, and at most 255 bytes of UTF-8, because that is
what an ML-DSA-44 cosignature can sign. Lines of unknown keys only have to be well formed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.strict_json import decode_base64, encode_base64

KEY_ID_BYTES: Final = 4
_DASH: Final = "\N{EM DASH} "
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]", re.ASCII)
_NOT_IN_NAME: Final = re.compile("[+\\x00-\\x1f\\ud800-\\udfff]")
"""A lone surrogate is no UTF-8; the rest is signed-note's."""
_HEX8: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)


class NoteKeyType(IntEnum):
    """The types of note keys that are known here; the number is the byte in the key's id."""

    ED25519 = 1
    ED25519_COSIGNATURE = 4
    MLDSA44_COSIGNATURE = 6

    @property
    def public_bytes(self) -> int:
        """Length of a public key."""
        return 1312 if self is NoteKeyType.MLDSA44_COSIGNATURE else 32

    @property
    def signature_bytes(self) -> int:
        """Length of what stands behind the key id in a line; a cosignature's time included."""
        return {1: 64, 4: 8 + 64, 6: 8 + 2420}[self.value]


def check_key_name(name: str) -> str:
    """The name of a key, and so an origin, unchanged.

    Raises:
        FormatError: if it is empty, too long, holds a space or a plus sign, or cannot be printed.
    """
    well_formed = isinstance(name, str) and name.isprintable() and _is_line_name(name)
    if not well_formed or len(name.encode("utf-8")) > limits.NOTE_NAME_BYTES:
        raise FormatError(
            "not the name of a note key",
            expected=f"1 to {limits.NOTE_NAME_BYTES} bytes of printable UTF-8 without spaces and '+'",
            found=repr(name)[:120],
        )
    return name


def _is_line_name(name: str) -> bool:
    # split() splits at every Unicode space; what is not a single word has one, or is empty.
    return name.split() == [name] and not _NOT_IN_NAME.search(name)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key of a log or witness, with the name under which it signs."""

    name: str
    type: NoteKeyType
    public_key: bytes

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the name cannot be a key's, or the key is not as long as its type demands.
        """
        check_key_name(self.name)
        if not isinstance(self.type, NoteKeyType) or len(self.public_key) != self.type.public_bytes:
            raise FormatError(
                "not a note key",
                expected="an Ed25519 or ML-DSA-44 public key",
                found=f"type {int(self.type)}, {len(self.public_key)} bytes",
            )

    @property
    def key_id(self) -> bytes:
        """The four bytes by which a signature line names this key."""
        return note_key_id(self.name, self.type, self.public_key)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey; ``str(parse(text)) == text``.

        Raises:
            FormatError: if ``text`` is no vkey, its type is unknown, or its id is that of another key.
        """
        name, key_id, rest = _three_parts(text, "a verifier key")
        material = decode_base64(rest, what="the verifier key", limit=1 + 1312)
        key = cls(name, known_type(material, "the verifier key"), material[1:])
        if key.key_id.hex() != key_id:
            raise FormatError("the verifier key's id is not that of its key", expected=key.key_id.hex(), found=key_id)
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"


def note_key_id(name: str, type_: NoteKeyType, public_key: bytes) -> bytes:
    """The id of a key: four bytes, by specification (signed-note, "Signature types")."""
    return hashlib.sha256(name.encode("utf-8") + b"\n" + bytes([type_]) + public_key).digest()[:KEY_ID_BYTES]


def known_type(material: bytes, what: str) -> NoteKeyType:
    """The type in the first byte of a key's encoding.

    Raises:
        FormatError: if there is none, or one that is not known here.
    """
    if not material or material[0] not in set(NoteKeyType):
        raise FormatError(
            f"{what} is of an unknown type",
            expected="1 (Ed25519), 4 (Ed25519 cosignature) or 6 (ML-DSA-44 cosignature)",
            found=material[0] if material else "nothing",
        )
    return NoteKeyType(material[0])


def _three_parts(text: str, what: str) -> tuple[str, str, str]:
    parts = text.split("+", 2)  # the base64 at the end may hold a plus sign
    if len(parts) != 3 or not _HEX8.fullmatch(parts[1]):
        raise FormatError(f"not {what}", expected="<name>+<8 lowercase hex digits>+<base64>", found=repr(text)[:120])
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line below a note's text, verified or not."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the name cannot stand in a line, the id has not four bytes or the signature none.
        """
        if not _is_line_name(self.name) or len(self.key_id) != KEY_ID_BYTES or not self.signature:
            raise FormatError(
                "not a signature line",
                expected="a name without spaces and '+', a key id of 4 bytes, a signature",
                found=f"{self.name!r}, {len(self.key_id)} and {len(self.signature)} bytes"[:200],
            )

    def encode(self) -> bytes:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n".encode()

    @classmethod
    def parse(cls, line: str) -> SignatureLine:
        """Read a line without its newline.

        Raises:
            FormatError: if it is none.
        """
        name, space, text = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise FormatError("not a signature line", expected="— <name> <base64>", found=repr(line)[:120])
        signature = decode_base64(text, what="a signature line", limit=limits.NOTE_BYTES)
        return cls(name, signature[:KEY_ID_BYTES], signature[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the lines below it."""

    text: bytes
    signatures: tuple[SignatureLine, ...]

    def __post_init__(self) -> None:
        """Refuse what ``parse`` would refuse.

        Raises:
            FormatError: if the text cannot be a note's, or there are no lines or too many.
        """
        check_note_text(self.text)
        if not 1 <= len(self.signatures) <= limits.NOTE_SIGNATURES:
            raise FormatError(
                "the note has no signature lines or too many",
                expected=f"1 to {limits.NOTE_SIGNATURES}",
                found=len(self.signatures),
            )

    def encode(self) -> bytes:
        """The exact bytes that are stored and sent."""
        return self.text + b"\n" + b"".join(line.encode() for line in self.signatures)

    def lines_of(self, key: VerifierKey) -> list[SignatureLine]:
        """The lines that claim to be of ``key``: name and id agree. None of them has been verified."""
        key_id = key.key_id
        return [line for line in self.signatures if line.name == key.name and line.key_id == key_id]

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note; ``parse(data).encode() == data``.

        Raises:
            FormatError: if ``data`` is no note, or larger than one may be.
        """
        return _parsed(bytes(data))


@lru_cache(16)
def _parsed(data: bytes) -> Note:
    # A receipt's note is read by the receipt, the judge and the verifier: values do not change, so one reading does.
    if len(data) > limits.NOTE_BYTES:
        raise FormatError(
            "the note is too large", expected=f"at most {limits.NOTE_BYTES} bytes", found=f"{len(data)} bytes"
        )
    end = data.rfind(b"\n\n")
    if end < 0:
        raise FormatError("not a note", expected="a text, an empty line and signature lines")
    return Note(data[: end + 1], parse_lines(data[end + 2 :]))


def check_note_text(text: bytes) -> str:
    """The text of a note, decoded.

    Raises:
        FormatError: if it does not end in a newline, is not UTF-8, or holds a control character.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("the note's text is not UTF-8", found=str(error)[:120]) from None
    if not decoded.endswith("\n") or _CONTROL.search(decoded):
        raise FormatError("not the text of a note", expected="lines that end in a newline, without control characters")
    return decoded


def parse_lines(data: bytes) -> tuple[SignatureLine, ...]:
    """Read signature lines, as they stand below a note or in a witness's answer.

    Raises:
        FormatError: if there are none or too many, or one is malformed.
    """
    text = check_note_text(data)
    lines = text.removesuffix("\n").split("\n", limits.NOTE_SIGNATURES)
    if len(lines) > limits.NOTE_SIGNATURES:
        raise FormatError("too many signature lines", expected=f"at most {limits.NOTE_SIGNATURES}")
    return tuple(SignatureLine.parse(line) for line in lines)
