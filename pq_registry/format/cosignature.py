# SPDX-License-Identifier: Apache-2.0
r"""What cosigners sign, as in C2SP tlog-cosignature (https://c2sp.org/tlog-cosignature).

A cosignature is ``u64be(timestamp) || signature``. The signature is over, for Ed25519 (note key type 0x04)::

    "cosignature/v1\n" "time <timestamp>\n" <text of the note>

and for ML-DSA-44 (0x06, pure, empty context)::

    "subtree/v1\n\0" || u8 len || cosigner || u64be timestamp || u8 len || origin || u64be start || u64be end || hash

of which a checkpoint is the case start = 0, end = size. A timestamp of 0 says nothing about when, so it is refused.
"""

from __future__ import annotations

import struct
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.note import check_key_name

_LABEL: Final = b"subtree/v1\n\0"
_TIMESTAMP: Final = struct.Struct(">Q")


def check_timestamp(timestamp: int) -> int:
    """The time of a cosignature in seconds since 1970, unchanged.

    Raises:
        FormatError: if it is not from 1 to 2^63 - 1.
    """
    if type(timestamp) is not int or not 1 <= timestamp <= limits.TIMESTAMP:
        raise FormatError(
            "a cosignature's time is impossible", expected=f"1 to {limits.TIMESTAMP}", found=repr(timestamp)[:40]
        )
    return timestamp


def ed25519_message(text: bytes, timestamp: int) -> bytes:
    """What an Ed25519 cosignature of the note with this ``text`` signs.

    Raises:
        FormatError: if ``timestamp`` is impossible.
    """
    return b"cosignature/v1\ntime %d\n%b" % (check_timestamp(timestamp), text)


def subtree_message(*, cosigner: str, timestamp: int, origin: str, start: int, end: int, root: bytes) -> bytes:
    """What an ML-DSA-44 cosignature of the leaves ``start`` to ``end`` signs.

    Raises:
        FormatError: if a field is impossible.
    """
    if not 0 <= start <= end <= limits.TREE_SIZE or len(root) != 32:
        raise FormatError("not a subtree", expected="0 <= start <= end, a root of 32 bytes", found=f"{start} to {end}")
    names = [check_key_name(name).encode("utf-8") for name in (cosigner, origin)]
    return b"".join(
        (
            _LABEL,
            bytes([len(names[0])]),
            names[0],
            _TIMESTAMP.pack(check_timestamp(timestamp)),
            bytes([len(names[1])]),
            names[1],
            struct.pack(">QQ", start, end),
            root,
        )
    )


def join_cosignature(timestamp: int, signature: bytes) -> bytes:
    """The bytes that stand in a note's line behind the key id.

    Raises:
        FormatError: if ``timestamp`` is impossible.
    """
    return _TIMESTAMP.pack(check_timestamp(timestamp)) + signature


def split_cosignature(signature: bytes) -> tuple[int, bytes]:
    """The time and the signature proper.

    Raises:
        FormatError: if ``signature`` is too short, or its time is 0 or beyond 2^63 - 1.
    """
    if len(signature) <= _TIMESTAMP.size:
        raise FormatError("not a cosignature", expected="a time and a signature", found=f"{len(signature)} bytes")
    return check_timestamp(_TIMESTAMP.unpack_from(signature)[0]), signature[_TIMESTAMP.size :]
