# SPDX-License-Identifier: Apache-2.0
"""RFC 6962 §2.1 word for word: the recursive definitions, with no cleverness, to hold the real ones against."""

from __future__ import annotations

import hashlib
from functools import cache

LEAVES = 300


def entry(index: int) -> bytes:
    """Leaf ``index`` of every tree here."""
    return f"leaf {index}".encode()


def split(size: int) -> int:
    """The largest power of two smaller than ``size``."""
    k = 1
    while k * 2 < size:
        k *= 2
    return k


@cache
def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end])."""
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return hashlib.sha256(b"\x00" + entry(start)).digest()
    middle = start + split(end - start)
    return hashlib.sha256(b"\x01" + mth(start, middle) + mth(middle, end)).digest()


def path(index: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end]) of §2.1.1, m given as the absolute ``index``."""
    if end - start == 1:
        return []
    middle = start + split(end - start)
    if index < middle:
        return [*path(index, start, middle), mth(middle, end)]
    return [*path(index, middle, end), mth(start, middle)]


def proof(old: int, new: int) -> list[bytes]:
    """PROOF(m, D[0:new]) of §2.1.2."""
    return subproof(old, 0, new, known=True)


def subproof(old: int, start: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(m, D[start:end], b), m given as the absolute end ``old`` of the old tree."""
    if old == end:
        return [] if known else [mth(start, end)]
    middle = start + split(end - start)
    if old <= middle:
        return [*subproof(old, start, middle, known=known), mth(middle, end)]
    return [*subproof(old, middle, end, known=False), mth(start, middle)]
