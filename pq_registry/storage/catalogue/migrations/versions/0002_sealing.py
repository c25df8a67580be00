# SPDX-License-Identifier: Apache-2.0
"""Sealed releases: grants, key statements of a namespace, and bytes known in slices of several sizes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
HEX = sa.String(length=64)


def upgrade() -> None:
    """Change statements and releases, create grants, keys and slicings."""
    op.add_column("statements", sa.Column("namespace_id", KEY, nullable=True))
    op.execute(
        "UPDATE statements SET namespace_id = "
        "(SELECT namespace_id FROM repositories WHERE repositories.id = statements.repository_id)"
    )
    with op.batch_alter_table("statements") as statements:
        statements.alter_column("namespace_id", existing_type=KEY, nullable=False)
        statements.alter_column("repository_id", existing_type=KEY, nullable=True)
        statements.add_column(sa.Column("release_digest", HEX, nullable=True))
        statements.add_column(sa.Column("recipient", HEX, nullable=True))
        statements.create_foreign_key(op.f("fk_statements_namespace_id"), "namespaces", ["namespace_id"], ["id"])
        statements.create_unique_constraint(
            op.f("uq_statements_repository_id_release_digest_recipient_sequence"),
            ["repository_id", "release_digest", "recipient", "sequence"],
        )
    op.create_table(
        "blob_slicings",
        sa.Column("digest", HEX, nullable=False),
        sa.Column("slice_size", sa.Integer(), nullable=False),
        sa.Column("shards", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_blob_slicings_digest")),
        sa.PrimaryKeyConstraint("digest", "slice_size", name=op.f("pk_blob_slicings")),
    )
    op.add_column("releases", sa.Column("sealed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "grants",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("release_digest", HEX, nullable=False),
        sa.Column("recipient", HEX, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("statement", HEX, nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("issued", INSTANT, nullable=False),
        sa.Column("expires", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["release_digest"], ["releases.digest"], name=op.f("fk_grants_release_digest")),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_grants_repository_id")),
        sa.ForeignKeyConstraint(["statement"], ["statements.digest"], name=op.f("fk_grants_statement")),
        sa.PrimaryKeyConstraint("repository_id", "release_digest", "recipient", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_repository_id_recipient"), "grants", ["repository_id", "recipient"], unique=False)
    op.create_table(
        "keys",
        sa.Column("namespace_id", KEY, nullable=False),
        sa.Column("recipient", HEX, nullable=False),
        sa.Column("node", sa.String(length=253), nullable=False),
        sa.Column("statement", HEX, nullable=False),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("issued", INSTANT, nullable=False),
        sa.Column("not_after", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_keys_namespace_id")),
        sa.ForeignKeyConstraint(["statement"], ["statements.digest"], name=op.f("fk_keys_statement")),
        sa.PrimaryKeyConstraint("namespace_id", "recipient", name=op.f("pk_keys")),
    )
