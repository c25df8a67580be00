# SPDX-License-Identifier: Apache-2.0
"""Where a registry keeps things, opened: catalogue, blobs and the files of its log, in whatever they are kept in.

Each of the two may be the embedded default or the real thing, independently::

    catalogue   DIR/catalogue.sqlite3      or a PostgreSQL database (any number of instances)
    blobs, log  DIR/blobs, DIR/log         or s3://bucket/prefix

The data directory always exists: the first admin token and, unless it is kept elsewhere, the log's key are in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pq_registry import durable
from pq_registry.errors import SettingError, UsageError
from pq_registry.settings import Settings
from pq_registry.storage.blobs import BlobStore
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.datadir import DataDirectory
from pq_registry.storage.local import LocalBlobStore
from pq_registry.storage.s3.config import S3Config
from pq_registry.storage.tiles import LocalTiles, LogFiles

if TYPE_CHECKING:
    from pq_registry.storage.s3.session import S3Session

_MOST_URL_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where a registry keeps things. ``database`` is a URL with a password and therefore in no repr."""

    data: Path
    database: str | None = None
    s3: S3Config | None = None

    def __repr__(self) -> str:
        return f"StoreConfig(data={self.data}, database={self.database_kind}, s3={self.s3})"

    @property
    def directory(self) -> DataDirectory:
        """The paths below the data directory."""
        return DataDirectory(self.data)

    @property
    def database_kind(self) -> str:
        """``SQLite`` or ``PostgreSQL``."""
        return "SQLite" if self.database is None else "PostgreSQL"

    @property
    def shared(self) -> bool:
        """Whether other instances may work on the same stores."""
        return self.database is not None and self.s3 is not None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the settings of a registry's stores.

        Raises:
            SettingError: if one is missing or wrong.
        """
        return cls(
            data=Path(settings.require("data")).absolute(),
            database=_database(settings),
            s3=S3Config.from_settings(settings),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The opened stores."""

    config: StoreConfig
    catalogue: Catalogue
    blobs: BlobStore
    tiles: LogFiles
    session: S3Session | None = None

    @classmethod
    def open(cls, config: StoreConfig, *, upgrade: bool) -> Self:
        """Open what ``config`` names.

        Args:
            config: where things are.
            upgrade: whether to make what is missing and to bring the catalogue to this version's schema; otherwise
                the catalogue must be there and of this version.

        Raises:
            UsageError: if there is no registry there, and none is to be made.
            StorageError: if a store cannot be used.
        """
        directory = config.directory
        if upgrade:
            durable.make_directory(config.data, 0o700)
        if config.database is not None:
            catalogue = Catalogue.open_postgres(config.database, upgrade=upgrade)
        else:
            if not upgrade and not directory.catalogue.is_file():
                raise UsageError(
                    f"{config.data} is not a registry's data directory",
                    expected=directory.catalogue.name,
                    hint="give the DIR of pqreg serve --data, and its --database and --storage if it has them",
                )
            catalogue = Catalogue.open_sqlite(directory.catalogue, upgrade=upgrade)
        if config.s3 is None:
            return cls(
                config=config, catalogue=catalogue,
                blobs=LocalBlobStore(directory.blobs), tiles=LocalTiles(directory.log),
            )  # fmt: skip
        # Imported here: a registry in a directory needs no S3 client.
        from pq_registry.storage.s3.blobs import S3BlobStore
        from pq_registry.storage.s3.session import S3Session
        from pq_registry.storage.s3.tiles import S3Tiles

        try:
            session = S3Session(config.s3)
        except BaseException:
            catalogue.close()
            raise
        return cls(
            config=config, catalogue=catalogue, blobs=S3BlobStore(session), tiles=S3Tiles(session), session=session
        )  # fmt: skip

    def require(self) -> None:
        """Make sure, before a service starts, that the stores can do what the settings want of them.

        Raises:
            SettingError: if they cannot.
            StorageError: if a store does not answer.
        """
        if self.session is not None:
            from pq_registry.storage.s3.probe import require

            require(self.session)

    def close(self) -> None:
        """Close every connection."""
        self.catalogue.close()
        if self.session is not None:
            self.session.close()


@contextmanager
def opened(config: StoreConfig) -> Iterator[Stores]:
    """The stores of a registry that exists, for a command on its host.

    Raises:
        UsageError: if there is no registry there.
        StorageError: if a store cannot be used.
    """
    stores = Stores.open(config, upgrade=False)
    try:
        yield stores
    finally:
        stores.close()


def _database(settings: Settings) -> str | None:
    path = settings.get("database_file")
    url = settings.get("database")
    if path is not None and url is None:
        with durable.reported("read", Path(path)), Path(path).open("rb") as file:
            url = file.read(_MOST_URL_BYTES).partition(b"\n")[0].decode("utf-8", errors="replace").strip()
    if url is not None and not url.startswith(("postgresql://", "postgres://")):
        raise SettingError(
            "setting database is wrong", expected="postgresql://user:password@host/name",
            found=f"a URL of scheme {url.partition(':')[0][:20]!r}",
        )  # fmt: skip
    return url
