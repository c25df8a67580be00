# SPDX-License-Identifier: Apache-2.0
"""``pqreg mirror push``, ``sync`` and ``status``: releases on their way to a Hub."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import EXIT_REFUSED, EXIT_TRANSPORT, PqregError, UsageError
from pqreg_cli.console import Output
from pqreg_cli.mirrorview import show_round, show_status
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    LimitRateOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.name import Reference, RepositoryName
    from pq_registry.mirror.config import Mirror
    from pq_registry.mirror.hub import Hub
    from pq_registry.mirror.outcome import Report

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="mirrors.yaml. By default beside the config file of pqreg."),
]
StagingOption = Annotated[
    Path | None,
    typer.Option(
        "--staging", metavar="DIR", help="Where releases are on their way; it needs room for one. By default in the "
        "state directory.",
    ),
]  # fmt: skip
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[MIRROR]...", help="Only these mirrors. By default all of them.")
]


def push(
    reference: Annotated[str, typer.Argument(metavar="REF", help="namespace/name[:tag]; without a tag, main.")],
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="HUB_MODEL", help="hf://org/model: there, whatever mirrors.yaml says."),
    ] = None,
    mirror: Annotated[
        list[str] | None, typer.Option("--mirror", metavar="NAME", help="Only this mirror; repeatable.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option("--hub", metavar="URL", help="With --to: the Hub. [setting: PQREG_HUB, https://huggingface.co]"),
    ] = None,
    sealed: Annotated[
        str | None,
        typer.Option("--sealed", metavar="FORM", help="With --to: a sealed release as ciphertext or card-only."),
    ] = None,
    card_only: Annotated[
        bool, typer.Option("--card-only", help="With --to: card and evidence, and none of the files.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="With --to: make the repository private.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="With --to: replace what others put into that repository.")
    ] = False,
    config: ConfigOption = None,
    staging: StagingOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Bring one tag of a repository to a Hub: as mirrors.yaml says, or with --to by hand.

    The release is pulled and verified, brought to a branch of its own on the Hub, read again there, and only then made
    main and tagged; see `pqreg mirror sync`. The Hub's token for --to is PQREG_HUB_TOKEN.

    Examples:
      pqreg mirror push acme/minilm:v1
      pqreg mirror push acme/minilm:v1 --to hf://acme-ai/minilm --dry-run
      pqreg mirror push acme/secret --to hf://acme-ai/secret --sealed ciphertext
    """
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, connections=connections,
        limit_rate=limit_rate, hub=hub,
    )  # fmt: skip
    wanted = Reference.parse(reference)
    if wanted.digest is not None:
        raise UsageError("a tag is mirrored, and no digest", expected="namespace/name[:tag]", found=reference)
    work = _Work(session, staging, dry_run=dry_run, only=wanted)
    if to is None:
        if hub or sealed or card_only or private or adopt:
            raise UsageError("--hub, --sealed, --card-only, --private and --adopt go with --to",
                             hint="what mirrors.yaml says counts otherwise")  # fmt: skip
        mirrors = [one for one in _chosen(session, config, mirror) if one.wants(wanted.repository)]
        if not mirrors:
            raise UsageError(f"no mirror wants {wanted.repository}", hint="see mirrors.yaml, or give --to")
        reports = work.round(mirrors)
    else:
        if mirror or config:
            raise UsageError("--mirror and --config do not go with --to")
        by_hand = _by_hand(session, wanted, to, sealed=sealed, card_only=card_only, private=private, adopt=adopt)
        reports = work.round([by_hand], hubs=lambda _mirror: _configured_hub(session))
    show_round(output, reports, dry_run=dry_run)
    _exit(reports)


def sync(
    names: NamesArgument = None,
    *,
    config: ConfigOption = None,
    staging: StagingOption = None,
    once: Annotated[bool, typer.Option("--once", help="One round; what happens without --interval, too.")] = False,
    interval: Annotated[
        int | None,
        typer.Option(
            "--interval", metavar="SECONDS", min=limits.MIRROR_INTERVAL_SECONDS, max=limits.MIRROR_INTERVAL_MAX_SECONDS,
            help="Round after round with this pause, until stopped.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Bring the Hubs up to what the registry shows, as mirrors.yaml says.

    Every release is verified by your trust file, staged, and put on a branch of its own on the Hub. There everything is
    read again; then one commit makes it main, and tags follow. Nobody sees half of a release, and a run that was cut
    off is continued by the next. What is as it should be is let be.

    What was refused is named with its reason, and the exit status is 1 then; the rest goes on.

    Examples:
      pqreg mirror sync --dry-run
      pqreg mirror sync huggingface --config /etc/pqreg/mirrors.yaml
      pqreg mirror sync --interval 900
    """
    output = Output(json=json, quiet=quiet)
    if interval is not None and (once or json):
        raise UsageError("--interval goes with neither --once nor --json", hint="--json describes one round")
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, connections=connections,
        limit_rate=limit_rate,
    )  # fmt: skip
    work = _Work(session, staging, dry_run=dry_run)
    if interval is None:
        reports = work.round(_chosen(session, config, names))
        show_round(output, reports, dry_run=dry_run)
        _exit(reports)
        return
    stop = threading.Event()
    # A service manager's request ends the loop after the round under way; a round that is cut off is continued anyway.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.is_set():
        try:
            show_round(output, work.round(_chosen(session, config, names)), dry_run=dry_run)
        except PqregError as error:
            output.warning(f"this round failed: {error}")
        stop.wait(interval)


def status(
    names: NamesArgument = None,
    *,
    config: ConfigOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say which tags are on the Hubs as they should be, and change nothing.

    The exit status is 0 if all of them are, and 1 otherwise.

    Examples:
      pqreg mirror status
      pqreg mirror status huggingface --json
    """
    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, trust=trust, provider=provider)
    reports = _Work(session, None, dry_run=True).round(_chosen(session, config, names))
    if not show_status(output, reports):
        raise typer.Exit(EXIT_REFUSED)


class _Work:
    """Rounds of mirrors from one registry."""

    def __init__(self, session: Session, staging: Path | None, *, dry_run: bool, only: Reference | None = None) -> None:
        self._session = session
        self._staging = staging or session.settings.state_dir / "mirror-staging"
        self._dry_run = dry_run
        self._only = only

    def round(
        self, mirrors: Sequence[Mirror], *, hubs: Callable[[Mirror], Hub] | None = None
    ) -> list[tuple[Mirror, Report]]:
        """One round of each mirror."""
        from pq_registry.durable import make_directory
        from pq_registry.mirror.reconcile import Place, Round
        from pq_registry.mirror.reporting import Reporter
        from pq_registry.mirror.target import HubTarget
        from pq_registry.mirror.tokens import hub_of

        session, reports = self._session, []
        # What mirrors.yaml has wrong is said before anything is done.
        places = [(mirror, (hubs or hub_of)(mirror)) for mirror in mirrors]
        make_directory(self._staging, 0o700)
        with session.client() as client, session.progress() as progress:
            verifier = session.verifier(online=True)
            reporter = Reporter(client)
            shown = None if self._only is not None else _repositories(client)
            for mirror, hub in places:
                place = Place(
                    client=client,
                    verifier=verifier,
                    state_dir=session.settings.state_dir,
                    staging=self._staging,
                    connections=session.connections,
                    progress=progress,
                    watch=(lambda _outcome: None) if self._dry_run else reporter,
                )

                def target(name: str, hub: Hub = hub) -> HubTarget:
                    return HubTarget(hub, name, self._staging)

                work = Round(mirror, place, target, dry_run=self._dry_run, only=self._only)
                report = work.run(shown or [])
                if reporter.note is not None:
                    report.note(reporter.note)
                reports.append((mirror, report))
        return reports


def _repositories(client: RegistryClient) -> list[RepositoryName]:
    found: list[RepositoryName] = []
    after = None
    while True:
        page = client.repos(after=after, limit=limits.PAGE_ITEMS)
        found += [item.name for item in page.items]
        if page.next is None or not page.items or len(found) > limits.LISTING_ITEMS:
            return found
        after = page.next


def _chosen(session: Session, config: Path | None, names: Sequence[str] | None) -> list[Mirror]:
    from pq_registry.mirror.config import read_mirrors

    path = config or session.settings.config_file.with_name("mirrors.yaml")
    mirrors = read_mirrors(path)
    unknown = sorted(set(names or ()) - {mirror.name for mirror in mirrors})
    if unknown:
        there = ", ".join(mirror.name for mirror in mirrors)
        raise UsageError(f"{path} has no mirror {unknown[0]}", expected=there, found=unknown[0])
    return [mirror for mirror in mirrors if not names or mirror.name in names]


def _by_hand(
    session: Session, wanted: Reference, to: str, *, sealed: str | None, card_only: bool, private: bool, adopt: bool
) -> Mirror:
    from pq_registry.format.name import Tag
    from pq_registry.mirror.config import Form, Mirror
    from pq_registry.mirror.hub import HubReference

    place = HubReference.parse(to)
    namespace, slash, name = place.repository.partition("/")
    if not slash or "@" in to:
        raise UsageError("--to names a repository", expected="hf://org/model", found=to)
    if sealed not in (None, Form.CIPHERTEXT.value, Form.CARD_ONLY.value):
        raise UsageError("--sealed is wrong", expected="ciphertext or card-only", found=sealed)
    return Mirror(
        name="by-hand",
        hub=session.settings.require("hub").rstrip("/"),
        namespace=namespace,
        repositories=(str(wanted.repository),),
        tags=("*",),
        main=Tag("main"),
        open=Form.CARD_ONLY if card_only else Form.FULL,
        sealed=Form.CARD_ONLY if card_only else Form(sealed) if sealed else Form.SKIP,
        private=private,
        adopt=adopt,
        rename={wanted.repository.key: name},
    )


def _configured_hub(session: Session) -> Hub:
    from pq_registry.mirror.configured import configured_hub

    hub, warning = configured_hub(session.settings)
    if warning is not None:
        session.output.warning(warning)
    return hub


def _exit(reports: Sequence[tuple[Mirror, Report]]) -> None:
    from pq_registry.mirror.outcome import State

    if any(report.count(State.REFUSED) for _, report in reports):
        raise typer.Exit(EXIT_REFUSED)
    if any(report.count(State.FAILED) for _, report in reports):
        raise typer.Exit(EXIT_TRANSPORT)
