# SPDX-License-Identifier: Apache-2.0
"""SHA-256 digests as values. No path or URL is built from a digest in any other form.

The written form is ``sha256:`` and 64 lowercase hex digits, and nothing else parses.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pq_registry.errors import NameSyntaxError

_WRITTEN = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest; ``hex`` is 64 lowercase hex digits."""

    hex: str

    def __post_init__(self) -> None:
        """Refuse anything but 64 lowercase hex digits.

        Raises:
            NameSyntaxError: if ``hex`` is anything else.
        """
        if not isinstance(self.hex, str) or not _HEX.fullmatch(self.hex):
            raise NameSyntaxError("not a SHA-256 digest", expected="64 lowercase hex digits", found=repr(self.hex)[:80])

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read the written form.

        Raises:
            NameSyntaxError: if ``text`` is not ``sha256:`` and 64 lowercase hex digits.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise NameSyntaxError("not a digest", expected="sha256:<64 lowercase hex digits>", found=repr(text)[:80])
        return cls(match[1])

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Digest:
        """The digest of ``data``."""
        return cls(hashlib.sha256(data).hexdigest())

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self.hex)

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
