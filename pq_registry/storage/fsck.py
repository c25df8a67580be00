# SPDX-License-Identifier: Apache-2.0
"""Verifying again everything that is stored: bytes against digests, documents against each other, rows against both.

Nothing is repaired and nothing is written. It may run beside a service: what it reads of the catalogue is one
consistent state, and a blob that arrives meanwhile is at most noted as unreferenced.

Checked, each finding naming its object:

1. every blob: present, of its size, SHA-256 and BLAKE3 as recorded, in slices of every recorded size; blobs nobody
   knows are notes, not damage;
2. every statement: its envelope parses, is named by its payload's digest, and both halves verify under its signer;
3. every release: manifest and statement bind, its name is the repository's, its facts are the manifest's, and every
   file is a recorded blob with the manifest's shards that the repository refers to;
4. every tag, grant, key and status statement, as ``storage.chains`` says;
5. the log, as ``storage.logcheck`` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.shards import shard_digest
from pq_registry.crypto.signing import verify_envelope
from pq_registry.errors import NotFound, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME
from pq_registry.format.release import bind, content_digest
from pq_registry.format.statement import ReleaseStatement
from pq_registry.storage.blobs import BlobStore, StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    BlobRow,
    BlobSlicingRow,
    IdentityRow,
    ReleaseRow,
    RepositoryBlobRow,
    RepositoryRow,
    StatementRow,
)
from pq_registry.storage.chains import Finding, check_chains
from pq_registry.storage.hashing import read_blob
from pq_registry.storage.logcheck import check_log
from pq_registry.storage.tiles import LogFiles

_WORKERS = 4
_BLOBS = select(BlobRow.digest, BlobRow.copy, BlobRow.size, BlobRow.slice_size, BlobRow.shards)
_FURTHER_SLICINGS = select(
    BlobRow.digest, BlobRow.copy, BlobRow.size, BlobSlicingRow.slice_size, BlobSlicingRow.shards
).join(BlobSlicingRow, BlobSlicingRow.digest == BlobRow.digest)


@dataclass(frozen=True, slots=True)
class _Blob:
    stored: StoredBlob
    size: int
    slice_size: int
    shards: bytes


def check_registry(
    catalogue: Catalogue,
    blobs: BlobStore,
    *,
    tiles: LogFiles | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """Verify everything; answers what was found, nothing if all is well.

    Args:
        catalogue: of the registry.
        blobs: its blob store.
        tiles: the files of its log, if it has one.
        advance: told the number of bytes that were hashed, as they are.

    Raises:
        StorageError: if catalogue or store cannot be read at all.
    """
    with catalogue.reading() as session:
        recorded = [
            _Blob(StoredBlob(Digest(digest), copy), size, slice_size, shards)
            for query in (_BLOBS, _FURTHER_SLICINGS)
            for digest, copy, size, slice_size, shards in session.execute(query)
        ]
        findings = [*_statements(session), *_releases(session, blobs), *check_chains(session)]

    def check(blob: _Blob) -> list[Finding]:
        return list(_blob(blobs, blob, advance))

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="fsck") as workers:
        for found in workers.map(check, recorded):
            findings.extend(found)
    if tiles is not None:
        findings.extend(check_log(catalogue, tiles))
    known = {blob.stored for blob in recorded}
    findings.extend(
        Finding(f"blob {blob}", "no catalogue entry knows it", note=True)
        for blob in blobs.iterate()
        if blob not in known
    )
    return findings


def total_bytes(catalogue: Catalogue) -> int:
    """How many bytes ``check_registry`` will hash.

    Raises:
        StorageError: if the catalogue cannot be read.
    """
    with catalogue.reading() as session:
        return sum(size for query in (_BLOBS, _FURTHER_SLICINGS) for _, _, size, _, _ in session.execute(query))


def _blob(blobs: BlobStore, blob: _Blob, advance: Callable[[int], None]) -> Iterator[Finding]:
    subject = f"blob {blob.stored}"
    try:
        reader = blobs.open(blob.stored)
    except NotFound:
        yield Finding(subject, "it is missing from the store")
        return
    except PqregError as error:
        yield Finding(subject, str(error))
        return
    try:
        if reader.size != blob.size:
            yield Finding(subject, f"it has {reader.size} bytes, not {blob.size}")
            return
        sha256 = hashlib.sha256()
        shards = bytearray()
        for offset in range(0, blob.size, blob.slice_size):
            data = reader.read(offset, min(blob.slice_size, blob.size - offset))
            sha256.update(data)
            shards += shard_digest(data)
            advance(len(data))
        if sha256.hexdigest() != blob.stored.digest.hex:
            yield Finding(subject, f"its bytes are those of sha256:{sha256.hexdigest()}")
        if shards != blob.shards:
            yield Finding(subject, "its recorded shard digests are not those of its bytes")
    except PqregError as error:
        yield Finding(subject, str(error))
    finally:
        reader.close()


def _statements(session: Session) -> Iterator[Finding]:
    identities = {row.id: row.public for row in session.scalars(select(IdentityRow))}
    for row in session.scalars(select(StatementRow).execution_options(yield_per=16)):
        subject = f"statement sha256:{row.digest}"
        try:
            envelope = Envelope.parse(row.envelope)
            signer = PublicIdentity.from_pem(identities[row.signer].encode("ascii"))
            if signer.id != row.signer:
                yield Finding(subject, f"its signer's keys are those of {signer.id}")
            if envelope.payload_digest.hex != row.digest:
                yield Finding(subject, f"its payload is {envelope.payload_digest}")
            verify_envelope(envelope, signer)
        except (PqregError, UnicodeError) as error:
            yield Finding(subject, str(error))


def _releases(session: Session, blobs: BlobStore) -> Iterator[Finding]:
    query = (
        select(ReleaseRow, RepositoryRow.name, StatementRow.envelope)
        .join(RepositoryRow, RepositoryRow.id == ReleaseRow.repository_id)
        .join(StatementRow, StatementRow.digest == ReleaseRow.digest)
        .execution_options(yield_per=16)
    )
    for row, name, envelope in session.execute(query):
        subject = f"release {name}@sha256:{row.digest}"
        try:
            yield from _release(session, blobs, subject, row, name, Envelope.parse(envelope))
        except PqregError as error:
            yield Finding(subject, str(error))


def _release(
    session: Session, blobs: BlobStore, subject: str, row: ReleaseRow, name: str, envelope: Envelope
) -> Iterator[Finding]:
    statement = ReleaseStatement.parse(envelope.payload)
    copy = session.scalars(select(BlobRow.copy).where(BlobRow.digest == row.manifest_digest)).one_or_none()
    data = read_blob(blobs, StoredBlob(Digest(row.manifest_digest), copy or ""), limit=limits.MANIFEST_BYTES)
    manifest = bind(statement, Digest(row.digest), data)
    sealed = manifest.sealing is not None
    stated = (str(manifest.name), manifest.signer, manifest.total_size, len(manifest.files), manifest.created, sealed)
    if stated != (name, row.signer, row.size, row.files, row.created, row.sealed):
        yield Finding(subject, "the catalogue's facts are not those of its manifest")
    if content_digest(manifest.files).hex != row.content_digest:
        yield Finding(subject, "its recorded content digest is not that of its files")
    links = select(RepositoryBlobRow.digest).where(RepositoryBlobRow.repository_id == row.repository_id)
    linked = set(session.scalars(links))
    if row.manifest_digest not in linked:
        yield Finding(subject, f"the repository does not refer to its {MANIFEST_NAME}")
    for entry in manifest.files:
        blob = session.get(BlobRow, entry.sha256.hex) if entry.sha256.hex in linked else None
        if blob is None:
            yield Finding(subject, f"the repository does not refer to the blob of {entry.path}")
        elif blob.size != entry.size or entry.shards not in _slicings(session, blob, entry.slice_size):
            yield Finding(subject, f"the blob of {entry.path} is recorded with other sizes or shards")


def _slicings(session: Session, blob: BlobRow, slice_size: int) -> list[bytes]:
    further = session.get(BlobSlicingRow, (blob.digest, slice_size))
    if blob.slice_size == slice_size or blob.size <= min(blob.slice_size, slice_size):
        return [blob.shards]
    return [] if further is None else [further.shards]
