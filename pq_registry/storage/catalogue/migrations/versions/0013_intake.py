# SPDX-License-Identifier: Apache-2.0
"""Uploads of the Hub's clients: keys all instances share, blocks of chunked uploads and where their chunks went."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
HEX = sa.String(length=64)


def upgrade() -> None:
    """Create the four tables."""
    op.create_table(
        "service_keys",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service_keys")),
    )
    op.create_table(
        "xorbs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("token_id", sa.String(16), nullable=False),
        sa.Column("hash", HEX, nullable=False),
        sa.Column("digest", HEX, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.LargeBinary(), nullable=False),
        sa.Column("stored", sa.Boolean(), nullable=False),
        sa.Column("touched", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_xorbs_repository_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_xorbs")),
        sa.UniqueConstraint("repository_id", "token_id", "hash", name=op.f("uq_xorbs_repository_id_token_id_hash")),
    )
    op.create_index(op.f("ix_xorbs_hash"), "xorbs", ["hash"])
    op.create_table(
        "xorb_sources",
        sa.Column("xorb_id", sa.String(32), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("end", sa.Integer(), nullable=False),
        sa.Column("digest", HEX, nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["xorb_id"], ["xorbs.id"], name=op.f("fk_xorb_sources_xorb_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("xorb_id", "first", "end", name=op.f("pk_xorb_sources")),
    )
    op.create_table(
        "xet_places",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("place", sa.String(16), nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_xet_places_repository_id")),
        sa.PrimaryKeyConstraint("repository_id", name=op.f("pk_xet_places")),
    )
