# SPDX-License-Identifier: Apache-2.0
"""``pqreg replicate``: bring one registry up to another."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import EXIT_REFUSED, UsageError
from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    ProviderOption,
    QuietOption,
    TrustOption,
)
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.client.replicate.report import Report
    from pq_registry.client.transport import RegistryClient

_KINDS = ("status", "key", "release", "tag", "grant")


def replicate(
    source: Annotated[str, typer.Argument(metavar="SRC", help="URL of the registry to read from.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="URL of the registry that gets what it lacks.")],
    *,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NS", help="Only this namespace; repeatable. By default all of them."),
    ] = None,
    source_token_file: Annotated[
        Path | None,
        typer.Option(
            "--source-token-file",
            metavar="FILE",
            help="A file whose first line is the token for SRC. [setting: PQREG_SOURCE_TOKEN]",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="A file whose first line is the token for DST. [setting: PQREG_TOKEN]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Verify and say what would be sent, and send nothing.")
    ] = False,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring a registry up to another: releases, tags, grants, certificates and revocations.

    Everything is verified by your trust file before it is sent; neither registry is believed. What is there is not sent
    again, and a run that was cut off is continued by the next. What was refused is named with its reason, and the exit
    status is 1 then; the rest goes on.

    The token for DST is an owner's where identities, revocations or certificates are to be brought there, otherwise a
    publisher's. Sealed releases stay sealed.

    Examples:
      pqreg replicate https://models.example.org https://models.plant.example
      pqreg replicate https://models.example.org http://127.0.0.1:8470 --namespace acme --dry-run
    """
    from pq_registry.client.replicate.deliver import Delivery
    from pq_registry.client.replicate.run import Plan, Replication
    from pq_registry.format.name import Namespace

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=destination, token=_token(token_file), trust=trust, provider=provider,
        connections=connections, limit_rate=limit_rate,
    )  # fmt: skip
    names = tuple(Namespace(text) for text in namespace or ())
    verifier = session.verifier(online=True)
    begun = time.monotonic()
    with _reader(session, source, source_token_file) as reader, session.client() as client:
        if reader.origin == client.origin:
            raise UsageError("source and destination are the same registry", found=client.origin)
        with session.progress() as progress:
            delivery = Delivery(client, verifier.trust, connections=session.connections, progress=progress)
            report = Replication(
                reader, delivery, verifier, state_dir=session.settings.state_dir,
                plan=Plan(namespaces=names, dry_run=dry_run),
            ).run()  # fmt: skip
    _show(output, report, source, destination, dry_run=dry_run, seconds=time.monotonic() - begun)
    if report.refused:
        raise typer.Exit(EXIT_REFUSED)


def _reader(session: Session, url: str, token_file: Path | None) -> RegistryClient:
    from pq_registry.client.places import parse_origins
    from pq_registry.client.rate import TokenBucket
    from pq_registry.client.transport import RegistryClient
    from pq_registry.settings import parse_rate

    settings = session.settings
    ca = settings.get("tls_ca")
    return RegistryClient(
        url,
        _token(token_file) or settings.get("source_token"),
        ca=None if ca is None else Path(ca),
        rate=TokenBucket(parse_rate(settings.require("limit_rate"))),
        storage_origins=parse_origins(settings.get("storage_origins")),
    )


def _token(path: Path | None) -> str | None:
    if path is None:
        return None
    data = read_small(path, "token file", limits.KIB)
    text = data.partition(b"\n")[0].decode("ascii", "replace").strip()
    if not text:
        raise UsageError(f"{path} holds no token", expected="the token in its first line")
    return text


def _show(output: Output, report: Report, source: str, destination: str, *, dry_run: bool, seconds: float) -> None:
    from pq_registry.client.replicate.report import Action

    done = Action.WOULD_SEND if dry_run else Action.SENT
    sent = {kind: report.count(kind, done) for kind in _KINDS}
    total = sum(sent.values())
    verb = "would send" if dry_run else "sent"
    style = "bad" if report.refused else "good"
    output.line(
        f"{verb} {count_text(total, 'thing')}, {report.present} there already, {len(report.refused)} refused", style
    )
    output.fields(
        [
            *((f"{kind}s" if kind != "status" else "statuses", count) for kind, count in sent.items() if count),
            ("content", f"{size_text(report.sent_bytes)} in {seconds:.1f} s" if report.sent_bytes else None),
        ]
    )
    for one in report.refused:
        output.line(f"refused: {one.kind} {one.subject}: {one.reason}", "bad")
    for text in report.notes:
        output.note(text)
    output.data(
        {
            "source": source,
            "destination": destination,
            "dry_run": dry_run,
            "present": report.present,
            "sent_bytes": report.sent_bytes,
            "sent": [
                {"kind": one.kind, "subject": one.subject, "statements": one.count}
                for one in report.outcomes
                if one.action is done
            ],
            "refused": [
                {"kind": one.kind, "subject": one.subject, "problem": f"/problems/{one.problem}", "reason": one.reason}
                for one in report.refused
            ],
            "notes": report.notes,
            "seconds": round(seconds, 3),
        }
    )
