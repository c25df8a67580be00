# SPDX-License-Identifier: Apache-2.0
"""What a transfer tells whoever watches it.

Calls come from several threads at once; an implementation must be safe for that, quick, and must not raise.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Watches one piece of work after another."""

    def start(self, label: str, total_bytes: int) -> None:
        """A piece of work begins, e.g. ``("pull acme/minilm", 90_000_000)``."""

    def advance(self, count: int) -> None:
        """``count`` more bytes of it are finished (for a pull: verified)."""

    def done(self) -> None:
        """The piece of work ended, successfully or not."""


class NullProgress:
    """Watches nothing."""

    def start(self, label: str, total_bytes: int) -> None:
        """Ignore the start."""

    def advance(self, count: int) -> None:
        """Ignore the bytes."""

    def done(self) -> None:
        """Ignore the end."""


def ignored(_count: int) -> None:
    """The default of every ``arrived``: nobody wants to know how many bytes came."""
