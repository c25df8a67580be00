# SPDX-License-Identifier: Apache-2.0
"""Access from the host itself, past the API: for whoever holds the data directory and lost every token.

Works beside a running service, since SQLite lets several processes in. It never creates or migrates a catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pq_registry.errors import UsageError
from pq_registry.service.clock import Clock
from pq_registry.service.tokens import Tokens
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.datadir import DataDirectory


@contextmanager
def open_tokens(root: Path, clock: Clock) -> Iterator[Tokens]:
    """The tokens of a data directory.

    Raises:
        UsageError: if ``root`` is no data directory.
        StorageError: if its catalogue cannot be used.
    """
    path = DataDirectory(root).catalogue
    if not path.is_file():
        raise UsageError(f"{root} is not a registry's data directory", expected=path.name, hint="give the DIR of serve")
    catalogue = Catalogue.open_sqlite(path, upgrade=False)
    try:
        yield Tokens(catalogue, clock)
    finally:
        catalogue.close()
