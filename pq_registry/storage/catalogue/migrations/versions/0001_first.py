# SPDX-License-Identifier: Apache-2.0
"""The first schema: namespaces, repositories, blobs, uploads, statements, tags, tokens and audit events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# History is written in plain types: a later change of the application's own types must not change it.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
HEX = sa.String(length=64)


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "audit_events",
        sa.Column("id", KEY, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events_at"), "audit_events", ["at"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("digest", HEX, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("slice_size", sa.Integer(), nullable=False),
        sa.Column("shards", sa.LargeBinary(), nullable=False),
        sa.Column("verified_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_table(
        "identities",
        sa.Column("id", HEX, nullable=False),
        sa.Column("public", sa.Text(), nullable=False),
        sa.Column("ec_half", HEX, nullable=False),
        sa.Column("pq_half", HEX, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("ec_half", name=op.f("uq_identities_ec_half")),
        sa.UniqueConstraint("pq_half", name=op.f("uq_identities_pq_half")),
    )
    op.create_table(
        "namespaces",
        sa.Column("id", KEY, nullable=False),
        sa.Column("key", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespaces")),
        sa.UniqueConstraint("key", name=op.f("uq_namespaces_key")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("hash", HEX, nullable=False),
        sa.Column("parent_id", sa.String(length=16), nullable=True),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("namespaces", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("expires", INSTANT, nullable=False),
        sa.Column("revoked", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["parent_id"], ["tokens.id"], name=op.f("fk_tokens_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    op.create_index(op.f("ix_tokens_parent_id"), "tokens", ["parent_id"], unique=False)
    op.create_table(
        "namespace_identities",
        sa.Column("namespace_id", KEY, nullable=False),
        sa.Column("identity_id", HEX, nullable=False),
        sa.Column("registered", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["identity_id"], ["identities.id"], name=op.f("fk_namespace_identities_identity_id")),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_namespace_identities_namespace_id")),
        sa.PrimaryKeyConstraint("namespace_id", "identity_id", name=op.f("pk_namespace_identities")),
    )
    op.create_table(
        "repositories",
        sa.Column("id", KEY, nullable=False),
        sa.Column("namespace_id", KEY, nullable=False),
        sa.Column("key", sa.String(length=193), nullable=False),
        sa.Column("name", sa.String(length=193), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("updated", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_repositories_namespace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("key", name=op.f("uq_repositories_key")),
    )
    op.create_index(op.f("ix_repositories_namespace_id"), "repositories", ["namespace_id"], unique=False)
    op.create_table(
        "repository_blobs",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("digest", HEX, nullable=False),
        sa.Column("upload_id", sa.String(length=32), nullable=True),
        sa.Column("added", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_repository_blobs_digest")),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_repository_blobs_repository_id")),
        sa.PrimaryKeyConstraint("repository_id", "digest", name=op.f("pk_repository_blobs")),
    )
    op.create_index(op.f("ix_repository_blobs_digest"), "repository_blobs", ["digest"], unique=False)
    op.create_index(op.f("ix_repository_blobs_upload_id"), "repository_blobs", ["upload_id"], unique=False)
    op.create_table(
        "statements",
        sa.Column("digest", HEX, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("recorded", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_statements_repository_id")),
        sa.ForeignKeyConstraint(["signer"], ["identities.id"], name=op.f("fk_statements_signer")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_statements")),
        sa.UniqueConstraint("repository_id", "tag", "sequence", name=op.f("uq_statements_repository_id_tag_sequence")),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("token_id", sa.String(length=16), nullable=False),
        sa.Column("digest", HEX, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("slice_size", sa.Integer(), nullable=False),
        sa.Column("part_size", sa.BigInteger(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("touched", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_uploads_repository_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        sa.UniqueConstraint(
            "repository_id", "digest", "token_id", name=op.f("uq_uploads_repository_id_digest_token_id")
        ),
    )
    op.create_table(
        "releases",
        sa.Column("id", KEY, nullable=False),
        sa.Column("digest", HEX, nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("manifest_digest", HEX, nullable=False),
        sa.Column("content_digest", HEX, nullable=False),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("committed", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["statements.digest"], name=op.f("fk_releases_digest")),
        sa.ForeignKeyConstraint(["manifest_digest"], ["blobs.digest"], name=op.f("fk_releases_manifest_digest")),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_releases_repository_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("digest", name=op.f("uq_releases_digest")),
    )
    op.create_index(
        op.f("ix_releases_repository_id_content_digest"), "releases", ["repository_id", "content_digest"], unique=False
    )
    op.create_index(op.f("ix_releases_repository_id_id"), "releases", ["repository_id", "id"], unique=False)
    op.create_table(
        "tags",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("statement", HEX, nullable=False),
        sa.Column("target", HEX, nullable=True),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("issued", INSTANT, nullable=False),
        sa.Column("expires", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_tags_repository_id")),
        sa.ForeignKeyConstraint(["statement"], ["statements.digest"], name=op.f("fk_tags_statement")),
        sa.PrimaryKeyConstraint("repository_id", "tag", name=op.f("pk_tags")),
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("shards", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_upload_parts")),
    )
