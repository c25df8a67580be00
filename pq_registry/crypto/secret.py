# SPDX-License-Identifier: Apache-2.0
"""Bytes that must not be seen: no ``repr``, ``str``, traceback, log line, copy or pickle shows or takes them.

What this is good for, and what not: a secret in a frame's locals, an exception's arguments or a log record prints as
``<secret>`` (attack case A12), and ``wipe`` overwrites the buffer once it is no longer needed. Python may have copied
the bytes before (an immutable ``bytes`` of a provider, a reallocation), so a memory image of the process can still
contain them; nothing here protects against whoever can read that.
"""

from __future__ import annotations

from types import TracebackType
from typing import NoReturn, Self

_HIDDEN = "<secret>"


class SecretBytes(bytearray):
    """A mutable buffer that prints as ``<secret>``; as a context manager it is wiped at the end.

    It is handed to primitives through the buffer protocol. ``bytes(secret)`` reveals it and is therefore easy to find.
    """

    __slots__ = ()

    def wipe(self) -> None:
        """Overwrite the content with zeros."""
        self[:] = bytes(len(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return _HIDDEN

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, _specification: str) -> str:
        return _HIDDEN

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")
