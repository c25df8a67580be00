# SPDX-License-Identifier: Apache-2.0
"""How the bytes of an upload come in, behind one protocol.

The use cases around uploads are written against ``Transfer``, of which there are two:

* ``relay.DirectoryTransfer``: through the service, which verifies each slice before it writes it, into a directory;
* ``direct.ObjectTransfer``: from the client straight into an object store, by requests the service signed; blobs of
  one slice still come through the service, which verifies them in memory.

A transfer knows stores and no transactions: what it needs to know of the catalogue it is given, what is to be written
there it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pq_registry.format.digest import Digest
from pq_registry.service.parts import Claim, PartFile, PartPlan, PartWriter
from pq_registry.storage.blobs import SignedRequest
from pq_registry.storage.catalogue.tables import UploadPartRow, UploadRow

Watch = Callable[[int], None]
"""Told how many bytes have been verified so far; raises to have the verification end."""


def part_count(upload: UploadRow) -> int:
    """How many parts an upload has."""
    return -(-upload.size // upload.part_size)


def part_length(upload: UploadRow, number: int) -> int:
    """The length of one part."""
    return min(upload.part_size, upload.size - number * upload.part_size)


@dataclass(frozen=True, slots=True)
class Verified:
    """What the bytes of an upload are, as this service read them: ``digest`` is None if there are none to be read."""

    digest: Digest | None
    shards: bytes


@dataclass(frozen=True, slots=True)
class WantedPart:
    """A part a client wants to send to the store: its number, and the SHA-256 of its bytes."""

    number: int
    sha256: Digest


class Transfer(Protocol):
    """One way in. Every method raises StorageError if the store fails."""

    def begin(self, upload: UploadRow) -> None:
        """Make the store ready for an upload that has no row yet; may set ``storage_id``."""
        ...

    def present(self, upload: UploadRow, rows: Sequence[UploadPartRow]) -> frozenset[int] | None:
        """The parts that are there; None if the store has lost the upload, so that it has to ``begin`` again."""
        ...

    def receive(self, upload: UploadRow, plan: PartPlan, claim: Claim, record: Callable[[], None]) -> PartWriter:
        """Prepare for the bytes of one part that come through the service.

        Raises:
            Conflict: if parts of this upload do not.
        """
        ...

    def relayed(self, upload: UploadRow, number: int) -> PartFile:
        """Where the bytes of one part go that come through the service, whose slices nobody declared."""
        ...

    def recorded(self, upload: UploadRow, number: int) -> None:
        """A part that came through the service now has its row."""
        ...

    def sign(self, upload: UploadRow, parts: Sequence[WantedPart], now: datetime) -> list[SignedRequest]:
        """Requests by which a client sends parts to the store.

        Raises:
            Conflict: if parts of this upload come through the service.
        """
        ...

    def verify(self, upload: UploadRow, rows: Sequence[UploadPartRow], watch: Watch) -> Verified:
        """Read the whole, all of whose parts are there."""
        ...

    def keep(self, upload: UploadRow, *, replace: bool) -> None:
        """Give the verified bytes their final name, durably; ``replace`` if what stands there is known to be lost."""
        ...

    def copy(self, upload: UploadRow) -> str:
        """Which object the verified bytes are (``StoredBlob.copy``)."""
        ...

    def discard(self, upload: UploadRow) -> None:
        """Remove what there is of an upload that is given up. The blob of the same digest stays."""
        ...

    def withdraw(self, upload: UploadRow) -> None:
        """Take a ``begin`` back that came too late: another request began again, and may even have finished."""
        ...

    def is_lost(self, upload: UploadRow) -> bool:
        """Whether a crash left a row without its bytes."""
        ...

    def sweep(self, known: frozenset[str], now: datetime, *, starting: bool) -> int:
        """Remove what belongs to none of the ``known`` uploads; answers how many things."""
        ...

    def close(self) -> None:
        """Stop work in the background."""
        ...
