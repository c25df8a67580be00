# SPDX-License-Identifier: Apache-2.0
"""Committing a release: everything the service can check, then one transaction that makes it visible.

1. The envelope is exactly ours, and both halves of its signature verify under an identity registered for the
   namespace. Its payload is a release statement.
2. The manifest is a blob the caller may read; statement and manifest bind (``format.release.bind``), and the
   manifest's name is the repository's.
3. The signer the manifest names is one of those whose signature verified.
4. Every file is a verified blob the caller may read, of the size and with the shard digests the manifest states.
   Those of a sealed release are ciphertext in slices of their own size (``format.sealing``).
5. Every safetensors header, as stored, equals the signed tensor table; a sealed release states none.
6. Where releases are held by Object Lock, the store holds every blob of it.
7. In one transaction: statement, release, references to every blob, audit event.

What a client verifies does not rest on any of this; it keeps mistakes and garbage out of the registry. The same
payload posted again is answered with the release that is there; its first envelope stays.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.errors import Conflict, ManifestMismatch, NameMismatch, TensorTableMismatch
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME, FileEntry, Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.format.release import bind, content_digest
from pq_registry.format.safetensors import LENGTH_BYTES, header_size, parse_header
from pq_registry.format.sealing import SLICE_BYTES
from pq_registry.format.statement import ReleaseStatement
from pq_registry.service import audit
from pq_registry.service.access import Caller
from pq_registry.service.clock import Clock
from pq_registry.service.identities import genuine_signers, require_signer
from pq_registry.service.names import obtain_repository
from pq_registry.service.retention import retain_blobs
from pq_registry.service.statements import Received, is_recorded, record_statement
from pq_registry.service.visible import BlobFacts, link_blobs, visible_blobs
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import ReleaseRow, RepositoryRow
from pq_registry.storage.hashing import read_blob

RELEASE = "release"


class Publishing:
    """Commits releases."""

    def __init__(self, catalogue: Catalogue, blobs: BlobStore, clock: Clock) -> None:
        self._catalogue = catalogue
        self._blobs = blobs
        self._clock = clock

    def commit(self, caller: Caller, repository: RepositoryName, body: bytes) -> tuple[Digest, bool]:
        """Commit the release whose envelope is ``body``; answers its digest and whether it is new.

        Raises:
            FormatError: if a document is not what its specification says.
            VerificationError: if documents, signature and stored bytes do not agree.
            AccessDenied: if the signer is not registered for the namespace.
            Conflict: if a file has not been uploaded.
            StorageError: if the store fails, or cannot hold the blobs as the settings say.
        """
        envelope = Envelope.parse(body)
        release = envelope.payload_digest
        with self._catalogue.reading() as session:
            if _is_known(session, repository, release):
                return release, False
            genuine = genuine_signers(session, repository.namespace, envelope)
            statement = ReleaseStatement.parse(envelope.payload)
            manifest_digest = _manifest_digest(statement, release)
            facts = visible_blobs(session, caller, [manifest_digest], slice_size=limits.SHARD_BYTES)
            _require_present(facts, MANIFEST_NAME, manifest_digest)
        # Between two transactions: none waits for an object store.
        data = read_blob(self._blobs, facts[manifest_digest].blob, limit=limits.MANIFEST_BYTES)
        manifest = bind(statement, release, data)
        if manifest.name != repository:
            raise NameMismatch("the release belongs to another repository", expected=repository, found=manifest.name)
        require_signer(manifest.signer, genuine)
        slice_size = limits.SHARD_BYTES if manifest.sealing is None else SLICE_BYTES
        with self._catalogue.reading() as session:
            stored = visible_blobs(session, caller, (entry.sha256 for entry in manifest.files), slice_size=slice_size)
        for entry in manifest.files:
            self._check_file(entry, stored)
        held = [facts[manifest_digest], *(stored[digest] for digest in {entry.sha256 for entry in manifest.files})]
        retain_blobs(self._blobs, [blob.blob for blob in held], self._clock())
        return release, self._record(caller, envelope, body, manifest, manifest_digest)

    def _check_file(self, entry: FileEntry, stored: dict[Digest, BlobFacts]) -> None:
        _require_present(stored, entry.path.text, entry.sha256)
        facts = stored[entry.sha256]
        if facts.size != entry.size or facts.shards != entry.shards:
            raise ManifestMismatch(
                f"{MANIFEST_NAME} and the stored bytes disagree about {entry.path}",
                expected=f"{facts.size} bytes and the shard digests found on arrival",
                found=f"{entry.size} bytes and {entry.shard_count} shard digests",
            )
        if entry.tensors is None:
            return
        reader = self._blobs.open(facts.blob, size=facts.size)
        try:
            first = reader.read(0, min(LENGTH_BYTES, reader.size))
            head = reader.read(0, header_size(first, reader.size))
        finally:
            reader.close()
        if parse_header(head, entry.size) != entry.tensors:
            raise TensorTableMismatch(
                f"{entry.path}: the stored header and the signed tensor table differ",
                expected="the same tensors",
                hint="push the directory again; the manifest was made from another file",
            )

    def _record(
        self, caller: Caller, envelope: Envelope, body: bytes, manifest: Manifest, manifest_digest: Digest
    ) -> bool:
        release = envelope.payload_digest
        now = self._clock()
        with self._catalogue.writing() as session:
            row = obtain_repository(session, manifest.name, now)
            if is_recorded(session, release):
                return False  # another request committed it in the meantime
            received = Received(kind=RELEASE, digest=release, signer=manifest.signer, envelope=body)
            record_statement(session, received, row, now)
            session.add(
                ReleaseRow(
                    digest=release.hex,
                    repository_id=row.id,
                    manifest_digest=manifest_digest.hex,
                    content_digest=content_digest(manifest.files).hex,
                    signer=manifest.signer,
                    size=manifest.total_size,
                    files=len(manifest.files),
                    created=manifest.created,
                    committed=now,
                    sealed=manifest.sealing is not None,
                )
            )
            link_blobs(session, row, [manifest_digest, *(entry.sha256 for entry in manifest.files)], now)
            row.updated = now
            audit.record(
                session, caller, now, audit.Action.RELEASE_COMMITTED, manifest.name,
                release=str(release), signer=manifest.signer,
            )  # fmt: skip
        return True


def _is_known(session: Session, repository: RepositoryName, release: Digest) -> bool:
    query = select(RepositoryRow.name).join(ReleaseRow, ReleaseRow.repository_id == RepositoryRow.id)
    return session.scalars(query.where(ReleaseRow.digest == release.hex)).one_or_none() == str(repository)


def _manifest_digest(statement: ReleaseStatement, release: Digest) -> Digest:
    for resource in statement.resources:
        if resource.path.text == MANIFEST_NAME:
            return resource.digest
    raise ManifestMismatch(f"release {release} has no {MANIFEST_NAME}", expected=f"{MANIFEST_NAME} among the files")


def _require_present(stored: dict[Digest, BlobFacts], path: str, digest: Digest) -> None:
    if digest not in stored:
        raise Conflict(
            f"{path} has not been uploaded", expected=f"a verified blob {digest}", hint="upload it, then commit again"
        )
