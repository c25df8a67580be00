# SPDX-License-Identifier: Apache-2.0
"""``pqreg restore``: a backup becomes a registry again, and is verified."""

from __future__ import annotations

import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import EXIT_REFUSED
from pq_registry.settings import Settings
from pqreg_cli.console import Output, count_text
from pqreg_cli.fsck import check, mend, show_findings
from pqreg_cli.options import JsonOption, QuietOption
from pqreg_cli.progress import new_progress
from pqreg_cli.serve import require_server
from pqreg_cli.session import read_small
from pqreg_cli.stores import (
    DatabaseOption,
    DataOption,
    EndpointOption,
    StorageOption,
    store_config,
    store_settings,
)

if TYPE_CHECKING:
    from pq_registry.service.restoring import Restored, Shown
    from pq_registry.storage.backup import BackupIndex
    from pq_registry.storage.chains import Finding
    from pq_registry.storage.logrepair import Repaired
    from pq_registry.storage.repair import BlobSource
    from pq_registry.storage.stores import StoreConfig


def restore(
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A directory that pqreg backup made.")],
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option("--checkpoint", metavar="FILE|URL", help="A checkpoint of the log from a mirror or an auditor."),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", metavar="URL", help="A witness that cosigns the log.")
    ] = None,
    repair_from: Annotated[
        list[str] | None,
        typer.Option("--repair-from", metavar="URL|DIR", help="Where to fetch blobs that the store lost."),
    ] = None,
    repair_token_file: Annotated[
        Path | None, typer.Option("--repair-token-file", metavar="FILE", help="A file with the token for them.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a registry from a backup: into a new data directory or database, whichever kinds the backup came from.

    The log's files are made again. If the tile store or a witness shows that the log had gone further than the backup,
    the log goes on from there or not at all. At the end everything is verified; exit status 1 means that something is
    damaged, or that the log does not go on.

    Examples:
      pqreg restore /var/backups/pqreg/monday --data /var/lib/pqreg --witness https://witness.example.org
    """
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.service.restoring import LogOutcome, check_backup, put_log_key
    from pq_registry.service.restoring import restore as restore_backup
    from pq_registry.storage.datadir import DataLock
    from pq_registry.storage.stores import Stores

    output = Output(json=json, quiet=quiet)
    settings = Settings(store_settings(data, database, storage, s3_endpoint))
    config = store_config(settings)
    begun = time.monotonic()
    moved = other_storage(check_backup(source), config)  # before anything is made for it
    if moved is not None:
        output.note(moved)
    with ExitStack() as stack:
        sources: list[BlobSource] = []
        if repair_from:
            from pqreg_cli.repairsources import open_sources

            sources = open_sources(repair_from, settings, repair_token_file, stack)
        shown = [*_checkpoints(checkpoint or [], settings), *_witnessed(source, witness or [], settings)]
        stores = Stores.open(config, upgrade=True)
        stack.callback(stores.close)
        stack.callback(DataLock(config.directory).release)
        restored = restore_backup(source, stores, shown=shown, now=utc_now())
        key = put_log_key(source, restored.index, Path(settings.get("log_key") or config.directory.log_key))
        rows_done = time.monotonic()
        progress = stack.enter_context(new_progress(output))
        findings = check(stores, progress)
        repaired: list[Repaired] = []
        if sources and any(not finding.note for finding in findings):
            findings, repaired = mend(stores, findings, sources, progress)
    seconds = {"restore": round(rows_done - begun, 3), "verify": round(time.monotonic() - rows_done, 3)}
    _show(output, restored, findings, [*restored.repaired, *repaired], seconds, log_key=key)
    damaged = any(not finding.note for finding in findings)
    if damaged or restored.outcome is LogOutcome.STOPPED:
        raise typer.Exit(EXIT_REFUSED)


def other_storage(index: BackupIndex, config: StoreConfig) -> str | None:
    """What to say if the backup's registry kept its weights elsewhere: they moved, or a setting was forgotten."""
    was, now = index.settings.get("storage", "").rstrip("/"), "" if config.s3 is None else config.s3.url
    if was == now:
        return None
    place = "the data directory"
    return f"the backup's registry kept its weights in {was or place}, this one in {now or place} (--storage)"


def _show(
    output: Output,
    restored: Restored,
    findings: list[Finding],
    repaired: list[Repaired],
    seconds: dict[str, float],
    *,
    log_key: bool,
) -> None:
    from pq_registry.format.instant import format_instant

    index = restored.index
    output.data(
        {
            "created": format_instant(index.created),
            "log": restored.outcome.value,
            "leaves": restored.leaves,
            "backup_leaves": index.leaves,
            "newest_checkpoint": restored.newest,
            "lost": [
                {"kind": leaf.kind.value, "name": leaf.name, "statement": str(leaf.payload)} for leaf in restored.lost
            ],
            "log_key": log_key,
            "findings": [{"subject": item.subject, "problem": item.problem, "note": item.note} for item in findings],
            "repaired": [{"subject": item.subject, "action": item.action, "done": item.done} for item in repaired],
            "seconds": seconds,
        }
    )  # fmt: skip
    output.line(f"restored the backup of {format_instant(index.created)} in {seconds['restore']} s")
    for item in repaired:
        if not item.done:
            output.line(f"{item.subject}: {item.action}", "bad")
    made = sum(item.done for item in repaired)
    if made:
        output.line(f"made again or fetched: {count_text(made, 'object')}")
    _show_log(output, restored)
    show_findings(output, findings)
    if not any(not finding.note for finding in findings):
        output.line(f"verified in {seconds['verify']} s: everything is as it should be", "good")


def _show_log(output: Output, restored: Restored) -> None:
    from pq_registry.service.restoring import LogOutcome

    had, has, who = restored.index.leaves, restored.leaves, restored.newest
    if restored.outcome is LogOutcome.WHOLE:
        output.line(f"the log has all {has} leaves that {who} shows", "good")
    elif restored.outcome is LogOutcome.MOVED:
        output.line(f"the log goes on at {has} leaves as {who} shows; the backup had {had}")
        for leaf in restored.lost:
            output.line(f"lost: {leaf.kind.value} statement {leaf.payload} of {leaf.name}; its publisher has it", "bad")
    elif restored.outcome is LogOutcome.STOPPED:
        output.line(
            f"the log stays stopped: {who} shows {has} leaves, the backup has {had}, and the tile store lacks the "
            "others; give it them from a mirror and restore into a new catalogue",
            "bad",
        )


def _checkpoints(places: list[str], settings: Settings) -> list[Shown]:
    from pq_registry.service.restoring import Shown

    shown = []
    for place in places:
        if "://" in place:
            base, _, name = place.rpartition("/")
            shown.append(Shown(base, _fetch(base, f"/{name}", settings)))
        else:
            shown.append(Shown(place, read_small(Path(place), "checkpoint", limits.NOTE_BYTES)))
    return shown


def _witnessed(source: Path, witnesses: list[str], settings: Settings) -> list[Shown]:
    from pq_registry.errors import NotFound
    from pq_registry.format.note import VerifierKey
    from pq_registry.service.restoring import Shown

    if not witnesses:
        return []
    first = read_small(source / "log" / "vkey", "vkey", limits.NOTE_BYTES).decode("utf-8", errors="replace")
    path = f"/{sha256(VerifierKey.parse(first.partition(chr(10))[0]).name.encode()).hexdigest()}/checkpoint"
    shown = []
    for url in witnesses:
        try:
            shown.append(Shown(url, _fetch(url, path, settings)))
        except NotFound:
            continue  # it knows no checkpoint of this log
    return shown


def _fetch(url: str, path: str, settings: Settings) -> bytes:
    from pq_registry.client.transport import RegistryClient

    ca = settings.get("tls_ca")
    with RegistryClient(url, ca=None if ca is None else Path(ca)) as client:
        return client.exchanger.request("GET", path, limit=limits.NOTE_BYTES, plain=True).body
