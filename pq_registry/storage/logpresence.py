# SPDX-License-Identifier: Apache-2.0
"""Whether a registry has a log already, before anything of it is opened to be written.

Whoever is about to make keys for a log asks: keys are made for a log that never was, and never for one that is. So any
trace counts, in whatever store: a directory of tiles, an object under the log's prefix, a row in the catalogue.

The directory of an instance whose catalogue and weights are both elsewhere has the log's keys and no trace of the log.
Started again without the settings that name the stores, it would begin a second history with the same keys. So it has a
mark (``require_named``).
"""

from __future__ import annotations

from contextlib import closing, suppress

from pq_registry import durable
from pq_registry.errors import NotFound, SettingError, StorageError
from pq_registry.log.stores import CHECKPOINT_PATH, TileStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.loglock import CatalogueLock
from pq_registry.storage.stores import StoreConfig, Stores


def has_log(config: StoreConfig) -> bool:
    """Whether there is a trace of a log in the configured stores.

    A PostgreSQL database is brought to this version's schema by that, as every start does.

    Raises:
        SettingError: if a setting of the stores is wrong.
        StorageError: if a store does not answer.
    """
    directory = config.directory
    if directory.log.exists():
        return True
    if config.database is not None or config.s3 is not None:
        stores = Stores.open(config, upgrade=True)
        with closing(stores):
            return _is_begun(stores.catalogue) or _is_shown(stores.tiles)
    if not directory.catalogue.is_file():
        return False
    try:
        catalogue = Catalogue.open_sqlite(directory.catalogue, upgrade=False)
    except StorageError:  # of another version, which the start then judges; its directory of tiles has been looked for
        return False
    with closing(catalogue):
        return _is_begun(catalogue)


def require_named(config: StoreConfig) -> None:
    """Leave the mark if the stores are elsewhere; refuse a new registry in a directory that has it.

    Raises:
        SettingError: if an instance with stores elsewhere used this directory, and the settings name none.
    """
    directory = config.directory
    if config.s3 is not None and config.database is not None:
        text = f"catalogue: PostgreSQL (setting database)\nweights and log: {config.s3.url} (setting storage)\n"
        # A directory that cannot be written to needs no mark: no registry can begin in it.
        with suppress(StorageError):
            durable.make_directory(config.data, 0o700)
            durable.write_file(directory.stores_mark, text.encode(), mode=0o600)
    elif directory.stores_mark.exists() and not directory.catalogue.exists():
        raise SettingError(
            "the settings do not name this registry's stores: without them it would begin a second history of its log",
            expected="settings database and storage, as at earlier starts",
            found=f"{directory.stores_mark}, and no catalogue beside it",
            hint="give them (PQREG_DATABASE, PQREG_STORAGE; --dev-s3 --dev-postgres), or another directory "
            "for another registry",
        )


def _is_begun(catalogue: Catalogue) -> bool:
    return CatalogueLock(catalogue).load() is not None


def _is_shown(tiles: TileStore) -> bool:
    try:
        tiles.read(CHECKPOINT_PATH)
    except NotFound:
        return tiles.has_tiles()
    return True
