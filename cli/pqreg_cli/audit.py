# SPDX-License-Identifier: Apache-2.0
"""``pqreg audit``: follow a registry's log, judge every statement in it, and say what is not as it should be.

Exit status: 0 all is well, 1 findings are open, 4 the log contradicted itself; 2 and 3 as everywhere.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq_registry import limits
from pq_registry.errors import EXIT_REFUSED, FormatError, LogMisbehaved, PqregError, TrustMissing, UsageError
from pqreg_cli.auditevidence import ack, check, export
from pqreg_cli.auditview import show_failed_round, show_report, show_round
from pqreg_cli.console import Output
from pqreg_cli.counting import new_counter
from pqreg_cli.lazy import new_app
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.audit.index import AuditIndex
    from pq_registry.client.audit.judging import Judgement
    from pq_registry.client.audit.report import Report
    from pq_registry.client.audit.run import Auditor, Outcome
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.trustfile import TrustFile

app = new_app(invoke_without_command=True)
app.command("export")(export)
app.command("check")(check)
app.command("ack")(ack)


@app.callback()
def audit(
    context: typer.Context,
    *,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="What the audit remembers; made by the first. One for each log."),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", metavar="NAME", help="Report this namespace only; may be repeated."),
    ] = None,
    blobs: Annotated[
        bool, typer.Option("--blobs", help="Read and hash every file of new releases, instead of asking its size.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Judge every leaf again, e.g. by a new trust file. With --blobs: all files.")
    ] = False,
    log_only: Annotated[
        bool, typer.Option("--log-only", help="Follow the log and recompute its tree, but judge no statements yet.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep every envelope, receipt and manifest in the state directory.")
    ] = False,
    known_recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--known-recipient", metavar="ID", help="A recipient that needs no certificate, e.g. a publisher's own."
        ),
    ] = None,
    max_age: Annotated[
        int,
        typer.Option("--max-age", metavar="SECONDS", min=1, help="Age at which the newest checkpoint is a finding."),
    ] = limits.CHECKPOINT_STALE_SECONDS,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Also write one line per leaf to this file.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Audit again and again, until stopped.")] = False,
    interval: Annotated[
        int,
        typer.Option("--interval", metavar="SECONDS", min=1, max=limits.AUDIT_INTERVAL_SECONDS,
                     help="With --follow: pause between two audits."),
    ] = 300,
    webhook: Annotated[
        str | None,
        typer.Option(
            "--webhook", metavar="URL",
            help="With --follow: tell this URL what is new, by a JSON POST. [setting: PQREG_WEBHOOK]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="HOST:PORT", help="With --follow: figures for Prometheus, on loopback."),
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Hold a registry's log against the trust file, from where the last audit stopped.

    The newest checkpoint must be cosigned as the trust file demands and continue the last one; the tree is recomputed
    from its leaves. Of every new leaf the statement is fetched, its receipt and both halves of its signature are
    verified, and what it says is compared with what was logged before. The report says per namespace who signed what,
    when and with which keys; findings stay open until they are acknowledged (pqreg audit ack).

    Exit status: 0 all is well, 1 findings, 4 the log contradicts itself. Then both checkpoints are in DIR/evidence.

    Examples:
      pqreg audit --state audit
      pqreg audit --state audit --json --csv leaves.csv
      pqreg audit --state audit --follow --interval 300 --metrics 127.0.0.1:9471
      pqreg audit export --state audit --out evidence acme/minilm:v1 --key auditor.pqkey
      pqreg audit check evidence --trust trust.json --auditor auditor.pqpub
    """
    if context.invoked_subcommand is not None:
        if state is not None:
            raise UsageError(
                "--state goes behind the sub-command", hint=f"pqreg audit {context.invoked_subcommand} --help"
            )
        return
    if state is None:
        raise UsageError("where is the state of the audit?", expected="--state DIR")
    if not follow and (webhook or metrics):
        raise UsageError("--webhook and --metrics go with --follow")
    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, connections=connections,
        webhook=webhook,
    )  # fmt: skip
    work = _Work(
        session,
        only=_keys(namespace or []),
        blobs=blobs,
        keep=state / "kept" if keep else None,
        options={
            "statements": not log_only,
            "known_recipients": frozenset(_recipients(known_recipient or [])),
            "stale_seconds": max_age,
        },
    )
    from pq_registry.client.audit.index import AuditIndex

    try:
        with session.client() as client, AuditIndex(state) as index, work.reading(client):
            if again:
                index.forget_judgements()
            if follow:
                well = _follow(work, index, client, interval=interval, metrics=metrics)
            else:
                report = work.audit(index, client, _now())[1]
                show_report(output, report)
                well = report.well
            if csv is not None:
                _write_csv(output, index, csv, work.only)
    except LogMisbehaved as error:
        error.hint = f"both checkpoints are in {state / 'evidence'}: show them to the log's operator and its witnesses"
        raise
    if not well:
        raise typer.Exit(EXIT_REFUSED)


class _Work:
    """What every round of an audit shares."""

    def __init__(
        self, session: Session, *, only: tuple[str, ...], blobs: bool, keep: Path | None, options: dict[str, Any]
    ) -> None:
        from pq_registry.client import configured
        from pq_registry.client.audit.judging import Judge
        from pq_registry.client.trust import GET_TRUST
        from pq_registry.format.instant import format_instant, is_expired
        from pq_registry.format.trustfile import TrustFile

        data = configured.trust_bytes(session.settings)
        if data is None:
            raise TrustMissing("no trust file is configured, so there is nothing to audit by", hint=GET_TRUST)
        self.trust: TrustFile = TrustFile.parse(data)
        self.only = only
        self.session = session
        self._judge = Judge(self.trust, provider=configured.chosen_provider(session.settings))
        self._blobs = blobs
        self._keep = keep
        self._options = options
        self._reader: Any = None
        if is_expired(_now(), self.trust.expires):
            session.output.warning(f"the trust file expired on {format_instant(self.trust.expires)}; get a newer one")

    @contextlib.contextmanager
    def reading(self, client: RegistryClient) -> Iterator[None]:
        """Keep connections for the log's files open."""
        from pq_registry.client.audit.sources import LogReader

        with LogReader(client, connections=self.session.connections) as self._reader:
            yield

    def audit(self, index: AuditIndex, client: RegistryClient, now: datetime) -> tuple[Outcome, Report]:
        """One audit and its report."""
        from pq_registry.client.audit.report import make_report

        note = self._reader.checkpoint()
        with new_counter(self.session.output) as progress:
            outcome = self._auditor(index, client, progress).audit(note, now)
        return outcome, make_report(index, self.trust, outcome, only=self.only)

    def _auditor(self, index: AuditIndex, client: RegistryClient, progress: Any) -> Auditor:
        from pq_registry.client.audit.run import AuditOptions, Auditor
        from pq_registry.client.audit.sources import RegistryStatements, check_blobs

        statements = RegistryStatements(client, self._keep)

        def content(judgement: Judgement) -> None:
            check_blobs(judgement, client, content=self._blobs)
            statements.keep(judgement)

        return Auditor(
            index,
            self._judge,
            self._reader,
            statements,
            content=content,
            options=AuditOptions(**self._options),
            progress=progress,
        )


def _follow(work: _Work, index: AuditIndex, client: RegistryClient, *, interval: int, metrics: str | None) -> bool:
    from pq_registry.client.audit.follow import Follower
    from pq_registry.client.audit.metrics import AuditMetrics, serving

    output = work.session.output
    stop = threading.Event()
    # A service manager's request ends the loop after the round under way; the state is durable at any point anyway.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def shown(result: Report | PqregError) -> None:
        if isinstance(result, PqregError):
            show_failed_round(output, result, _now())
        else:
            show_round(output, result, _now())

    figures = AuditMetrics() if metrics is not None else None
    with contextlib.ExitStack() as stack:
        if figures is not None and metrics is not None:
            output.note(f"figures at {stack.enter_context(serving(metrics, figures))}")
        follower = Follower(
            index,
            lambda now: work.audit(index, client, now),
            clock=_now,
            shown=shown,
            webhook=_webhook(work.session),
            metrics=figures,
        )
        return follower.run(lambda: stop.wait(interval))


def _webhook(session: Session) -> Any:
    from pq_registry.client.audit.webhook import Webhook

    url = session.settings.get("webhook")
    if url is None:
        return None
    ca = session.settings.get("tls_ca")
    webhook = Webhook(url, ca=None if ca is None else Path(ca))
    if not webhook.origin.private:
        session.output.warning(f"findings go to {webhook.origin} unencrypted; use https")
    return webhook


def _write_csv(output: Output, index: AuditIndex, path: Path, only: tuple[str, ...]) -> None:
    from pq_registry.client.audit.report import write_csv
    from pq_registry.durable import reported

    with reported("write", path), path.open("w", encoding="utf-8", newline="") as file:
        count = write_csv(index, file, only=only)
    output.note(f"{count} leaves in {path}")


def _keys(names: list[str]) -> tuple[str, ...]:
    from pq_registry.format.name import Namespace

    return tuple(sorted({Namespace(name).key for name in names}))


def _recipients(ids: list[str]) -> list[str]:
    from pq_registry.format.hexid import parse_recipient_id

    try:
        return [parse_recipient_id(one) for one in ids]
    except FormatError as error:
        raise UsageError("--known-recipient is no recipient's id", expected=error.expected, found=error.found) from None


def _now() -> datetime:
    from pq_registry.format.instant import utc_now

    return utc_now()
