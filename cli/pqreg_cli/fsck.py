# SPDX-License-Identifier: Apache-2.0
"""``pqreg fsck``: verify again everything a registry's data directory holds."""

from __future__ import annotations

import typer

from pq_registry.errors import EXIT_REFUSED
from pq_registry.settings import Settings
from pqreg_cli.console import Output, count_text
from pqreg_cli.options import JsonOption, QuietOption
from pqreg_cli.progress import new_progress
from pqreg_cli.serve import require_server
from pqreg_cli.stores import (
    DatabaseOption,
    DataOption,
    EndpointOption,
    StorageOption,
    store_config,
    store_settings,
)


def fsck(
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify every stored blob, statement, release and tag, and the log. Changes nothing; may run beside the service.

    Exit status 1 means damage; blobs that nothing refers to are only noted.

    Examples:
      pqreg fsck --data /var/lib/pqreg
    """
    require_server()
    from pq_registry.storage.fsck import check_registry, total_bytes
    from pq_registry.storage.stores import opened

    output = Output(json=json, quiet=quiet)
    config = store_config(Settings(store_settings(data, database, storage, s3_endpoint)))
    root = config.data
    with opened(config) as stores, new_progress(output) as progress:
        progress.start("fsck", total_bytes(stores.catalogue))
        findings = check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles, advance=progress.advance)
        progress.done()
    damage = [finding for finding in findings if not finding.note]
    output.data([{"subject": item.subject, "problem": item.problem, "note": item.note} for item in findings])
    for finding in findings:
        if finding.note:
            output.note(f"{finding.subject}: {finding.problem}")
        else:
            output.line(f"{finding.subject}: {finding.problem}", "bad")
    if damage:
        output.line(f"damaged: {count_text(len(damage), 'finding')} in {root}", "bad")
        raise typer.Exit(EXIT_REFUSED)
    output.line(f"everything in {root} is as it should be", "good")
