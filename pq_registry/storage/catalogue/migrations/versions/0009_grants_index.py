# SPDX-License-Identifier: Apache-2.0
"""Statements about a release are found by an index of those alone.

Most statements are about none. In an index of all of them these make the column look as if it told nothing apart, and a
database that has counted its rows does not use it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index."""
    name, given = op.f("ix_statements_release_digest"), sa.text("release_digest IS NOT NULL")
    op.drop_index(name, table_name="statements")
    op.create_index(
        name, "statements", ["release_digest"], unique=False, sqlite_where=given, postgresql_where=given
    )  # fmt: skip
