# SPDX-License-Identifier: Apache-2.0
"""When a publisher was last told that a blob need not be uploaded: collection leaves it for a while after that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing was promised before."""
    op.add_column("blobs", sa.Column("promised", sa.BigInteger(), nullable=True))
