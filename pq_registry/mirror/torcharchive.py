# SPDX-License-Identifier: Apache-2.0
"""What must hold of a file of torch before anybody hands it to torch: looked at from outside, nothing is unpacked.

``torch.save`` writes a ZIP archive without compression: a small pickle with the names and shapes, and one entry per
storage. This reads the archive's directory and refuses whatever torch does not write: compressed entries (a bomb, and
bytes that mean one thing to who maps them and another to who unpacks them), entries that overlap or are named twice,
a directory that is not at the end, two places that disagree, and the formats of torch before 1.6, which are a pickle
from the first byte.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError

_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64: Final = 1
_ENCRYPTED: Final = 1 | 1 << 6 | 1 << 13


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    offset: int
    size: int


def check_archive(descriptor: int, size: int) -> None:
    """Refuse a file that is not as ``torch.save`` writes them since torch 1.6.

    Raises:
        FormatError: saying what is not so.
        OSError: if it cannot be read.
    """
    if os.pread(descriptor, 4, 0) != b"PK\x03\x04":
        raise FormatError(
            "it is not in the format that torch.save writes since torch 1.6", expected="an archive with tensors",
            found="a pickle, a damaged file, or something else", hint="save it anew with a current torch",
        )  # fmt: skip
    count, at, length = _find_directory(descriptor, size)
    if count > limits.CONVERT_ARCHIVE_ENTRIES or length > limits.CONVERT_DIRECTORY_BYTES:
        raise FormatError("its directory is too large", expected=f"{limits.CONVERT_ARCHIVE_ENTRIES} entries at most")
    entries = _entries(_read(descriptor, at, length), count)
    if len({entry.name for entry in entries}) != len(entries):
        raise FormatError("two entries have the same name")
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset < position:
            raise FormatError("its entries overlap", found=repr(entry.name)[:120])
        position = _data_offset(descriptor, entry) + entry.size
        if entry.name.endswith(b"/data.pkl") and entry.size > limits.CONVERT_PICKLE_BYTES:
            raise FormatError("its pickle is too large", expected=f"{limits.CONVERT_PICKLE_BYTES} bytes at most")
    if position > at:
        raise FormatError("its entries overlap the directory")


def _read(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset) if offset >= 0 else b""
    if len(data) != length:
        raise FormatError("it is cut off, or its directory is damaged", hint="fetch it again")
    return data


def _find_directory(descriptor: int, size: int) -> tuple[int, int, int]:
    """How many entries the directory lists, where it begins and how long it is."""
    end = size - _END.size
    signature, disk, first, here, count, length, at, comment = _END.unpack(_read(descriptor, end, _END.size))
    if signature != b"PK\x05\x06" or comment:
        raise FormatError("it does not end as an archive of torch does: it is cut off, or something was added")
    place = end - _LOCATOR.size
    found, disk64, where, disks = _LOCATOR.unpack(_read(descriptor, place, _LOCATOR.size))
    if found == b"PK\x06\x07":
        record = _END64.unpack(_read(descriptor, where, _END64.size))
        signature, own, _, _, disk, first, here64, count64, length64, at64 = record
        told = ((here, here64, _FULL16), (count, count64, _FULL16), (length, length64, _FULL32), (at, at64, _FULL32))
        if signature != b"PK\x06\x06" or own != _END64.size - 12 or where + _END64.size != place:
            raise FormatError("the end of its directory is damaged")
        if disk64 or disks != 1 or any(short not in (long, full) for short, long, full in told):
            raise FormatError("the two ends of its directory disagree")
        here, count, length, at, end = here64, count64, length64, at64, where
    if disk or first or here != count or not count or at + length != end:
        raise FormatError("its directory is damaged, or in several files")
    return count, at, length


def _entries(directory: bytes, count: int) -> list[_Entry]:
    entries: list[_Entry] = []
    at = 0
    while at < len(directory) and len(entries) < count:
        if at + _ENTRY.size > len(directory):
            break
        head = _ENTRY.unpack_from(directory, at)
        signature, flags, method = head[0], head[3], head[4]
        packed, size, named, extra, comment, disk, offset = *head[8:14], head[16]
        rest = directory[at + _ENTRY.size : at + _ENTRY.size + named + extra + comment]
        if signature != b"PK\x01\x02" or len(rest) != named + extra + comment or disk or comment:
            break
        name = rest[:named]
        size, packed, offset = _wide(rest[named : named + extra], size, packed, offset)
        if method or packed != size or flags & _ENCRYPTED:
            raise FormatError(
                "an entry is compressed or encrypted", expected="entries as torch.save writes them",
                found=repr(name)[:120], hint="save it anew with a current torch",
            )  # fmt: skip
        entries.append(_Entry(name, offset, size))
        at += _ENTRY.size + len(rest)
    if at != len(directory) or len(entries) != count:
        raise FormatError("its directory is damaged")
    return entries


def _wide(extra: bytes, *values: int) -> tuple[int, int, int]:
    """Size, packed size and offset, with what the extra field says of those that need more than 32 bits."""
    wide: list[int] | None = None
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            if wide is not None or length % 8 or at + 4 + length > len(extra):
                raise FormatError("an entry's sizes are damaged")
            wide = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
        at += 4 + length
    if at != len(extra):
        raise FormatError("an entry's extra field is damaged")
    full = [value for value in values if value == _FULL32]
    if len(wide or ()) != len(full):
        raise FormatError("an entry's sizes are damaged")
    rest = iter(wide or ())
    size, packed, offset = (next(rest) if value == _FULL32 else value for value in values)
    return size, packed, offset


def _data_offset(descriptor: int, entry: _Entry) -> int:
    """Where an entry's bytes begin, by the header before them, which must agree with the directory."""
    head = _LOCAL.unpack(_read(descriptor, entry.offset, _LOCAL.size))
    signature, method = head[0], head[3]
    named, extra = int(head[9]), int(head[10])
    name = _read(descriptor, entry.offset + _LOCAL.size, named)
    if signature != b"PK\x03\x04" or method or name != entry.name:
        raise FormatError("an entry is not where the directory says", found=repr(entry.name)[:120])
    return entry.offset + _LOCAL.size + named + extra
