# SPDX-License-Identifier: Apache-2.0
"""The files of releases as the Hub's clients see them: the manifest's, the manifest, and the evidence; and of drafts.

Parsed listings are kept in memory up to ``limits.HUB_LISTING_BYTES``, the ones asked for least recently going first: a
commit never changes, and a download asks twice for each of its files. Only a release's receipt may still be bettered,
while witnesses are away; its listing is settled once its receipt meets the service's policy.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.errors import FormatError, NameSyntaxError, RevisionNotFound, StorageError
from pq_registry.format.bundle import encode_bundle
from pq_registry.format.digest import Digest
from pq_registry.format.draft import parse_listing
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME, Manifest
from pq_registry.format.statement import EC_BUNDLE_NAME, PQ_BUNDLE_NAME, TLOG_PROOF_NAME
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import HubFile
from pq_registry.service.ledger import LoggedStatement
from pq_registry.service.visible import find_blob
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import DraftCommitRow
from pq_registry.storage.catalogue.tables import IdentityRow, ReleaseRow, StatementRow
from pq_registry.storage.hashing import read_blob

Listing = tuple[HubFile, ...]
_Key = Digest | tuple[int, str]
"""A release, or a repository's draft commit."""


class ReceiptSource(Protocol):
    """Where receipts come from."""

    def found(self, statement: Digest) -> LoggedStatement | None:
        """The receipt of a statement, and whether it meets the policy."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    files: Listing
    settled: bool

    @property
    def cost(self) -> int:
        """Bytes of memory, by estimate."""
        inline = sum(len(file.inline) for file in self.files if file.inline is not None)
        return len(self.files) * limits.HUB_LISTING_FILE_BYTES + inline


class Listings:
    """Answers the files of releases; may be used from many threads."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, receipts: ReceiptSource) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._receipts = receipts
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._turn = threading.Lock()
        self._building = tuple(threading.Lock() for _ in range(limits.HUB_LISTINGS_AT_ONCE))

    def of(self, caller: Caller, release: Digest) -> Listing:
        """The files of a release in a repository the caller may read, sorted by path.

        Raises:
            NotFound: if its manifest is not there for the caller.
            StorageError: if anything of it cannot be read or is damaged.
        """
        kept = self._recall(release)
        if kept is not None and kept.settled:
            return kept.files
        with self._building[release.raw[0] % len(self._building)]:
            kept = self._recall(release)
            if kept is None or not kept.settled:
                kept = self._build(caller, release, kept)
                self._keep(release, kept)
        return kept.files

    def of_draft(self, repository: int, commit: str) -> Listing:
        """The files of a draft commit.

        Raises:
            RevisionNotFound: if it is gone.
            StorageError: if the catalogue fails, or its listing is damaged.
        """
        key = (repository, commit)
        kept = self._recall(key)
        if kept is None:
            with self._building[int(commit[0], 16) % len(self._building)]:
                kept = self._recall(key)
                if kept is None:
                    kept = _Kept(self._draft_files(repository, commit), settled=True)
                    self._keep(key, kept)
        return kept.files

    def _draft_files(self, repository: int, commit: str) -> Listing:
        query = select(DraftCommitRow.listing).where(
            DraftCommitRow.repository_id == repository, DraftCommitRow.id == commit
        )
        with self._catalogue.reading() as session:
            listing = session.scalars(query).one_or_none()
        if listing is None:
            raise RevisionNotFound(f"draft {commit} is gone", hint="somebody dropped it, or pushed on top of it")
        try:
            return tuple(HubFile(str(file.path), file.size, file.sha256) for file in parse_listing(listing))
        except (FormatError, NameSyntaxError) as error:
            raise StorageError(f"the listing of draft {commit} is damaged", hint="run pqreg fsck") from error

    def _recall(self, key: _Key) -> _Kept | None:
        with self._turn:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
            return kept

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._turn:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            total = sum(each.cost for each in self._kept.values())
            while total > limits.HUB_LISTING_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].cost

    def _build(self, caller: Caller, release: Digest, known: _Kept | None) -> _Kept:
        found = self._receipts.found(release)
        if known is None:
            with self._catalogue.reading() as session:
                manifest, bundles = _stored(session, caller, release)
            files = [*self._manifest_files(manifest), *bundles]
        else:
            files = [file for file in known.files if file.path != TLOG_PROOF_NAME]
        if found is not None:
            files.append(_inline(TLOG_PROOF_NAME, found.receipt))
        return _Kept(tuple(sorted(files, key=_path)), settled=found is not None and found.quorum)

    def _manifest_files(self, blob: StoredBlob) -> list[HubFile]:
        data = read_blob(self._blobs, blob, limit=limits.MANIFEST_BYTES)
        if Digest.of(data) != blob.digest:
            raise StorageError(f"the manifest {blob} is damaged", found=f"bytes of {Digest.of(data)}")
        files = [HubFile(str(entry.path), entry.size, entry.sha256) for entry in Manifest.parse(data).files]
        return [*files, HubFile(MANIFEST_NAME, len(data), blob.digest)]


def _stored(session: Session, caller: Caller, release: Digest) -> tuple[StoredBlob, list[HubFile]]:
    """Where the manifest is, and the two halves of the envelope as bundles."""
    query = (
        select(ReleaseRow.manifest_digest, StatementRow.envelope, IdentityRow.public)
        .join(StatementRow, StatementRow.digest == ReleaseRow.digest)
        .join(IdentityRow, IdentityRow.id == StatementRow.signer)
        .where(ReleaseRow.digest == release.hex)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        raise StorageError(f"release {release} has no statement or no signer in the catalogue", hint="run pqreg fsck")
    blob, _size = find_blob(session, caller, Digest(row.manifest_digest))
    envelope = Envelope.parse(row.envelope)
    signer = PublicIdentity.from_pem(row.public.encode("ascii"))
    return blob, [
        _inline(EC_BUNDLE_NAME, encode_bundle(envelope, "ec", signer.ec_pem)),
        _inline(PQ_BUNDLE_NAME, encode_bundle(envelope, "pq", signer.pq_pem)),
    ]


def _inline(path: str, data: bytes) -> HubFile:
    return HubFile(path, len(data), Digest.of(data), data)


def _path(file: HubFile) -> str:
    return file.path
