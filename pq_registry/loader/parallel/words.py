# SPDX-License-Identifier: Apache-2.0
"""What the processes of a group tell one another before anything is exchanged: go on, or why not.

Each says one word at the same point, and hears everybody's. Only if all say "go on", about the same thing, do they go
on; otherwise every one of them ends with an error: its own if it has one, else that of the first that failed, in the
same class. So nobody waits for a process that found a damaged shard, and no exchange is begun that cannot end.

A word is text of at most ``limits.LOADER_WORD_BYTES``: ``go`` and what about, or the class, message, expected, found
and hint of an error. Nothing in it is executed or unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from pq_registry import errors, limits
from pq_registry.errors import ConnectionFailed, PqregError, UsageError
from pq_registry.loader.parallel.place import Place

_GO: Final = "go"
_SEPARATOR: Final = "\x1f"


class Talk(Protocol):
    """A way to all processes of a group. Every call is made by every one of them, in the same order."""

    @property
    def place(self) -> Place:
        """Which of them this process is."""

    def tell(self, word: bytes) -> Sequence[bytes]:
        """Say ``word`` and hear everybody's, in the order of their ranks; each at most LOADER_WORD_BYTES.

        Raises:
            ConnectionFailed: if one of them is gone, or silent for too long.
        """


def agree(talk: Talk, about: str = "") -> None:
    """Say that this process is ready, and go on if all are.

    Raises:
        PqregError: what another process failed with, or UsageError if they are not about the same.
    """
    heard = [word.decode("utf-8", "replace") for word in talk.tell(_GO.encode() + _SEPARATOR.encode() + about.encode())]
    for rank, word in enumerate(heard):
        kind, *rest = word.split(_SEPARATOR)
        if kind != _GO:
            raise _error(rank, kind, rest)
    differing = [rank for rank, word in enumerate(heard) if word != heard[talk.place.rank]]
    if differing:
        raise UsageError(
            "the processes of the group do not load the same",
            expected="the same release, names, files, whole tensors of the plan and kind of device everywhere",
            found=f"rank {differing[0]} differs from rank {talk.place.rank}",
        )


def refuse(talk: Talk, error: BaseException | None) -> None:
    """Say that this process ends, because of ``error`` or because its caller wants no more.

    Raises:
        ConnectionFailed: if the others cannot be told; they will notice.
    """
    parts = ["", "", "", "", ""]
    if isinstance(error, PqregError):
        parts = [type(error).__name__, error.message, error.expected or "", error.found or "", error.hint or ""]
    each = limits.LOADER_WORD_BYTES // 5 - 1
    cut = [part.replace(_SEPARATOR, " ").encode()[:each].decode("utf-8", "ignore") for part in parts]
    talk.tell(_SEPARATOR.join(cut).encode())


def _error(rank: int, kind: str, rest: Sequence[str]) -> PqregError:
    known = getattr(errors, kind, None) if kind else None
    if isinstance(known, type) and issubclass(known, PqregError) and len(rest) == 4:
        message, expected, found, hint = rest
        return known(f"rank {rank}: {message}", expected=expected or None, found=found or None, hint=hint or None)
    return ConnectionFailed(
        f"rank {rank} of the group stopped before everything was loaded",
        hint="see what it reports; all processes of a group load together",
    )
