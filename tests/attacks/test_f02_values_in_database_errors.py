# SPDX-License-Identifier: Apache-2.0
"""F2: the traceback of a failing database is logged with its causes. It must not show the values of the statement."""

from __future__ import annotations

import traceback
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from pq_registry.errors import StorageError
from pq_registry.storage.catalogue.database import Catalogue

CANARY = "canary-3f1d0c"


def failure(catalogue: Catalogue) -> str:
    """What the log would show of a statement that fails."""
    with pytest.raises(StorageError) as caught, catalogue.writing() as session:
        session.execute(text("UPDATE nowhere SET value = :value"), {"value": CANARY})
    return "".join(traceback.format_exception(caught.value))


def test_sqlite_shows_no_values(tmp_path: Path) -> None:
    with closing(Catalogue.open_sqlite(tmp_path / "catalogue.sqlite3", upgrade=True)) as catalogue:
        told = failure(catalogue)
    assert "nowhere" in told
    assert CANARY not in told


def test_postgres_shows_no_values(postgres_url: str) -> None:
    with closing(Catalogue.open_postgres(postgres_url, upgrade=True)) as catalogue:
        told = failure(catalogue)
    assert "nowhere" in told
    assert CANARY not in told
