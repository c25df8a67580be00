# SPDX-License-Identifier: Apache-2.0
"""The Hub's side: drafts and their commits, what model cards say, and runs of mirrors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
HEX = sa.String(length=64)
COMMIT = sa.String(length=40)


def upgrade() -> None:
    """Create the four tables."""
    op.create_table(
        "drafts",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("head", COMMIT, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("updated", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_drafts_repository_id")),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_drafts")),
    )
    op.create_table(
        "draft_commits",
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("id", COMMIT, nullable=False),
        sa.Column("parent", COMMIT, nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("token_id", sa.String(16), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("listing", sa.LargeBinary(), nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_draft_commits_repository_id")),
        sa.PrimaryKeyConstraint("repository_id", "id", name=op.f("pk_draft_commits")),
    )
    op.create_table(
        "cards",
        sa.Column("release_digest", HEX, nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("license", sa.String(64), nullable=False),
        sa.Column("library", sa.String(64), nullable=False),
        sa.Column("pipeline", sa.String(64), nullable=False),
        sa.Column("languages", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("base_models", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["release_digest"], ["releases.digest"], name=op.f("fk_cards_release_digest")),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_cards_repository_id")),
        sa.PrimaryKeyConstraint("release_digest", name=op.f("pk_cards")),
    )
    op.create_index(op.f("ix_cards_repository_id"), "cards", ["repository_id"], unique=False)
    op.create_table(
        "mirror_runs",
        sa.Column("id", KEY, nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("release_digest", HEX, nullable=False),
        sa.Column("tag", sa.String(128), nullable=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("commit", COMMIT, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("token_id", sa.String(16), nullable=False),
        sa.Column("started", INSTANT, nullable=False),
        sa.Column("finished", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_mirror_runs_repository_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirror_runs")),
    )
    op.create_index(op.f("ix_mirror_runs_repository_id_id"), "mirror_runs", ["repository_id", "id"], unique=False)
