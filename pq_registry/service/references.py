# SPDX-License-Identifier: Apache-2.0
"""What releases refer to: read from their manifests, release by release, and kept up with what is committed."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import Manifest
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, ReleaseRow
from pq_registry.storage.hashing import read_blob

_PAGE = 256
"""Releases whose rows are read at once."""


class References:
    """The digests each repository's releases refer to, their manifests' own among them."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._newest = 0
        self._repositories: dict[int, set[bytes]] = {}
        self._all: set[bytes] = set()

    def read(self) -> None:
        """Take in every release that was committed since the last call.

        Raises:
            StorageError: if a manifest cannot be read: then nobody knows what that release refers to.
        """
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
        """Whether every release that ``session`` sees was taken in."""
        return (session.scalar(select(func.max(ReleaseRow.id))) or 0) <= self._newest

    def by_repository(self, repository: int, digest: str) -> bool:
        """Whether a release of this repository refers to the blob."""
        return bytes.fromhex(digest) in self._repositories.get(repository, ())

    def anywhere(self, digest: str) -> bool:
        """Whether any release refers to the blob."""
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
        used = {bytes.fromhex(digest.hex), *(bytes.fromhex(entry.sha256.hex) for entry in manifest.files)}
        self._repositories.setdefault(repository, set()).update(used)
        self._all |= used
