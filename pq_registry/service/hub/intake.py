# SPDX-License-Identifier: Apache-2.0
"""Taking in files of which only SHA-256 and size are known, as the Hub's clients announce them.

They come in as uploads like any other (``service.uploads``): the same rows, quotas, audit events and verification of
the whole, into a directory or an object store, at any of several instances. Only that nobody declares the BLAKE3
digests of slices: they are computed here, as the bytes come. What was received before a connection broke or a service
died is not needed again.

A file that the caller may read somewhere is not taken in again, and is kept from being collected for a while.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.completion import Verifying
from pq_registry.service.parts import UndeclaredPart
from pq_registry.service.quotas import QuotaKeeper
from pq_registry.service.uploads import Uploads, UploadState
from pq_registry.service.visible import SLICE_SIZES, promise_blobs, unpromised_blobs, visible_blobs
from pq_registry.storage.catalogue.database import Catalogue

Bytes = bytes | bytearray | memoryview
Source = Callable[[int, int], Bytes]
"""Answers so many bytes of a file from an offset."""


class Intake:
    """Files of known SHA-256 and size."""

    def __init__(
        self, catalogue: Catalogue, uploads: Uploads, quotas: QuotaKeeper, clock: Clock,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._catalogue = catalogue
        self._uploads = uploads
        self._quotas = quotas
        self._clock = clock
        self._pause = pause

    def present(self, caller: Caller, digests: Iterable[Digest]) -> dict[Digest, int]:
        """Those of ``digests`` that the caller may read somewhere, with their sizes; they will stay for a while.

        Raises:
            StorageError: if the catalogue fails.
        """
        now = self._clock()
        wanted = set(digests)
        found: dict[Digest, int] = {}
        with self._catalogue.reading() as session:
            for slice_size in SLICE_SIZES:  # whatever form of release they came in
                rest = wanted - found.keys()
                if rest:
                    facts = visible_blobs(session, caller, rest, slice_size=slice_size)
                    found.update({digest: fact.size for digest, fact in facts.items()})
            stale = unpromised_blobs(session, found, now)
        if stale:
            with self._catalogue.writing() as session:
                promise_blobs(session, stale, now)
        return found

    def open(
        self, caller: Caller, repository: RepositoryName, digest: Digest, size: int, *, replacing: int = 0
    ) -> UploadState | None:
        """Begin, or go on with, the upload of a file; None if it is there.

        Args:
            caller: who sends it.
            repository: what it is for.
            digest: its SHA-256.
            size: its length.
            replacing: bytes that count for the namespace now and will not any more once the file is there.

        Raises:
            FormatError: if the size is out of bounds, or is not that of the file of this digest.
            QuotaExceeded: if the namespace has no room for it.
            StorageError: if the store fails.
        """
        if not 0 <= size <= limits.HUB_FILE_BYTES:
            raise FormatError(
                "the file is too large for this way of uploading", expected=f"at most {limits.HUB_FILE_BYTES} bytes",
                found=f"{size} bytes", hint="use pqreg push for it",
            )  # fmt: skip
        there = self.present(caller, [digest]).get(digest)
        if there is not None:
            if there != size:
                raise FormatError("the file has another size", expected=f"{there} bytes", found=f"{size} bytes")
            return None
        self._quotas.admit_upload(caller, repository, digest, size, replacing=replacing)
        state, _ = self._uploads.open(caller, repository, digest=digest, size=size, slice_size=limits.SHARD_BYTES)
        return state

    def part(self, caller: Caller, repository: RepositoryName, upload_id: str, number: int) -> UndeclaredPart:
        """Prepare for the bytes of one part; parts count from 0.

        Raises:
            NotFound: if there is no such upload.
            FormatError: if the number does not fit the upload.
            StorageError: if the store fails.
        """
        return self._uploads.begin_undeclared(caller, repository, upload_id, number=number)

    def finish(self, caller: Caller, repository: RepositoryName, upload_id: str) -> Digest:
        """Verify the whole and make the file known, however long that takes.

        Raises:
            NotFound: if there is no such upload.
            Conflict: if parts are missing.
            FileDigestMismatch: if the bytes are another file's; the upload is dropped then.
            StorageError: if the store or the catalogue fails.
        """
        while True:
            outcome = self._uploads.complete(caller, repository, upload_id)
            if not isinstance(outcome, Verifying):
                return outcome
            self._pause(limits.VERIFYING_POLL_SECONDS)

    def copy(
        self, caller: Caller, repository: RepositoryName, digest: Digest, size: int, source: Source, *,
        replacing: int = 0,
    ) -> None:  # fmt: skip
        """Take in a file that can be read from ``source``; parts that are there are not read.

        Raises:
            PqregError: as ``open``, ``part`` and ``finish`` do, and whatever ``source`` raises.
        """
        state = self.open(caller, repository, digest, size, replacing=replacing)
        if state is None:
            return
        for number in range(-(-size // state.part_size)):
            if number in state.parts:
                continue
            with contextlib.closing(self.part(caller, repository, state.id, number)) as part:
                for start in range(0, part.length, part.slice_size):
                    part.write(source(part.offset + start, min(part.slice_size, part.length - start)))
                part.finish()
        self.finish(caller, repository, state.id)

    def take(self, caller: Caller, repository: RepositoryName, data: bytes) -> Digest:
        """Take in a small file that is in memory; answers its digest.

        Raises:
            PqregError: as ``copy`` does.
        """
        digest, view = Digest.of(data), memoryview(data)
        self.copy(caller, repository, digest, len(data), lambda start, length: view[start : start + length])
        return digest
