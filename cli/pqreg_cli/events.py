# SPDX-License-Identifier: Apache-2.0
"""``pqreg events list|export|check|prune``: a service's own record of who changed what, for operators on the host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pqreg_cli.console import Output, count_text
from pqreg_cli.eventfile import add_events, extent, read_events
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption
from pqreg_cli.serve import require_server
from pqreg_cli.stores import DatabaseOption, DataOption, EndpointOption, StorageOption, store_config, store_settings

if TYPE_CHECKING:
    from pq_registry.format.eventline import Event
    from pq_registry.service.events import End, Events

app = new_app(
    help="Look at, export and check a registry's audit events: every change of rights, and of what readers see."
)
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Exports, oldest first.")]
MOST_DAYS = 36_500


@app.command("list")
def list_(
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="Only from then on; a day or an instant.")
    ] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="NAME", help="Only these, e.g. token-created.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="TEXT", help="Only about what begins like this, e.g. acme/.")
    ] = None,
    token: Annotated[str | None, typer.Option("--token-id", metavar="ID", help="Only by this token.")] = None,
    host: Annotated[bool, typer.Option("--host", help="Only what was done on the host, past the API.")] = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> None:
    """List events, oldest first.

    Examples:
      pqreg events list --data /var/lib/pqreg --since 2026-11-01 --action token-created
      pqreg events list --data /var/lib/pqreg --host --json
    """
    output = Output(json=json)
    start = None if since is None else _instant(since)
    with _opened(data, database, storage, s3_endpoint) as events:
        rows = [
            _row(link.event)
            for link in events.chain()
            if (start is None or link.event.at >= start)
            and action in (None, link.event.action)
            and link.event.subject.startswith(subject or "")
            and token in (None, link.event.token)
            and (not host or not link.event.token)
        ]
    output.data(rows)
    columns = ("at", "action", "subject", "token", "request", "detail")
    output.table(columns, [[_shown(row[name]) for name in columns] for row in rows])


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new export, or the one to go on with; - for all.")],
    *,
    after: Annotated[
        Path | None, typer.Option("--after", metavar="OLDER", help="Begin where this export ends: a new file.")
    ] = None,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> None:
    """Write events as lines of JSON, each bound to all before it. Run it again to add what is new.

    Before anything is added, the registry's events must still lead to the last one exported.

    Examples:
      pqreg events export /var/backups/pqreg/events-2026.jsonl --data /var/lib/pqreg
      pqreg events export events-2027.jsonl --after events-2026.jsonl --data /var/lib/pqreg
      pqreg events export - --data /var/lib/pqreg | gzip > events.jsonl.gz
    """
    output = Output(json=json)
    with _opened(data, database, storage, s3_endpoint) as events:
        if str(file) == "-":
            if json or after is not None:
                raise UsageError("- goes with no other option", expected="a FILE")
            for link in events.chain():
                sys.stdout.write(link.encode().decode())
            return
        there = file.exists() and file.stat().st_size > 0
        if there and after is not None:
            raise UsageError(f"{file} is there already", hint="leave --after out to go on with it")
        older = file if there else after
        end = None if older is None else _end_of([older], torn=there)
        added = add_events(file, events.chain() if end is None else events.after(end))
    if not added:
        last = end
        if not there:
            file.unlink()
            output.note("there is nothing to export")
    else:
        last = _end_of([file])
    output.data({"file": str(file), "added": added, "last": last and last.id, "hash": last and last.hash})
    if last is not None:
        output.line(f"added {count_text(added, 'event')} to {file}; the last is {last.id}", "good")
        output.line(f"hash {last.hash}")


@app.command()
def check(
    files: FilesArgument,
    *,
    registry: Annotated[
        bool, typer.Option("--stored", help="Also compare with what the registry of --data has.")
    ] = False,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> None:
    """Check that exports are whole and follow one another. Needs no registry and no key.

    Examples:
      pqreg events check events-2026.jsonl events-2027.jsonl
      pqreg events check events-2027.jsonl --stored --data /var/lib/pqreg
    """
    from pq_registry.format.instant import format_instant

    output = Output(json=json)
    found = extent(files)
    first, last = found.first.event, found.last.event
    since, until = format_instant(first.at), format_instant(last.at)
    facts = {
        "events": found.count, "first": first.id, "last": last.id, "from": since, "until": until,
        "hash": found.last.hash, "stored": None,
    }  # fmt: skip
    if registry:
        with _opened(data, database, storage, s3_endpoint) as events:
            facts["stored"] = events.compare(read_events(files))
    output.data(facts)
    numbers = f"{first.id} to {last.id}, {since} to {until}"
    output.line(f"{count_text(found.count, 'event')}, {numbers}: unchanged", "good")
    if registry:
        output.line(f"{facts['stored']} of them are in the registry, unchanged", "good")
    output.line(f"hash {found.last.hash}")


@app.command()
def prune(
    files: FilesArgument,
    *,
    keep_days: Annotated[
        int, typer.Option("--keep-days", metavar="N", min=1, max=MOST_DAYS, help="Keep what is younger.")
    ],
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    json: JsonOption = False,
) -> None:
    """Remove old events that an export holds from the registry. That it happened is an event, too.

    Examples:
      pqreg events prune events-2026.jsonl --keep-days 365 --data /var/lib/pqreg
    """
    from pq_registry.format.instant import utc_now
    from pq_registry.service.host import operator

    output = Output(json=json)
    end = _end_of(files)
    with _opened(data, database, storage, s3_endpoint) as events:
        removed = events.prune(operator(), end, utc_now() - timedelta(days=keep_days))
    output.data({"removed": removed})
    output.line(f"removed {count_text(removed, 'event')}, which the export holds", "good")


@contextmanager
def _opened(data: Path | None, database: str | None, storage: str | None, s3_endpoint: str | None) -> Iterator[Events]:
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.service.events import Events
    from pq_registry.settings import Settings
    from pq_registry.storage.stores import opened

    config = store_config(Settings(store_settings(data, database, storage, s3_endpoint)))
    with opened(config) as stores:
        yield Events(stores.catalogue, utc_now)


def _end_of(files: list[Path], *, torn: bool = False) -> End:
    from pq_registry.service.events import End

    last = extent(files, torn=torn).last
    return End(last.event.id, last.hash)


def _instant(text: str) -> datetime:
    from pq_registry.errors import FormatError
    from pq_registry.format.instant import parse_instant

    try:
        return parse_instant(text if "T" in text else f"{text}T00:00:00Z")
    except FormatError:
        raise UsageError("--since is wrong", expected="2026-11-22 or 2026-11-22T12:00:00Z", found=repr(text)) from None


def _row(event: Event) -> dict[str, object]:
    from pq_registry.format.instant import format_instant

    return {
        "id": event.id, "at": format_instant(event.at), "action": event.action, "subject": event.subject,
        "token": event.token, "request": event.request, "detail": dict(event.detail),
    }  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={found}" for name, found in value.items() if found is not None)
    return str(value or "-")
