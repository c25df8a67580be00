# SPDX-License-Identifier: Apache-2.0
"""Small files that are in memory, many at once: the files within a commit.

One after the other as uploads, each would cost three transactions and a handful of syncs. Here a batch of them has two
transactions, with the writing of its files, in threads, between: first the rows of their uploads, which keep collection
away from files nobody refers to yet, then their blobs in the place of these. What a crash leaves is an unfinished
upload without bytes, or with bytes nobody knows; the next try takes both over, and sweeping removes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime

from sqlalchemy import select

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.completion import record_blob
from pq_registry.service.hub.intake import Intake
from pq_registry.service.names import find_repository, obtain_repository
from pq_registry.service.parts import drop_upload
from pq_registry.service.quotas import QuotaKeeper
from pq_registry.service.visible import link_blobs
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import UploadRow
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.local import LocalBlobStore


class SmallFiles:
    """Takes them in."""

    def __init__(
        self, catalogue: Catalogue, blobs: BlobStore, intake: Intake, quotas: QuotaKeeper, clock: Clock
    ) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._intake = intake
        self._quotas = quotas
        self._clock = clock

    def take(self, caller: Caller, repository: RepositoryName, contents: Sequence[bytes]) -> list[Digest]:
        """Take in files; answers their digests.

        Raises:
            QuotaExceeded: if the namespace has no room for them.
            Conflict: if the repository's name exists in another spelling.
            StorageError: if the store or the catalogue fails; what was written by then is written again.
        """
        digests = [Digest.of(content) for content in contents]
        wanted = dict(zip(digests, contents, strict=True))
        for digest in self._intake.present(caller, wanted):
            del wanted[digest]
        for digest, content in wanted.items():
            self._quotas.admit_upload(caller, repository, digest, len(content))
        if wanted:
            self._store(caller, repository, wanted)
        return digests

    def _store(self, caller: Caller, repository: RepositoryName, wanted: dict[Digest, bytes]) -> None:
        now = self._clock()
        uploads = self._announce(caller, repository, wanted, now)
        with ThreadPoolExecutor(limits.SMALL_FILE_WRITERS, "small-files") as pool:
            list(pool.map(lambda upload: self._write(upload, wanted[Digest(upload.digest)]), uploads))
        beaten: list[UploadRow] = []
        with self._catalogue.writing() as session:
            owner = find_repository(session, repository, lock=True)
            for upload in uploads:
                digest = Digest(upload.digest)
                if not record_blob(session, upload, self._copy(upload), shard_digests(wanted[digest]), now):
                    beaten.append(upload)
                link_blobs(session, owner, [digest], now)
                drop_upload(session, upload)
                audit.record(
                    session, caller, now, audit.Action.BLOB_STORED, repository, digest=str(digest), size=upload.size
                )
        for upload in beaten:  # another upload of the same bytes was quicker, and its object stays
            if self._copy(upload):
                with suppress(PqregError):  # gc removes what nobody knows
                    self._blobs.remove(StoredBlob(Digest(upload.digest), self._copy(upload)))

    def _announce(
        self, caller: Caller, repository: RepositoryName, wanted: dict[Digest, bytes], now: datetime
    ) -> list[UploadRow]:
        uploads = []
        with self._catalogue.writing() as session:
            owner = obtain_repository(session, repository, now)
            mine = select(UploadRow).where(
                UploadRow.repository_id == owner.id,
                UploadRow.token_id == caller.token_id,
                UploadRow.digest.in_([digest.hex for digest in wanted]),
            )
            for older in session.scalars(mine).all():
                drop_upload(session, older)
            for digest, content in wanted.items():
                upload = UploadRow(
                    id=new_upload_id(), repository_id=owner.id, token_id=caller.token_id, digest=digest.hex,
                    size=len(content), slice_size=limits.SHARD_BYTES, part_size=limits.PART_BYTES, created=now,
                    touched=now, storage_id="",
                )  # fmt: skip
                session.add(upload)
                audit.record(
                    session, caller, now, audit.Action.UPLOAD_OPENED, repository, digest=str(digest), size=len(content)
                )
                uploads.append(upload)
            session.flush()
            session.expunge_all()
        return uploads

    def _write(self, upload: UploadRow, content: bytes) -> None:
        self._blobs.write(StoredBlob(Digest(upload.digest), self._copy(upload)), [content], size=upload.size)

    def _copy(self, upload: UploadRow) -> str:
        """Which object a file becomes: a directory has one place for each digest."""
        return "" if isinstance(self._blobs, LocalBlobStore) else upload.id
