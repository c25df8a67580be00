# SPDX-License-Identifier: Apache-2.0
"""``pqreg backup``: the catalogue, the log's lock and the configuration, into a new directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pq_registry.settings import SETTINGS, Settings
from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.options import JsonOption, QuietOption
from pqreg_cli.serve import require_server
from pqreg_cli.stores import (
    DatabaseOption,
    DataOption,
    EndpointOption,
    StorageOption,
    store_config,
    store_settings,
)


def backup(
    target: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A directory that is not there yet, or that an interrupted backup left."),
    ],
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    with_log_key: Annotated[
        bool,
        typer.Option("--with-log-key", help="Copy the log's secret keys as well; keep the backup as safe as them."),
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy everything a registry knows, beside the running service: one consistent state.

    Blobs are referred to, not copied: keep the object store, or a copy of DIR/blobs made after the backup. The log's
    tiles follow from the rest.

    Examples:
      pqreg backup /var/backups/pqreg/monday --data /var/lib/pqreg
    """
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.storage.backup import write_backup
    from pq_registry.storage.stores import opened

    output = Output(json=json, quiet=quiet)
    settings = Settings(store_settings(data, database, storage, s3_endpoint))
    config = store_config(settings)
    key = Path(settings.get("log_key") or config.directory.log_key) if with_log_key else None
    shown = {one.name: settings.get(one.name) for one in SETTINGS if not one.secret and settings.source(one.name)}
    with opened(config) as stores:
        index = write_backup(
            target.absolute(), stores.catalogue, stores.tiles, now=utc_now(),
            settings={name: value for name, value in shown.items() if value is not None}, log_key=key,
        )  # fmt: skip
    size = sum(file.size for file in index.files)
    output.data(
        {
            "backup": str(target), "size": size, "rows": sum(file.rows for file in index.files),
            "leaves": index.leaves, "root": index.root, "blobs": index.blobs, "blob_bytes": index.blob_bytes,
        }
    )  # fmt: skip
    output.line(
        f"{target}: {size_text(size)}, log of {count_text(index.leaves, 'leaf').replace('leafs', 'leaves')}, "
        f"refers to {count_text(index.blobs, 'blob')} of {size_text(index.blob_bytes)}",
        "good",
    )
    if key is None:
        output.note("the log's secret keys are not in it: keep a copy of them elsewhere")
