# SPDX-License-Identifier: Apache-2.0
"""The options that name a registry's stores, for every command that works on them and not over the API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pq_registry.settings import Settings
    from pq_registry.storage.stores import StoreConfig

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="The registry's data directory. [setting: PQREG_DATA]")
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="PostgreSQL instead of SQLite, postgresql://HOST/NAME. A password belongs into the setting, where other "
        "users of the machine do not see it. [setting: PQREG_DATABASE, PQREG_DATABASE_FILE]",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage", metavar="URL", help="Keep weights and log in s3://BUCKET/PREFIX. [setting: PQREG_STORAGE]"
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--s3-endpoint", metavar="URL", help="Where the object store is. [setting: PQREG_S3_ENDPOINT]"),
]


def store_settings(
    data: Path | None, database: str | None, storage: str | None, s3_endpoint: str | None
) -> dict[str, str | None]:
    """The four options as settings given on the command line."""
    return {
        "data": None if data is None else str(data),
        "database": database,
        "storage": storage,
        "s3_endpoint": s3_endpoint,
    }


def store_config(settings: Settings) -> StoreConfig:
    """Where the registry keeps things.

    Raises:
        SettingError: if a setting is missing or wrong.
    """
    from pq_registry.storage.stores import StoreConfig

    return StoreConfig.from_settings(settings)
