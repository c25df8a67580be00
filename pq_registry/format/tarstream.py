# SPDX-License-Identifier: Apache-2.0
"""The one form of tar a volume of a bundle has: plain files in POSIX ustar, each header the only one its file can have.

Archives are where two readers see two different things (attack case C8), so nothing here is interpreted. A member is a
regular file with a short ASCII name; mode 0644, owner, group and time are zero, and there is no link, directory,
prefix, extension or sparse map. Whoever reads knows which name comes next. The size is read from the header, the header
with that name and that size is written again, and the two must be the same 512 bytes::

    header(name, size)    512 bytes    POSIX.1-1988 ustar: magic "ustar", NUL, "00"; size in 11 octal digits and NUL
    the file's bytes, then zeros up to a multiple of 512
    … and so on; at the end 1024 zero bytes, and nothing behind them

>>> parse_header(header("bundle.json", 300), "bundle.json")
300
"""

from __future__ import annotations

import re
from typing import Final

from pq_registry.errors import FormatError

BLOCK: Final = 512
MEMBER_BYTES: Final = 8**11 - 1
"""The largest size eleven octal digits can state: 8 GiB less one byte."""
END: Final = bytes(2 * BLOCK)
"""What stands behind the last member."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,79})?", re.ASCII)
_SIZE = slice(124, 136)
_OCTAL = re.compile(rb"[0-7]{11}\0")
_CHECKSUM = slice(148, 156)


def header(name: str, size: int) -> bytes:
    """The header of a file.

    Raises:
        FormatError: if no member can have this name or size.
    """
    if not _NAME.fullmatch(name) or len(name) > 100:
        raise FormatError("a volume has no such member", expected="a short plain name", found=repr(name)[:120])
    if not 0 <= size <= MEMBER_BYTES:
        raise FormatError(f"{name} does not fit a volume", expected=f"at most {MEMBER_BYTES} bytes", found=size)
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode("ascii")
    block[100:124] = b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
    block[_SIZE] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"  # time
    block[156:157] = b"0"  # a regular file
    block[257:265] = b"ustar\x0000"
    block[329:345] = b"0000000\0" * 2  # device numbers
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def parse_header(block: bytes, name: str, *, limit: int = MEMBER_BYTES) -> int:
    """The size in a header that must be that of the member ``name``; ``header(name, size) == block``.

    Raises:
        FormatError: if it is another header, or states more than ``limit`` bytes.
    """
    if len(block) != BLOCK:
        raise FormatError(f"the header of {name} is cut off", expected=f"{BLOCK} bytes", found=f"{len(block)} bytes")
    digits = bytes(block[_SIZE])
    size = int(digits[:-1], 8) if _OCTAL.fullmatch(digits) else -1
    if size < 0 or header(name, size) != block:
        raise FormatError(
            f"the volume does not go on with {name}",
            expected=f"the header of {name}, as it is written in a bundle",
            found=_described(block),
            hint="it is damaged or was not made by pqreg bundle export; copy it again from where it came",
        )
    if size > limit:
        raise FormatError(f"{name} is too large", expected=f"at most {limit} bytes", found=f"{size} bytes")
    return size


def padding(size: int) -> int:
    """How many zeros follow the bytes of a member of this size."""
    return -size % BLOCK


def member_bytes(size: int) -> int:
    """How much of a volume a member of this size takes."""
    return BLOCK + size + padding(size)


def _described(block: bytes) -> str:
    if not any(block):
        return "the end of the archive"
    if bytes(block[257:262]) != b"ustar":
        return "no ustar header"
    text = bytes(block[:100]).rstrip(b"\0").decode("ascii", "backslashreplace")
    return f"another header, named {text!r}"[:120]
