# SPDX-License-Identifier: Apache-2.0
"""Access from the host itself, past the API: for whoever holds the data directory.

``pqreg token --data`` is for operators who lost every token, ``pqreg fsck`` for everyone who doubts. Both work beside
a running service, since SQLite lets several processes in, and never create or migrate a catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pq_registry.errors import UsageError
from pq_registry.service.clock import Clock
from pq_registry.service.tokens import Tokens
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.datadir import DataDirectory
from pq_registry.storage.local import LocalBlobStore
from pq_registry.storage.tiles import LocalTiles


@contextmanager
def open_stores(root: Path) -> Iterator[tuple[Catalogue, BlobStore]]:
    """Catalogue and blob store of a data directory.

    Raises:
        UsageError: if ``root`` is no data directory.
        StorageError: if its catalogue cannot be used.
    """
    directory = DataDirectory(root)
    if not directory.catalogue.is_file():
        raise UsageError(
            f"{root} is not a registry's data directory",
            expected=directory.catalogue.name,
            hint="give the DIR of pqreg serve --data",
        )
    catalogue = Catalogue.open_sqlite(directory.catalogue, upgrade=False)
    try:
        yield catalogue, LocalBlobStore(directory.blobs)
    finally:
        catalogue.close()


def log_files(root: Path) -> LocalTiles | None:
    """The files of a data directory's log; None if it has none.

    Raises:
        StorageError: if they cannot be used.
    """
    directory = DataDirectory(root).log
    return LocalTiles(directory) if directory.is_dir() else None


@contextmanager
def open_tokens(root: Path, clock: Clock) -> Iterator[Tokens]:
    """The tokens of a data directory.

    Raises:
        UsageError: if ``root`` is no data directory.
        StorageError: if its catalogue cannot be used.
    """
    with open_stores(root) as (catalogue, _):
        yield Tokens(catalogue, clock)
