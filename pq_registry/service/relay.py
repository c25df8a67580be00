# SPDX-License-Identifier: Apache-2.0
"""Uploads through the service into a directory (a ``Transfer``).

Each slice is compared with the BLAKE3 digest its sender declared *before* it is written; then fdatasync, then the
row. SHA-256 runs along in the background (``frontier``). A verified file is linked to its final name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pq_registry.errors import Conflict
from pq_registry.format.digest import Digest
from pq_registry.service.frontier import Frontiers
from pq_registry.service.parts import Claim, PartFile, PartPlan, PartWriter
from pq_registry.service.transfer import Verified, WantedPart, Watch
from pq_registry.storage.blobs import SignedRequest, StoredBlob
from pq_registry.storage.catalogue.tables import UploadPartRow, UploadRow
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.local import LocalBlobStore


class DirectoryTransfer:
    """Into ``incoming``, and from there into ``blobs``, which are on one file system."""

    def __init__(self, blobs: LocalBlobStore, incoming: Incoming) -> None:
        self._blobs = blobs
        self._incoming = incoming
        self._frontiers = Frontiers(incoming)

    def begin(self, upload: UploadRow) -> None:
        """Make the sparse file."""
        self._incoming.create(upload.id, upload.size)

    def present(self, upload: UploadRow, rows: Sequence[UploadPartRow]) -> frozenset[int]:  # noqa: ARG002
        """The parts that have a row: they are durable, and will not change any more."""
        return frozenset(row.number for row in rows)

    def receive(self, upload: UploadRow, plan: PartPlan, claim: Claim, record: Callable[[], None]) -> PartWriter:
        """Write into the file."""
        return PartWriter(plan, claim, self._incoming.open(upload.id), record)

    def relayed(self, upload: UploadRow, number: int) -> PartFile:  # noqa: ARG002 - as in the protocol
        """Into the file; one that another way in did not need is made."""
        if not self._incoming.exists(upload.id):
            self._incoming.create(upload.id, upload.size)
        return self._incoming.open(upload.id)

    def recorded(self, upload: UploadRow, number: int) -> None:
        """Hash on in the background."""
        self._frontiers.report(upload.id, number, size=upload.size, part_size=upload.part_size)

    def sign(self, upload: UploadRow, parts: Sequence[WantedPart], now: datetime) -> list[SignedRequest]:  # noqa: ARG002
        """Nothing: only the service writes this directory."""
        raise Conflict("the parts of this upload come through the registry", expected="PUT …/parts/{n}")

    def verify(self, upload: UploadRow, rows: Sequence[UploadPartRow], watch: Watch) -> Verified:
        """Hash what the frontier has not hashed yet; the slices were verified when they came."""
        shards = b"".join(row.shards for row in rows)
        if not self._incoming.exists(upload.id):
            # A crash (or a failed transaction) after the file was linked to its final name.
            return Verified(hash_blob(self._blobs, StoredBlob(Digest(upload.digest))), shards)
        numbers = [row.number for row in rows]
        found = self._frontiers.finish(upload.id, numbers, size=upload.size, part_size=upload.part_size, watch=watch)
        return Verified(found, shards)

    def keep(self, upload: UploadRow, *, replace: bool) -> None:
        """Link the file to its final name, or move it there."""
        if self._incoming.exists(upload.id):
            self._blobs.adopt(self._incoming.path(upload.id), Digest(upload.digest), replace=replace)

    def copy(self, upload: UploadRow) -> str:  # noqa: ARG002 - as in the protocol
        """A directory has one place for each digest."""
        return ""

    def discard(self, upload: UploadRow) -> None:
        """Remove the file, if it is there."""
        self._frontiers.forget(upload.id)
        self._incoming.discard(upload.id)

    def withdraw(self, upload: UploadRow) -> None:
        """Nothing: a directory loses no upload, so none is begun again."""

    def is_lost(self, upload: UploadRow) -> bool:
        """Whether neither the file nor the finished blob is there."""
        blob = StoredBlob(Digest(upload.digest))
        return not self._incoming.exists(upload.id) and self._blobs.size(blob) != upload.size

    def sweep(self, known: frozenset[str], now: datetime, *, starting: bool) -> int:  # noqa: ARG002 - as in the protocol
        """At the start, remove every file no row knows of; later one may be there whose row comes in a moment."""
        return self._incoming.sweep(known) if starting else 0

    def close(self) -> None:
        """Stop hashing in the background."""
        self._frontiers.close()
