# SPDX-License-Identifier: Apache-2.0
"""Alembic's entry: runs migrations on the connection (and in the transaction) that ``migrate`` hands over."""

from __future__ import annotations

from alembic import context

from pq_registry.storage.catalogue import hubtables, intaketables
from pq_registry.storage.catalogue.tables import Base

assert hubtables.CardRow.metadata is Base.metadata
assert intaketables.XorbRow.metadata is Base.metadata
context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
