# SPDX-License-Identifier: Apache-2.0
"""The Range header (RFC 9110 §14): one range of bytes, or the whole.

A header this module does not understand is ignored, as the RFC asks. Several ranges are refused: answering the whole
of a blob to someone who wanted a few bytes of it helps nobody, and multipart answers are a known way to make a server
work (CVE-2025-62727).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.exceptions import HTTPException

_ONE = re.compile(r"bytes=[ \t]*([0-9]{0,20})-([0-9]{0,20})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` to ``end`` (exclusive) of a whole of ``size`` bytes."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The Content-Range header."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range to serve of ``size`` bytes; None for the whole.

    Raises:
        HTTPException: 416 if the range begins behind the end, or there are several.
    """
    if header is None:
        return None
    if "," in header:
        raise _unsatisfiable("expected one range, found several", size)
    match = _ONE.fullmatch(header)
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        if match[2] and int(match[2]) < start:
            return None
        end = min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        raise _unsatisfiable("the range begins behind the end", size)
    return ByteRange(start, end, size)


def _unsatisfiable(detail: str, size: int) -> HTTPException:
    return HTTPException(416, detail, headers={"Content-Range": f"bytes */{size}"})
