# SPDX-License-Identifier: Apache-2.0
"""Who signed a model before it was imported, as far as that was verified."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pq_registry.format.importing import Verified

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class SignedBy:
    """A payload, how its signature was verified, and whose it is, in the words of the import statement."""

    payload: bytes
    verified: Verified
    details: tuple[tuple[str, str], ...]


def printable(text: str) -> str:
    """Text of somebody else's making as an import statement may quote it; never empty."""
    return _UNPRINTABLE.sub("?", text)[:1000] or "?"
