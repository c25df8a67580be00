# SPDX-License-Identifier: Apache-2.0
"""Column types that mean the same in every database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer
from sqlalchemy.types import TypeDecorator

BigKey = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit key that counts up by itself; SQLite counts only columns declared INTEGER."""


class InstantColumn(TypeDecorator[datetime]):
    """An aware UTC datetime, kept as whole seconds since 1970: no database's own idea of time zones is involved."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        """Seconds for a datetime."""
        return None if value is None else int(value.timestamp())

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """A datetime for seconds."""
        return None if value is None else datetime.fromtimestamp(value, UTC)
