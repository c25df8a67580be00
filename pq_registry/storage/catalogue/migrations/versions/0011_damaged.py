# SPDX-License-Identifier: Apache-2.0
"""When fsck found that a blob's bytes are lost: it is served to nobody until it is mended or uploaded again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what an earlier fsck found is found again by the next."""
    op.add_column("blobs", sa.Column("damaged", sa.BigInteger(), nullable=True))
