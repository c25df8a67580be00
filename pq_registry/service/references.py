# SPDX-License-Identifier: Apache-2.0
"""What releases and drafts refer to: read from their manifests and listings, and kept up with what is committed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.draft import parse_listing
from pq_registry.format.manifest import Manifest
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftCommitRow
from pq_registry.storage.catalogue.tables import BlobRow, ReleaseRow
from pq_registry.storage.hashing import read_blob

_PAGE = 256
"""Releases whose rows are read at once."""
_DRAFTS = 8
"""Draft commits that are read at once; the listing of one may be large."""
_DRAFT = tuple_(DraftCommitRow.repository_id, DraftCommitRow.id)


class References:
    """The digests each repository's releases and drafts refer to, the manifests' own among them.

    What a draft referred to that is gone meanwhile stays among them: the next collection knows better.
    """

    def __init__(self, catalogue: Catalogue, blobs: BlobStore) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._newest = 0
        self._drafts: set[tuple[int, str]] = set()
        self._repositories: dict[int, set[bytes]] = {}
        self._all: set[bytes] = set()

    def read(self) -> None:
        """Take in every release and every draft that was committed since the last call.

        Raises:
            StorageError: if a manifest or a listing cannot be read: then nobody knows what it refers to.
        """
        self._read_releases()
        with self._catalogue.reading() as session:
            unknown = sorted(self._unknown_drafts(session))
        for start in range(0, len(unknown), _DRAFTS):
            self._take_in_drafts(unknown[start : start + _DRAFTS])

    def _read_releases(self) -> None:
        query = (
            select(ReleaseRow.id, ReleaseRow.repository_id, ReleaseRow.manifest_digest, BlobRow.copy)
            .outerjoin(BlobRow, BlobRow.digest == ReleaseRow.manifest_digest)
            .order_by(ReleaseRow.id)
            .limit(_PAGE)
        )
        while True:
            with self._catalogue.reading() as session:
                rows = session.execute(query.where(ReleaseRow.id > self._newest)).all()
            if not rows:
                return
            for release, repository, manifest, copy in rows:
                self._take_in(repository, Digest(manifest), copy or "")
                self._newest = release

    def are_complete(self, session: Session) -> bool:
        """Whether every release and every draft that ``session`` sees was taken in."""
        newest = session.scalar(select(func.max(ReleaseRow.id))) or 0
        return newest <= self._newest and not self._unknown_drafts(session)

    def by_repository(self, repository: int, digest: str) -> bool:
        """Whether a release or a draft of this repository refers to the blob."""
        return bytes.fromhex(digest) in self._repositories.get(repository, ())

    def anywhere(self, digest: str) -> bool:
        """Whether any release or draft refers to the blob."""
        return bytes.fromhex(digest) in self._all

    def _take_in(self, repository: int, digest: Digest, copy: str) -> None:
        try:
            data = read_blob(self._blobs, StoredBlob(digest, copy), limit=limits.MANIFEST_BYTES)
            if Digest.of(data) != digest:
                raise FormatError("its bytes are another file's", expected=digest, found=Digest.of(data))
            manifest = Manifest.parse(data)
        except (FormatError, NotFound, StorageError) as error:
            raise StorageError(
                f"the manifest {digest} of a release cannot be read, so nothing is known to be unused",
                found=error,
                hint="run pqreg fsck, and mend it with pqreg fsck --repair-from",
            ) from error
        self._use(repository, {digest.raw, *(entry.sha256.raw for entry in manifest.files)})

    def _unknown_drafts(self, session: Session) -> set[tuple[int, str]]:
        keys = session.execute(select(DraftCommitRow.repository_id, DraftCommitRow.id))
        return {(repository, id_) for repository, id_ in keys if (repository, id_) not in self._drafts}

    def _take_in_drafts(self, keys: Sequence[tuple[int, str]]) -> None:
        query = select(DraftCommitRow.repository_id, DraftCommitRow.id, DraftCommitRow.listing)
        with self._catalogue.reading() as session:
            rows = session.execute(query.where(_DRAFT.in_(keys))).all()
        for repository, id_, listing in rows:
            try:
                self._use(repository, {file.sha256.raw for file in parse_listing(listing)})
            except FormatError as error:
                raise StorageError(
                    f"the listing of draft commit {id_} cannot be read, so nothing is known to be unused",
                    found=error, hint="run pqreg fsck; a draft that is beyond repair can be dropped: pqreg draft drop",
                ) from error  # fmt: skip
        self._drafts.update(keys)

    def _use(self, repository: int, digests: set[bytes]) -> None:
        self._repositories.setdefault(repository, set()).update(digests)
        self._all |= digests
