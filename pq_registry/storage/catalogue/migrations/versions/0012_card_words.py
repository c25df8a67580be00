# SPDX-License-Identifier: Apache-2.0
"""What repositories are found by: the words of the card that is shown for each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table of words, and mark the cards that are shown."""
    op.add_column("cards", sa.Column("shown", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "card_words",
        sa.Column("word", sa.String(256), nullable=False),
        sa.Column("repository_id", KEY, nullable=False),
        sa.ForeignKeyConstraint(["repository_id"], ["repositories.id"], name=op.f("fk_card_words_repository_id")),
        sa.PrimaryKeyConstraint("word", "repository_id", name=op.f("pk_card_words")),
    )
    op.create_index(op.f("ix_card_words_repository_id"), "card_words", ["repository_id"], unique=False)
