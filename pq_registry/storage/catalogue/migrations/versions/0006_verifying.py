# SPDX-License-Identifier: Apache-2.0
"""Uploads that are being verified: by which instance, until when, how far, and that they were refused."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add four columns; nothing that is there is being verified."""
    op.add_column("uploads", sa.Column("verifier", sa.String(32), server_default=sa.text("''"), nullable=False))
    op.add_column("uploads", sa.Column("verifier_until", sa.BigInteger(), nullable=True))
    op.add_column("uploads", sa.Column("verified", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("uploads", sa.Column("refused", sa.String(71), server_default=sa.text("''"), nullable=False))
