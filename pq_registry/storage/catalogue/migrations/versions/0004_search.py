# SPDX-License-Identifier: Apache-2.0
"""Statements are found without looking at all of them: by signer, namespace and release, and the newest."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create four indexes."""
    for column in ("namespace_id", "signer", "release_digest"):
        op.create_index(op.f(f"ix_statements_{column}"), "statements", [column], unique=False)
    op.create_index(op.f("ix_statements_recorded_digest"), "statements", ["recorded", "digest"], unique=False)
