# SPDX-License-Identifier: Apache-2.0
"""What the sequencer needs of its storage: a lock that is trusted, and a tile store that is not.

The **lock** decides. Whoever replaces the checkpoint in it, in one transaction that also stages the leaves, has decided
what the tree is; everything else can be written again from there. It must be durable and must never go back: a lock
that is restored from an old backup makes the log sign a second history, which clients and witnesses will notice.

The **tile store** holds what readers fetch. Its bytes are believed only as far as they hash to a checkpoint that the
lock knows. It may be a directory, or an object store behind a CDN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.format.note import SignatureLine

CHECKPOINT_PATH = "checkpoint"
"""Where readers find the newest published checkpoint (c2sp.org/tlog-tiles)."""


@dataclass(frozen=True, slots=True)
class Locked:
    """What the lock holds: notes as the log signed them, without cosignatures unless it says so.

    ``previous`` is the one ``note`` replaced, None if there was none before; ``published`` the newest that readers were
    shown, with its cosignatures, None before the first.
    """

    note: bytes
    previous: bytes | None
    published: bytes | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Leaves that are committed together: ``start`` is the index of the first, ``time`` the one that is in them.

    ``statements`` are the statements the leaves are of, as far as the catalogue knows them.
    """

    start: int
    time: int
    entries: tuple[bytes, ...] = ()
    statements: tuple[Digest | None, ...] = ()


class LogLock(Protocol):
    """The trusted store of the newest checkpoint. Several processes may use one; its transactions keep them apart."""

    def load(self) -> Locked | None:
        """What was committed last; None before the first commit.

        Raises:
            StorageError: if the lock cannot be read.
        """
        ...

    def commit(self, expected: bytes | None, new: bytes, batch: Batch) -> None:
        """Replace the note ``expected`` by ``new``, stage the leaves instead of those before, record their statements.

        All of it happens, or nothing.

        Raises:
            LogUnavailable: if nothing happened.
            LogHalted: if another sequencer has replaced the note, or nobody knows what happened.
            LogSuperseded: in the same cases, where several instances share the lock and that can be found out.
        """
        ...

    def staged(self) -> list[tuple[int, bytes]]:
        """The leaves of the newest batch that has any, with their indexes.

        Raises:
            StorageError: if the lock cannot be read.
        """
        ...

    def keep_published(self, size: int, note: bytes, quorum: bool, at: datetime) -> None:
        """Remember what readers were shown; receipts are made from it.

        Raises:
            LogHalted: if a larger tree has been published; LogSuperseded where several instances share the lock.
            StorageError: if the lock fails.
        """
        ...

    def published_covering(self, index: int, *, quorum_first: bool = True) -> bytes | None:
        """The first published checkpoint of a tree with leaf ``index``, if ``quorum_first`` the first with a quorum.

        Raises:
            StorageError: if the lock cannot be read.
        """
        ...


class TileStore(Protocol):
    """The files of a log, as readers see them; paths are those of c2sp.org/tlog-tiles."""

    def read(self, path: str) -> bytes:
        """The file at ``path``.

        Raises:
            NotFound: if there is no such file.
            StorageError: if the store fails.
        """
        ...

    def write(self, tiles: Sequence[tuple[str, bytes]]) -> None:
        """Write tiles, durably and in this order. What is there already is written again if it has the same bytes.

        Raises:
            LogHalted: if other bytes stand under one of the paths.
            StorageError: if the store fails.
        """
        ...

    def write_checkpoint(self, note: bytes) -> None:
        """Replace the checkpoint that readers see, durably.

        Raises:
            LogHalted: if the present one is of a larger tree, or of another log.
            StorageError: if the store fails.
        """
        ...

    def write_vkey(self, text: bytes) -> None:
        """Replace the text of the log's verifier keys, durably.

        Raises:
            StorageError: if the store fails.
        """
        ...

    def has_tiles(self) -> bool:
        """Whether any tile was ever written.

        Raises:
            StorageError: if the store fails.
        """
        ...


class WitnessPool(Protocol):
    """The witnesses of a log."""

    def cosign(
        self, note: bytes, checkpoint: Checkpoint, consistency: Callable[[int], tuple[bytes, ...]]
    ) -> Sequence[SignatureLine]:
        """Ask for cosignatures until the policy's quorum is met or the time is up; a witness that fails adds nothing.

        Args:
            note: the checkpoint as the log signed it.
            checkpoint: the same, parsed.
            consistency: answers the proof from a tree of the given size to this one.
        """
        ...
