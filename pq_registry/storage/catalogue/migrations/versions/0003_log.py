# SPDX-License-Identifier: Apache-2.0
"""The transparency log: its lock, the batch under way, published checkpoints, and which statement is which leaf.

Also the newest status statement of each namespace, by which keys and releases are revoked.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.BigInteger()
HEX = sa.String(length=64)


def upgrade() -> None:
    """Create the log's tables and that of status statements."""
    op.create_table(
        "log_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=True),
        sa.Column("published", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_state")),
    )
    op.create_table(
        "log_staged",
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("start", name=op.f("pk_log_staged")),
    )
    op.create_table(
        "log_checkpoints",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("quorum", sa.Boolean(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoints")),
    )
    op.create_index(op.f("ix_log_checkpoints_quorum_size"), "log_checkpoints", ["quorum", "size"], unique=False)
    op.create_table(
        "log_entries",
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("statement", HEX, nullable=False),
        sa.Column("time", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["statement"], ["statements.digest"], name=op.f("fk_log_entries_statement")),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_log_entries")),
    )
    op.create_index(op.f("ix_log_entries_statement"), "log_entries", ["statement"], unique=False)
    op.create_table(
        "statuses",
        sa.Column("namespace_id", KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("statement", HEX, nullable=False),
        sa.Column("signer", HEX, nullable=False),
        sa.Column("issued", INSTANT, nullable=False),
        sa.Column("expires", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_statuses_namespace_id")),
        sa.ForeignKeyConstraint(["statement"], ["statements.digest"], name=op.f("fk_statuses_statement")),
        sa.PrimaryKeyConstraint("namespace_id", name=op.f("pk_statuses")),
    )
