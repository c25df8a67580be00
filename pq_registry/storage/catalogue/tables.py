# SPDX-License-Identifier: Apache-2.0
"""The tables. Digests and ids are lowercase hex; names keep the case they were first given and are found by ``key``.

``migrations/`` holds the same tables as history; a test compares the two.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pq_registry.storage.catalogue.columns import BigKey, InstantColumn

_HEX = String(64)
_ABOUT_A_RELEASE = text("release_digest IS NOT NULL")
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Declarative base; constraints get names so that later migrations can change them."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {datetime: InstantColumn, bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy's protocol


class NamespaceRow(Base):
    """A namespace that has an identity or a repository."""

    __tablename__ = "namespaces"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    key: Mapped[str] = mapped_column(String(96), unique=True)
    name: Mapped[str] = mapped_column(String(96))
    created: Mapped[datetime]


class IdentityRow(Base):
    """A signing identity. Its halves are unique, so that no half occurs in two identities."""

    __tablename__ = "identities"

    id: Mapped[str] = mapped_column(_HEX, primary_key=True)
    public: Mapped[str] = mapped_column(Text)
    ec_half: Mapped[str] = mapped_column(_HEX, unique=True)
    pq_half: Mapped[str] = mapped_column(_HEX, unique=True)
    created: Mapped[datetime]


class NamespaceIdentityRow(Base):
    """Which identities may publish in which namespace."""

    __tablename__ = "namespace_identities"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey("identities.id"), primary_key=True)
    registered: Mapped[datetime]


class RepositoryRow(Base):
    """A repository; ``key`` and ``name`` are ``namespace/name``."""

    __tablename__ = "repositories"
    __table_args__ = (Index(None, "updated", "id"),)

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), index=True)
    key: Mapped[str] = mapped_column(String(193), unique=True)
    name: Mapped[str] = mapped_column(String(193))
    created: Mapped[datetime]
    updated: Mapped[datetime]


class BlobRow(Base):
    """A blob this service has verified: its SHA-256 is ``digest``, its slices' BLAKE3 digests are ``shards``.

    ``copy`` is which object of the store it is (``storage.blobs.StoredBlob``); empty in a directory. ``promised`` is
    when a publisher was last told that it need not be uploaded. ``damaged`` is when fsck found other bytes in its
    place, or none: until it is mended or uploaded again it is served to nobody, and counts as missing.
    """

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(_HEX, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    slice_size: Mapped[int] = mapped_column(Integer)
    shards: Mapped[bytes]
    verified_at: Mapped[datetime]
    copy: Mapped[str] = mapped_column(String(32), server_default=text("''"))
    promised: Mapped[datetime | None]
    damaged: Mapped[datetime | None]


class BlobSlicingRow(Base):
    """The digests of the slices of another size in which a blob of several slices also arrived.

    The same bytes can be a file of a plain release and one of a sealed release. What a slice is, is the manifest's
    business, so whoever stores bytes first must not decide for the others.
    """

    __tablename__ = "blob_slicings"

    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), primary_key=True)
    slice_size: Mapped[int] = mapped_column(Integer, primary_key=True)
    shards: Mapped[bytes]


class RepositoryBlobRow(Base):
    """Who may read a blob: whoever may read one of the repositories that refer to it.

    ``upload_id`` is the upload that brought it, so that completing that upload twice is answered twice.
    """

    __tablename__ = "repository_blobs"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"), primary_key=True, index=True)
    upload_id: Mapped[str | None] = mapped_column(String(32), index=True)
    added: Mapped[datetime]


class UploadRow(Base):
    """An unfinished upload; its bytes are in the incoming directory under ``id``.

    Or in the object store, under the digest and ``id``; ``storage_id`` is then the store's own name for the upload,
    empty for one whose bytes come through the service.

    While the whole is being verified, ``verifier`` is the instance that does so; after ``verifier_until`` another may
    take over. ``verified`` is how far it has come. ``refused`` is what was found instead, until somebody was told.
    """

    __tablename__ = "uploads"
    __table_args__ = (UniqueConstraint("repository_id", "digest", "token_id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"))
    token_id: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(_HEX)
    size: Mapped[int] = mapped_column(BigInteger)
    slice_size: Mapped[int] = mapped_column(Integer)
    part_size: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime]
    touched: Mapped[datetime]
    storage_id: Mapped[str] = mapped_column(Text, server_default=text("''"))
    verifier: Mapped[str] = mapped_column(String(32), server_default=text("''"))
    verifier_until: Mapped[datetime | None]
    verified: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    refused: Mapped[str] = mapped_column(String(71), server_default=text("''"))


class UploadPartRow(Base):
    """A part whose bytes are durable and match ``shards``."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    shards: Mapped[bytes]


class StatementRow(Base):
    """A signed statement: the exact bytes of its envelope, by the digest of its payload.

    What it is about is in the columns that are not null: ``repository_id`` for all but key statements, ``tag`` for
    tags, ``release_digest`` and ``recipient`` for grants, ``recipient`` for key statements. A sequence number of a tag,
    or of a release and a recipient, is used once.
    """

    __tablename__ = "statements"
    __table_args__ = (
        UniqueConstraint("repository_id", "tag", "sequence"),
        UniqueConstraint("repository_id", "release_digest", "recipient", "sequence"),
        Index(None, "recorded", "digest"),
        # Most statements are about no release; an index of all of them would seem to tell nothing apart.
        Index(None, "release_digest", sqlite_where=_ABOUT_A_RELEASE, postgresql_where=_ABOUT_A_RELEASE),
    )

    digest: Mapped[str] = mapped_column(_HEX, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), index=True)
    repository_id: Mapped[int | None] = mapped_column(ForeignKey("repositories.id"))
    signer: Mapped[str] = mapped_column(ForeignKey("identities.id"), index=True)
    envelope: Mapped[bytes]
    tag: Mapped[str | None] = mapped_column(String(128))
    release_digest: Mapped[str | None] = mapped_column(_HEX)
    recipient: Mapped[str | None] = mapped_column(_HEX)
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    recorded: Mapped[datetime]


class ReleaseRow(Base):
    """A release; ``digest`` is that of its statement's payload. ``id`` is the order of commits."""

    __tablename__ = "releases"
    __table_args__ = (
        Index(None, "repository_id", "id"),
        Index(None, "repository_id", "content_digest"),
    )

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("statements.digest"), unique=True)
    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"))
    manifest_digest: Mapped[str] = mapped_column(ForeignKey("blobs.digest"))
    content_digest: Mapped[str] = mapped_column(_HEX)
    signer: Mapped[str] = mapped_column(_HEX)
    size: Mapped[int] = mapped_column(BigInteger)
    files: Mapped[int] = mapped_column(Integer)
    created: Mapped[datetime]
    committed: Mapped[datetime]
    sealed: Mapped[bool] = mapped_column(Boolean, server_default=false())


class TagRow(Base):
    """Where a tag points now; ``target`` is null once it is withdrawn."""

    __tablename__ = "tags"

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(128), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    statement: Mapped[str] = mapped_column(ForeignKey("statements.digest"))
    target: Mapped[str | None] = mapped_column(_HEX)
    signer: Mapped[str] = mapped_column(_HEX)
    issued: Mapped[datetime]
    expires: Mapped[datetime]


class GrantRow(Base):
    """The newest statement about one recipient of one sealed release; ``withdrawn`` if that takes the grant back."""

    __tablename__ = "grants"
    __table_args__ = (Index(None, "repository_id", "recipient"),)

    repository_id: Mapped[int] = mapped_column(ForeignKey("repositories.id"), primary_key=True)
    release_digest: Mapped[str] = mapped_column(ForeignKey("releases.digest"), primary_key=True)
    recipient: Mapped[str] = mapped_column(_HEX, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    statement: Mapped[str] = mapped_column(ForeignKey("statements.digest"))
    withdrawn: Mapped[bool] = mapped_column(Boolean)
    signer: Mapped[str] = mapped_column(_HEX)
    issued: Mapped[datetime]
    expires: Mapped[datetime | None]


class KeyRow(Base):
    """The newest key statement about one recipient, by which an identity vouches for its public key."""

    __tablename__ = "keys"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    recipient: Mapped[str] = mapped_column(_HEX, primary_key=True)
    node: Mapped[str] = mapped_column(String(253))
    statement: Mapped[str] = mapped_column(ForeignKey("statements.digest"))
    signer: Mapped[str] = mapped_column(_HEX)
    issued: Mapped[datetime]
    not_after: Mapped[datetime | None]


class StatusRow(Base):
    """The newest status statement of a namespace: what its revokers have revoked."""

    __tablename__ = "statuses"

    namespace_id: Mapped[int] = mapped_column(ForeignKey("namespaces.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    statement: Mapped[str] = mapped_column(ForeignKey("statements.digest"))
    signer: Mapped[str] = mapped_column(_HEX)
    issued: Mapped[datetime]
    expires: Mapped[datetime]


class LogStateRow(Base):
    """The log's lock, one row: whoever replaces ``note`` has decided what the tree is.

    ``note`` is the newest checkpoint as the log signed it, ``previous`` the one it replaced, ``published`` the newest
    one that readers were shown, with its cosignatures.
    """

    __tablename__ = "log_state"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    note: Mapped[bytes]
    previous: Mapped[bytes | None]
    published: Mapped[bytes | None]


class LogStagedRow(Base):
    """The leaves of the newest batch, from leaf ``start`` on, each as it stands in an entry bundle.

    Kept until their tiles are known to be durable: that is, until the next batch.
    """

    __tablename__ = "log_staged"

    start: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entries: Mapped[bytes]


class LogCheckpointRow(Base):
    """A published checkpoint with its cosignatures, from which receipts are made; one per size of the tree."""

    __tablename__ = "log_checkpoints"
    __table_args__ = (Index(None, "quorum", "size"),)

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    note: Mapped[bytes]
    quorum: Mapped[bool] = mapped_column(Boolean)
    at: Mapped[datetime]


class LogEntryRow(Base):
    """Which statement is leaf ``index``. A statement may be several leaves: logged again when witnesses were away."""

    __tablename__ = "log_entries"

    index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    statement: Mapped[str] = mapped_column(ForeignKey("statements.digest"), index=True)
    time: Mapped[datetime]


class LeaseRow(Base):
    """Which instance holds a lease until when, in the database's own time; ``term`` counts its holders.

    Written and read by ``storage.leases`` alone, which knows the table only by its name.
    """

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until_ms: Mapped[int] = mapped_column(BigInteger)
    term: Mapped[int] = mapped_column(BigInteger)


class TokenRow(Base):
    """A bearer token: the SHA-256 of its text, never the text. ``namespaces`` is ``*`` or keys joined by spaces."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    hash: Mapped[str] = mapped_column(_HEX, unique=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id"), index=True)
    role: Mapped[str] = mapped_column(String(16))
    namespaces: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime]
    expires: Mapped[datetime]
    revoked: Mapped[datetime | None]


class AuditEventRow(Base):
    """One change, written in the transaction that made it. ``detail`` is JSON without secrets."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    at: Mapped[datetime] = mapped_column(InstantColumn, index=True)
    request_id: Mapped[str] = mapped_column(String(32))
    token_id: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
