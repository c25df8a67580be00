# SPDX-License-Identifier: Apache-2.0
"""What the audit page shows of one release: its statement, the state of each half of its signature, and its files.

The halves are verified again for every view, under the identity the catalogue names, so that the page repeats no
verdict of the past. A visitor's browser can verify both from the same envelope.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.signing import failed_halves
from pq_registry.crypto.suites import Half
from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.tag import TagStatement
from pq_registry.service.access import Caller
from pq_registry.service.resolve import ReleaseItem, Resolving, TagItem, tag_item
from pq_registry.service.visible import find_visible, readable_namespace
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    BlobRow,
    IdentityRow,
    NamespaceIdentityRow,
    NamespaceRow,
    StatementRow,
    TagRow,
)
from pq_registry.storage.hashing import read_blob


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureView:
    """A statement's signature: by whom, and what became of each half when it was verified just now."""

    statement: Digest
    identity: str
    level: int
    public: str
    registered: bool
    halves: dict[Half, bool]
    bytes: dict[Half, int]
    recorded: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseView:
    """Everything about one release."""

    item: ReleaseItem
    signature: SignatureView
    manifest: Manifest
    tags: list[TagItem]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagMove:
    """One statement of a tag's history."""

    digest: Digest
    statement: TagStatement
    recorded: datetime


class Signatures:
    """Statements with their signatures."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._resolving = Resolving(catalogue, blobs)

    def release(self, name: RepositoryName, digest: Digest) -> ReleaseView:
        """One release.

        Raises:
            NotFound: if the repository has no such release.
            StorageError: if its manifest cannot be read.
        """
        item = self._resolving.release(name, digest)
        with self._catalogue.reading() as session:
            signature = _signature(session, digest)
            tags = session.scalars(
                select(TagRow)
                .where(TagRow.repository_id == find_visible(session, name).id, TagRow.target == digest.hex)
                .order_by(TagRow.tag)
            ).all()
            copy = session.scalars(select(BlobRow.copy).where(BlobRow.digest == item.manifest.hex)).one()
        manifest = self._manifest(StoredBlob(item.manifest, copy))
        return ReleaseView(item=item, signature=signature, manifest=manifest, tags=[tag_item(row) for row in tags])

    def _manifest(self, blob: StoredBlob) -> Manifest:
        data = read_blob(self._blobs, blob, limit=limits.MANIFEST_BYTES)
        if Digest.of(data) != blob.digest:
            raise StorageError(f"the manifest {blob} is damaged", found=f"bytes of {Digest.of(data)}")
        return Manifest.parse(data)

    def signature(self, caller: Caller, statement: Digest) -> SignatureView:
        """The signature of any statement the caller may read.

        Raises:
            NotFound: if there is no such statement for this caller.
        """
        with self._catalogue.reading() as session:
            query = (
                select(StatementRow.digest)
                .join(NamespaceRow, NamespaceRow.id == StatementRow.namespace_id)
                .where(StatementRow.digest == statement.hex, readable_namespace(caller))
            )
            if session.scalars(query).one_or_none() is None:
                raise NotFound(f"no statement {statement}")
            return _signature(session, statement)

    def tag_history(self, name: RepositoryName, tag: Tag, *, before: int | None, limit: int) -> list[TagMove]:
        """The statements of a tag, newest first, from below the sequence number ``before``.

        Raises:
            NotFound: if the repository has no such tag.
        """
        with self._catalogue.reading() as session:
            row = find_visible(session, name)
            query = select(StatementRow).where(StatementRow.repository_id == row.id, StatementRow.tag == str(tag))
            if before is not None:
                query = query.where(StatementRow.sequence < before)
            rows = session.scalars(query.order_by(StatementRow.sequence.desc()).limit(limit)).all()
            if not rows and before is None:
                raise NotFound(f"no tag {tag} in {name}")
            found = [(row.recorded, Envelope.parse(row.envelope).payload, Digest(row.digest)) for row in rows]
        return [
            TagMove(digest=digest, statement=TagStatement.parse(payload), recorded=recorded)
            for recorded, payload, digest in found
        ]


def _signature(session: Session, digest: Digest) -> SignatureView:
    row = session.get(StatementRow, digest.hex)
    identity_row = None if row is None else session.get(IdentityRow, row.signer)
    if row is None or identity_row is None:
        raise StorageError(f"statement {digest} has no signer in the catalogue")
    registered = session.get(NamespaceIdentityRow, (row.namespace_id, row.signer)) is not None
    identity = PublicIdentity.from_pem(identity_row.public.encode("ascii"))
    envelope = Envelope.parse(row.envelope)
    failed = failed_halves(envelope, identity)
    return SignatureView(
        statement=digest,
        identity=identity.id,
        level=identity.profile.level,
        public=identity_row.public,
        registered=registered,
        halves={"ec": "ec" not in failed, "pq": "pq" not in failed},
        bytes={"ec": len(envelope.ec_signature), "pq": len(envelope.pq_signature)},
        recorded=row.recorded,
    )
