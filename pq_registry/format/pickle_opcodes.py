# SPDX-License-Identifier: Apache-2.0
"""Recognising pickles without unpickling: a walk over opcodes that executes none of them.

Pickles of protocol 2 and later begin with a header. Older ones begin with anything, and protocol 0 is plain text, so
they are recognised by what they do: the walk keeps count of the stack, as an unpickler would, and answers yes when an
object named by module and attribute has been fetched and is then called. Bytes that an unpickler would stumble over
before that are no pickle that could do harm.

Limits: only the bytes given are walked, and a string reaching past their end is taken for text. A pickle that hides
behind such a string passes; this is why names that loaders unpickle are refused without looking (``executables``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PROTOCOLS = range(2, 6)
_PROTO: Final = 0x80
_MARK: Final = ord("(")
_STOP: Final = ord(".")
_TO_MARK: Final = -1


@dataclass(frozen=True, slots=True)
class _Form:
    """An opcode: bytes of fixed argument, lines of text, size of a length field, and what it does to the stack."""

    pops: int
    pushes: int
    fixed: int
    lines: int
    length: int


def _forms() -> dict[int, _Form]:
    forms: dict[int, _Form] = {}

    def add(opcodes: bytes, pops: int, pushes: int, *, fixed: int = 0, lines: int = 0, length: int = 0) -> None:
        forms.update((opcode, _Form(pops, pushes, fixed, lines, length)) for opcode in opcodes)

    add(b"N})]\x88\x89\x8f\x97", 0, 1)
    add(b"FILPSVg", 0, 1, lines=1)
    add(b"c", 0, 1, lines=2)
    add(b"Kh\x82", 0, 1, fixed=1)
    add(b"M\x83", 0, 1, fixed=2)
    add(b"Jj\x84", 0, 1, fixed=4)
    add(b"G", 0, 1, fixed=8)
    add(b"UC\x8a\x8c", 0, 1, length=1)
    add(b"TXB\x8b", 0, 1, length=4)
    add(b"\x8d\x8e\x96", 0, 1, length=8)
    add(b"p", 0, 0, lines=1)
    add(b"\x80q", 0, 0, fixed=1)
    add(b"r", 0, 0, fixed=4)
    add(b"\x95", 0, 0, fixed=8)
    add(b"(\x94", 0, 0)
    add(b"0.", 1, 0)
    add(b"ab", 2, 1)
    add(b"s", 3, 1)
    add(b"2", 1, 2)
    add(b"Q\x85\x98", 1, 1)
    add(b"R\x81\x86\x93", 2, 1)
    add(b"\x87\x92", 3, 1)
    add(b"tldo\x91", _TO_MARK, 1)
    add(b"i", _TO_MARK, 1, lines=2)
    add(b"1eu\x90", _TO_MARK, 0)
    return forms


_FORMS: Final = _forms()
_NAMES_OBJECT: Final = frozenset(b"ci\x82\x83\x84\x93")
_CALLS: Final = frozenset(b"Riob\x81\x92")


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a pickle of protocol 2 or later, or an older one that calls code."""
    if len(head) >= 2 and head[0] == _PROTO and head[1] in _PROTOCOLS:
        return True
    return _calls_code(head)


def _calls_code(head: bytes) -> bool:
    position = depth = 0
    marks: list[int] = []
    named = False
    while position < len(head):
        opcode = head[position]
        form = _FORMS.get(opcode)
        if form is None:
            return False
        position = _after_argument(head, position + 1, form)
        floor = marks[-1] if marks else 0
        if form.pops != _TO_MARK:
            depth -= form.pops
        elif marks:
            depth = floor = marks.pop()
        else:
            return False
        if depth < floor or position == 0:
            return False
        depth += form.pushes
        if opcode == _MARK:
            marks.append(depth)
        named = named or opcode in _NAMES_OBJECT
        if opcode == _STOP or (named and opcode in _CALLS):
            return opcode != _STOP
    return False


def _after_argument(head: bytes, position: int, form: _Form) -> int:
    """Where the next opcode stands, which may be past the end; 0 if a line of text has no end."""
    position += form.fixed
    for _line in range(form.lines):
        position = head.find(b"\n", position) + 1
        if position == 0:
            return 0
    if form.length:
        position += form.length + int.from_bytes(head[position : position + form.length], "little")
    return position
