# SPDX-License-Identifier: Apache-2.0
"""Repositories are listed by when they last changed, as the Hub's clients ask for them."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index(op.f("ix_repositories_updated_id"), "repositories", ["updated", "id"], unique=False)
