# SPDX-License-Identifier: Apache-2.0
"""``pqreg fsck``: verify again everything a registry holds, and mend what can be mended."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import EXIT_REFUSED
from pq_registry.settings import Settings
from pqreg_cli.console import Output, count_text
from pqreg_cli.options import JsonOption, QuietOption
from pqreg_cli.progress import SilentProgress, new_progress
from pqreg_cli.serve import require_server
from pqreg_cli.stores import (
    DatabaseOption,
    DataOption,
    EndpointOption,
    StorageOption,
    store_config,
    store_settings,
)

if TYPE_CHECKING:
    from pq_registry.storage.chains import Finding
    from pq_registry.storage.logrepair import Repaired
    from pq_registry.storage.repair import BlobSource
    from pq_registry.storage.stores import Stores


def fsck(
    *,
    data: DataOption = None,
    database: DatabaseOption = None,
    storage: StorageOption = None,
    s3_endpoint: EndpointOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what follows from the rest: rows of blobs, the log's files.")
    ] = False,
    repair_from: Annotated[
        list[str] | None,
        typer.Option(
            "--repair-from",
            metavar="URL|DIR",
            help="As --repair, and fetch lost or damaged blobs from another registry or a directory of blobs. "
            "May be given several times.",
        ),
    ] = None,
    repair_token_file: Annotated[
        Path | None, typer.Option("--repair-token-file", metavar="FILE", help="A file with the token for them.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify every stored blob, statement, release and tag, and the log. May run beside the service.

    A blob whose bytes are lost is marked: the service then sends it to nobody until it is mended. Otherwise it changes
    nothing unless a repair is asked for, and then nothing it has not verified. Exit status 1 means that something is
    (still) damaged; what only takes room is noted.

    Examples:
      pqreg fsck --data /var/lib/pqreg
      pqreg fsck --data /var/lib/pqreg --repair-from https://models.example.org
    """
    require_server()
    from pq_registry.format.instant import utc_now
    from pq_registry.service.mending import mark_blobs
    from pq_registry.storage.stores import opened

    output = Output(json=json, quiet=quiet)
    settings = Settings(store_settings(data, database, storage, s3_endpoint))
    config = store_config(settings)
    with ExitStack() as stack:
        sources: list[BlobSource] = []
        if repair_from:
            from pqreg_cli.repairsources import open_sources

            sources = open_sources(repair_from, settings, repair_token_file, stack)
        stores = stack.enter_context(opened(config))
        progress = stack.enter_context(new_progress(output))
        begun = utc_now()
        findings = check(stores, progress)
        marked = mark_blobs(stores.catalogue, findings, begun=begun, now=utc_now())
        repaired: list[Repaired] = []
        if (repair or repair_from) and any(not finding.note for finding in findings):
            findings, repaired = mend(stores, findings, sources, progress)
        elif marked:
            count = count_text(marked, "damaged blob")
            output.note(f"{count}: served to nobody until mended (--repair-from) or pushed again")
    raise_if_damaged(output, findings, repaired, str(config.data))


def check(stores: Stores, progress: SilentProgress) -> list[Finding]:
    """Verify everything in the stores."""
    from pq_registry.storage.fsck import check_registry, total_bytes

    progress.start("fsck", total_bytes(stores.catalogue))
    findings = check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles, advance=progress.advance)
    progress.finished()  # of a blob that is missing or cut nothing is read
    return findings


def mend(
    stores: Stores, findings: list[Finding], sources: list[BlobSource], progress: SilentProgress
) -> tuple[list[Finding], list[Repaired]]:
    """Repair what was found; answers what is left, verified again, and what was done."""
    from pq_registry.format.instant import utc_now
    from pq_registry.service.mending import mend_blobs, mend_log
    from pq_registry.storage.fsck import check_registry

    damaged = sorted({finding.blob for finding in findings if finding.blob is not None}, key=str)
    now = utc_now()
    progress.start("repair", 0)
    repaired = list(
        mend_blobs(
            stores.catalogue, stores.blobs, damaged, sources, now=now, advance=progress.advance
        )
    )  # fmt: skip
    if any(finding.subject.startswith("log") and not finding.note for finding in findings):
        repaired += mend_log(stores.catalogue, stores.tiles, now=now)
    progress.done()
    left = check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles, among=frozenset(damaged))
    return left, repaired


def raise_if_damaged(output: Output, findings: list[Finding], repaired: list[Repaired], place: str) -> None:
    """Show what was found and done, and end with the exit status that says whether something is damaged.

    Raises:
        Exit: with status 1, if something is.
    """
    output.data(
        {
            "findings": [{"subject": item.subject, "problem": item.problem, "note": item.note} for item in findings],
            "repaired": [{"subject": item.subject, "action": item.action, "done": item.done} for item in repaired],
        }
    )
    for item in repaired:
        output.line(f"{item.subject}: {item.action}", "good" if item.done else "bad")
    show_findings(output, findings)
    damage = [finding for finding in findings if not finding.note]
    if damage:
        output.line(f"damaged: {count_text(len(damage), 'finding')} in {place}", "bad")
        raise typer.Exit(EXIT_REFUSED)
    output.line(f"everything in {place} is as it should be", "good")


def show_findings(output: Output, findings: list[Finding]) -> None:
    """A line for each, and a note for what only takes room."""
    for finding in findings:
        if finding.note:
            output.note(f"{finding.subject}: {finding.problem}")
        else:
            output.line(f"{finding.subject}: {finding.problem}", "bad")
