# SPDX-License-Identifier: Apache-2.0
"""``pqreg gc``: remove what no release refers to."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from pq_registry import limits
from pq_registry.settings import Settings
from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.options import JsonOption, QuietOption
from pqreg_cli.serve import require_server
from pqreg_cli.spans import parse_span
from pqreg_cli.stores import (
    DatabaseOption,
    DataOption,
    EndpointOption,
    StorageOption,
    store_config,
    store_settings,
)

_GRACE = f"{limits.GC_GRACE_SECONDS // 86400}d"
_NAMES = {
    "upload": "unfinished upload",
    "reference": "unused reference",
    "blob": "unused blob",
    "object": "object nobody knows",
    "parts": "upload nobody knows",
}


def gc(
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="How old what goes must be, e.g. 36h or 7d; at least 1h.")
    ] = _GRACE,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove blobs that no release refers to, idle uploads, and objects the catalogue does not know.

    What is younger than the grace time stays, and so does what a publisher was told is present within it. It runs
    beside the service. Take backups before it rather than after: they refer to blobs.

    Examples:
      pqreg gc --data /var/lib/pqreg --dry-run
      pqreg gc --data /var/lib/pqreg --grace 30d
    """
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.service.collection import Collection, Kind, Stock
    from pq_registry.storage.incoming import Incoming
    from pq_registry.storage.stores import opened

    output = Output(json=json, quiet=quiet)
    config = store_config(Settings(store_settings(data, database, storage, s3_endpoint)))
    with opened(config) as stores:
        incoming = Incoming(config.directory.incoming) if config.s3 is None else None
        stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=incoming)
        collection = Collection(stock, now=utc_now(), grace=parse_span(grace), dry=dry_run)
        gone = []
        for item in collection.run():
            gone.append(item)
            if not quiet:
                output.line(f"{_NAMES[item.kind]} {item.subject}")
    freed = sum(item.size for item in gone if item.kind is not Kind.REFERENCE)
    output.data(
        {
            "dry_run": dry_run,
            "freed": freed,
            "strays": collection.strays,
            "collected": [{"kind": item.kind.value, "subject": item.subject, "size": item.size} for item in gone],
        }
    )
    for name in collection.strays:
        output.note(f"{name} is no blob and stays; move it away: pqreg did not put it there")
    counts = Counter(item.kind for item in gone)
    what = ", ".join(_counted(counts[kind], kind) for kind in Kind if counts[kind]) or "nothing"
    output.line(f"{'would remove' if dry_run else 'removed'} {what}" + (f": {size_text(freed)}" if freed else ""))


def _counted(count: int, kind: str) -> str:
    first, _, rest = _NAMES[kind].partition(" nobody")
    return count_text(count, first) + (f" nobody{rest}" if rest else "")
