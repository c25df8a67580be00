# SPDX-License-Identifier: Apache-2.0
"""Verifying again everything that is stored: bytes against digests, documents against each other, rows against both.

Nothing is repaired and nothing is written. It may run beside a service: what it reads of the catalogue is one
consistent state, and a blob that arrives meanwhile is at most noted as unreferenced.

Checked, each finding naming its object:

1. every blob: present, of its size, SHA-256 and BLAKE3 as recorded; blobs nobody knows are notes, not damage;
2. every statement: its envelope parses, is named by its payload's digest, and both halves verify under its signer;
3. every release: manifest and statement bind, its name is the repository's, its facts are the manifest's, and every
   file is a recorded blob with the manifest's shards that the repository refers to;
4. every tag: its statements are an unbroken chain, and the row repeats the last one, whose target is a release.
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
from pq_registry.format.tag import TagStatement
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import (
    BlobRow,
    IdentityRow,
    ReleaseRow,
    RepositoryBlobRow,
    RepositoryRow,
    StatementRow,
    TagRow,
)
from pq_registry.storage.hashing import read_blob

_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. Notes waste space; everything else is damage."""

    subject: str
    problem: str
    note: bool = False


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: Digest
    size: int
    slice_size: int
    shards: bytes


def check_registry(
    catalogue: Catalogue, blobs: BlobStore, *, advance: Callable[[int], None] = lambda _: None
) -> list[Finding]:
    """Verify everything; answers what was found, nothing if all is well.

    Args:
        catalogue: of the registry.
        blobs: its blob store.
        advance: told the number of bytes that were hashed, as they are.

    Raises:
        StorageError: if catalogue or store cannot be read at all.
    """
    with catalogue.reading() as session:
        rows = session.execute(select(BlobRow.digest, BlobRow.size, BlobRow.slice_size, BlobRow.shards)).all()
        recorded = [_Blob(Digest(digest), size, slice_size, shards) for digest, size, slice_size, shards in rows]
        findings = [*_statements(session), *_releases(session, blobs), *_tags(session)]

    def check(blob: _Blob) -> list[Finding]:
        return list(_blob(blobs, blob, advance))

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="fsck") as workers:
        for found in workers.map(check, recorded):
            findings.extend(found)
    known = {blob.digest for blob in recorded}
    findings.extend(
        Finding(f"blob {digest}", "no catalogue entry knows it", note=True)
        for digest in blobs.iterate()
        if digest not in known
    )
    return findings


def total_bytes(catalogue: Catalogue) -> int:
    """How many bytes ``check_registry`` will hash.

    Raises:
        StorageError: if the catalogue cannot be read.
    """
    with catalogue.reading() as session:
        return sum(session.scalars(select(BlobRow.size)))


def _blob(blobs: BlobStore, blob: _Blob, advance: Callable[[int], None]) -> Iterator[Finding]:
    subject = f"blob {blob.digest}"
    try:
        reader = blobs.open(blob.digest)
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
        if sha256.hexdigest() != blob.digest.hex:
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
    data = read_blob(blobs, Digest(row.manifest_digest), limit=limits.MANIFEST_BYTES)
    manifest = bind(statement, Digest(row.digest), data)
    stated = (str(manifest.name), manifest.signer, manifest.total_size, len(manifest.files), manifest.created)
    if stated != (name, row.signer, row.size, row.files, row.created):
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
        elif (blob.size, blob.shards) != (entry.size, entry.shards):
            yield Finding(subject, f"the blob of {entry.path} is recorded with other sizes or shards")


def _tags(session: Session) -> Iterator[Finding]:
    rows = session.execute(select(ReleaseRow.repository_id, ReleaseRow.digest))
    releases = {(repository_id, digest) for repository_id, digest in rows}
    current = {(row.repository_id, row.tag): row for row in session.scalars(select(TagRow))}
    query = (
        select(StatementRow, RepositoryRow.id, RepositoryRow.name)
        .join(RepositoryRow, RepositoryRow.id == StatementRow.repository_id)
        .where(StatementRow.tag.is_not(None))
        .order_by(StatementRow.repository_id, StatementRow.tag, StatementRow.sequence)
    )
    last: dict[tuple[int, str], TagStatement] = {}
    digests: dict[tuple[int, str], Digest] = {}
    for row, repository_id, name in session.execute(query):
        subject = f"tag {name}:{row.tag} statement {row.sequence}"
        key = (repository_id, row.tag or "")
        try:
            envelope = Envelope.parse(row.envelope)
            statement = TagStatement.parse(envelope.payload)
        except PqregError as error:
            yield Finding(subject, str(error))
            continue
        before = last[key].sequence if key in last else 0
        if (str(statement.repository), str(statement.tag), statement.sequence) != (name, row.tag, row.sequence):
            yield Finding(subject, "it is recorded under another name or sequence")
        if (statement.sequence, statement.previous) != (before + 1, digests.get(key)):
            yield Finding(subject, "it does not follow the statement before it")
        if statement.target is not None and (row.repository_id, statement.target.hex) not in releases:
            yield Finding(subject, f"its target {statement.target} is not a release of the repository")
        last[key], digests[key] = statement, envelope.payload_digest
    for key, tag in current.items():
        statement_now = last.pop(key, None)
        if statement_now is None or _facts(tag) != _stated(statement_now, digests[key]):
            yield Finding(f"tag {tag.tag} of repository {tag.repository_id}", "it does not repeat its last statement")
    for _, name_of_tag in last:
        yield Finding(f"tag {name_of_tag}", "it has statements but no entry")


def _facts(row: TagRow) -> tuple[object, ...]:
    return row.sequence, row.statement, row.target, row.signer, row.issued, row.expires


def _stated(statement: TagStatement, digest: Digest) -> tuple[object, ...]:
    target = None if statement.target is None else statement.target.hex
    return statement.sequence, digest.hex, target, statement.signer, statement.issued, statement.expires
