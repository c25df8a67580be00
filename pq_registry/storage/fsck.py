# SPDX-License-Identifier: Apache-2.0
"""Verifying again everything that is stored: bytes against digests, documents against each other, rows against both.

Nothing is repaired and nothing is written (``storage.repair`` does that). It may run beside a service: what it reads of
statements and of the log are consistent states, and a blob is looked at as it is recorded at that moment.

Checked, each finding naming its object:

1. every blob: present, of its size, SHA-256 and BLAKE3 as recorded, in slices of every recorded size; blobs and
   uploads of the store that the catalogue does not know are notes, not damage;
2. every statement: its envelope parses, is named by its payload's digest, and both halves verify under its signer;
3. every release: manifest and statement bind, its name is the repository's, its facts are the manifest's, and every
   file is a recorded blob with the manifest's shards that the repository refers to;
4. every tag, grant, key and status statement, as ``storage.chains`` says;
5. every draft, as ``storage.draftcheck`` says;
6. the log, as ``storage.logcheck`` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.shards import shard_digests
from pq_registry.crypto.signing import verify_envelope
from pq_registry.errors import NotFound, PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.manifest import MANIFEST_NAME
from pq_registry.format.release import bind, content_digest
from pq_registry.format.statement import ReleaseStatement
from pq_registry.storage.blobs import BlobStore, DirectUploads, StoredBlob
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
from pq_registry.storage.draftcheck import check_drafts
from pq_registry.storage.hashing import hash_blob, read_blob
from pq_registry.storage.logcheck import check_log
from pq_registry.storage.orphans import batches, unknown_blobs, unknown_uploads
from pq_registry.storage.tiles import LogFiles

_WORKERS = 4
_PAGE = 256
"""Blobs whose rows are held at once; the digests of a large one's slices take some hundred kB."""
_READ_SLICES = 8
"""Slices read by one request to the store: 16 MiB."""
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
    among: Collection[Digest] | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Finding]:
    """Verify everything; answers what was found, nothing if all is well.

    Args:
        catalogue: of the registry.
        blobs: its blob store.
        tiles: the files of its log, if it has one.
        among: the blobs whose bytes are read; all of them unless given.
        advance: told the number of bytes that were hashed, as they are.

    Raises:
        StorageError: if catalogue or store cannot be read at all.
    """
    with catalogue.reading() as session:
        findings = [*_statements(session), *_releases(session, blobs), *check_chains(session), *check_drafts(session)]

    def check(blob: _Blob) -> list[Finding]:
        found = list(_blob(blobs, blob, advance))
        # What a collection or a repair has changed meanwhile is not damaged.
        return found if not found or _is_recorded(catalogue, blob) else []

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="fsck") as workers:
        for page in _pages(catalogue):
            chosen = [blob for blob in page if among is None or blob.stored.digest in among]
            for found in workers.map(check, chosen):
                findings.extend(found)
    if tiles is not None:
        findings.extend(check_log(catalogue, tiles))
    try:
        findings.extend(_unknown(catalogue, blobs))
    except StorageError as error:  # what was found before is needed all the same
        findings.append(Finding("what the store holds beside its blobs", str(error)))
    return findings


def total_bytes(catalogue: Catalogue) -> int:
    """How many bytes ``check_registry`` will hash.

    Raises:
        StorageError: if the catalogue cannot be read.
    """
    further = select(func.sum(BlobRow.size)).join(BlobSlicingRow, BlobSlicingRow.digest == BlobRow.digest)
    with catalogue.reading() as session:
        return sum(int(session.scalar(query) or 0) for query in (select(func.sum(BlobRow.size)), further))


def _pages(catalogue: Catalogue) -> Iterator[list[_Blob]]:
    for query, slice_size in ((_BLOBS, BlobRow.slice_size), (_FURTHER_SLICINGS, BlobSlicingRow.slice_size)):
        ordered = query.order_by(BlobRow.digest, slice_size).limit(_PAGE)
        after = ordered
        while True:
            with catalogue.reading() as session:
                page = [
                    _Blob(StoredBlob(Digest(digest), copy), size, slices, shards)
                    for digest, copy, size, slices, shards in session.execute(after)
                ]
            if not page:
                break
            yield page
            last = page[-1].stored.digest.hex
            beyond = and_(BlobRow.digest == last, slice_size > page[-1].slice_size)
            after = ordered.where(or_(BlobRow.digest > last, beyond))


def _is_recorded(catalogue: Catalogue, blob: _Blob) -> bool:
    with catalogue.reading() as session:
        row = session.get(BlobRow, blob.stored.digest.hex)
        return row is not None and row.copy == blob.stored.copy


def _blob(blobs: BlobStore, blob: _Blob, advance: Callable[[int], None]) -> Iterator[Finding]:
    subject, digest = f"blob {blob.stored}", blob.stored.digest
    try:
        reader = blobs.open(blob.stored)
    except NotFound:
        yield Finding(subject, "it is missing from the store", blob=digest, lost=True)
        return
    except PqregError as error:
        yield Finding(subject, str(error), blob=digest)
        return
    try:
        if reader.size != blob.size:
            # Which of the two is wrong, only their digest tells.
            lost = hash_blob(blobs, blob.stored) != digest
            yield Finding(subject, f"it has {reader.size} bytes, not {blob.size}", blob=digest, lost=lost)
            return
        sha256 = hashlib.sha256()
        shards = bytearray()
        step = _READ_SLICES * blob.slice_size
        for offset in range(0, blob.size, step):
            data = reader.read(offset, min(step, blob.size - offset))
            sha256.update(data)
            shards += shard_digests(data, blob.slice_size)
            advance(len(data))
        if sha256.hexdigest() != digest.hex:
            yield Finding(subject, f"its bytes are those of sha256:{sha256.hexdigest()}", blob=digest, lost=True)
        if shards != blob.shards:
            yield Finding(subject, "its recorded shard digests are not those of its bytes", blob=digest)
    except PqregError as error:
        yield Finding(subject, str(error), blob=digest)
    finally:
        reader.close()


def _unknown(catalogue: Catalogue, blobs: BlobStore) -> Iterator[Finding]:
    strays: list[str] = []
    for batch in batches(blobs.iterate(stray=strays.append)):
        with catalogue.reading() as session:
            unknown = unknown_blobs(session, batch)
        for blob in unknown:
            where = f", in its copy {blob.copy}" if blob.copy else ""
            yield Finding(f"blob {blob}", f"no catalogue entry knows it{where}", note=True)
    for name in strays:
        yield Finding(f"store {name}", "it is no blob and stands among them; move it away: pqreg did not put it there")
    if isinstance(blobs, DirectUploads):
        unfinished = list(blobs.unfinished())
        with catalogue.reading() as session:
            orphans = unknown_uploads(session, unfinished)
        for upload in orphans:
            yield Finding(f"upload {upload.blob.copy} of blob {upload.blob}", "no catalogue entry knows it", note=True)


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
