# SPDX-License-Identifier: Apache-2.0
"""Blobs and uploads in an object store: which object a blob is, and the store's name for an upload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns; what is there is in a directory."""
    op.add_column("blobs", sa.Column("copy", sa.String(32), server_default=sa.text("''"), nullable=False))
    op.add_column("uploads", sa.Column("storage_id", sa.Text(), server_default=sa.text("''"), nullable=False))
