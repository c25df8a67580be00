# SPDX-License-Identifier: Apache-2.0
"""``pqreg audit export|check|ack``: evidence to hand over, evidence that came, and findings that are closed."""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import __version__, limits
from pq_registry.errors import EXIT_MISBEHAVED, EXIT_REFUSED, FormatError, TrustMissing, UsageError
from pqreg_cli.auditview import show_checked
from pqreg_cli.console import Output, count_text
from pqreg_cli.options import (
    JsonOption,
    KeyOption,
    PassphraseFdOption,
    PassphraseFileOption,
    ProviderOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.client.audit.export import Scope

StateOption = Annotated[Path, typer.Option("--state", metavar="DIR", help="The state directory of the audit.")]


def export(
    reference: Annotated[
        str | None,
        typer.Argument(metavar="[REF]", help="What it is about: namespace/name, :tag or @sha256:...  [default: all]"),
    ] = None,
    *,
    state: StateOption,
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The directory to write; must not exist.")],
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", metavar="NAME", help="This namespace; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DATE", help="What was logged since a day or an instant.")
    ] = None,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write what was audited as signed evidence: a directory that others verify offline, years later.

    It holds statements, receipts, checkpoints with their cosignatures, the trust file, the findings and the versions of
    the software, signed by the auditor's identity (--key). What --keep kept is taken from the state directory, the
    rest is fetched from the registry.

    Examples:
      pqreg audit export --state audit --out evidence --key auditor.pqkey
      pqreg audit export acme/minilm:v1 --state audit --out evidence --key auditor.pqkey
      pqreg audit export --state audit --out nis2-report --namespace acme --since 2026-11-01 --key auditor.pqkey
    """
    from pq_registry.client import configured
    from pq_registry.client.audit.export import Making
    from pq_registry.client.audit.export import export as write_bundle
    from pq_registry.client.audit.index import AuditIndex
    from pq_registry.client.audit.judging import Judge
    from pq_registry.client.audit.sources import KeptStatements, RegistryStatements
    from pq_registry.format.instant import utc_now
    from pq_registry.format.trustfile import TrustFile

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, provider=provider, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd,
    )  # fmt: skip
    scope = _scope(reference, namespace or [], since)
    data = configured.trust_bytes(session.settings)
    if data is None:
        raise TrustMissing("no trust file is configured; evidence holds the one that was judged by")
    used = configured.chosen_provider(session.settings)
    judge = Judge(TrustFile.parse(data), provider=used)
    if not state.is_dir():
        raise UsageError(f"there is no state directory {state}", hint="pqreg audit --state DIR makes it")
    signer = session.signer()
    with session.client() as client, AuditIndex(state) as index:
        making = Making(
            signer=signer, trust=data, registry=str(client.origin), software=_software(used.name), now=utc_now()
        )
        statements = KeptStatements(state / "kept", RegistryStatements(client))
        made = write_bundle(index, judge, statements, out, scope, making, provider=used)
    output.line(f"wrote {out}: {count_text(len(made.statements), 'statement')} about {made.scope}", "good")
    output.fields([("auditor", made.auditor), ("trust file", made.trust), ("findings", len(made.findings) or None)])
    output.note(f"to verify it: pqreg audit check {out} --trust-sha256 {made.trust.hex}")
    output.data(
        {
            "bundle": str(out),
            "auditor": made.auditor,
            "statements": len(made.statements),
            "findings": len(made.findings),
            "trust_sha256": made.trust.hex,
            "scope": made.scope,
        }
    )


def check(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The directory that holds the evidence.")],
    *,
    trust: TrustOption = None,
    trust_sha256: Annotated[
        str | None,
        typer.Option(
            "--trust-sha256", metavar="HEX", help="Use the bundle's own trust file; it must have this digest."
        ),
    ] = None,
    auditor: Annotated[
        Path | None, typer.Option("--auditor", metavar="FILE", help="Demand that this identity (.pqpub) signed it.")
    ] = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Verify evidence; needs no network, no registry and no clock.

    Every statement is judged at the attested time that its own receipt proves, so a trust file or an identity that
    has expired since is no hindrance. Which trust file counts must be said: by --trust, or by the SHA-256 of the one
    in the bundle.

    Exit status: 0 verified, 1 refused or findings, 4 the evidence proves that the log contradicted itself.

    Examples:
      pqreg audit check evidence --trust trust.json --auditor auditor.pqpub
      pqreg audit check evidence --trust-sha256 3f1a... --json
    """
    from pq_registry.client import configured
    from pq_registry.client.audit.check import check_bundle
    from pq_registry.crypto.identity import PublicIdentity
    from pq_registry.format.digest import Digest

    output = Output(json=json, quiet=quiet)
    session = Session(output, trust=trust, provider=provider)
    if trust is not None and trust_sha256 is not None:
        raise UsageError("--trust and --trust-sha256 go not together", hint="give the one that you trust")
    data = None if trust_sha256 is not None else configured.trust_bytes(session.settings)
    if trust_sha256 is None and data is None:
        raise UsageError("which trust file is to count?", expected="--trust FILE or --trust-sha256 HEX")
    by = None
    if auditor is not None:
        by = PublicIdentity.from_pem(read_small(auditor, "public identity", limits.IDENTITY_FILE_BYTES))
    digest = None if trust_sha256 is None else Digest(trust_sha256.removeprefix("sha256:").lower())
    checked = check_bundle(
        bundle, trust=data, trust_sha256=digest, auditor=by, provider=configured.chosen_provider(session.settings)
    )
    show_checked(output, checked, path=str(bundle))
    if checked.misbehaviour:
        raise typer.Exit(EXIT_MISBEHAVED)
    if checked.findings:
        raise typer.Exit(EXIT_REFUSED)


def ack(
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER...", help="The numbers of the findings.")],
    *,
    state: StateOption,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why: what was found out, who decided.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Close findings that were looked into. They stay on record, with what you say.

    Example:
      pqreg audit ack 3 4 --state audit --note "rollback to v1.2 agreed with acme, ticket 4711"
    """
    from pq_registry.client.audit.index import AuditIndex
    from pq_registry.client.audit.report import acknowledge, open_count
    from pq_registry.format.instant import utc_now

    output = Output(json=json, quiet=quiet)
    if not state.is_dir():
        raise UsageError(f"there is no state directory {state}", hint="pqreg audit --state DIR makes it")
    with AuditIndex(state) as index:
        closed = acknowledge(index, numbers, note=note, now=utc_now())
        left = open_count(index)
    for one in closed:
        output.line(f"closed {one.number}: {one.finding.code.value} {one.finding.name}")
    output.line(f"{count_text(left, 'finding')} open")
    output.data({"closed": [one.number for one in closed], "open_findings": left})


def _scope(text: str | None, namespaces: list[str], since: str | None) -> Scope:
    from pq_registry.client.audit.export import Scope
    from pq_registry.format.name import Namespace, Reference

    if text is not None and namespaces:
        raise UsageError("a reference and --namespace go not together", hint="the reference names its namespace")
    reference = None if text is None else Reference.parse(text)
    return Scope(
        reference=reference,
        namespaces=tuple(map(Namespace, namespaces)),
        since=None if since is None else _instant(since),
        spelled_tag=text is not None and ":" in text.partition("@")[0],
    )


def _instant(text: str) -> datetime:
    from pq_registry.format.instant import parse_instant

    try:
        return parse_instant(text if "T" in text else f"{text}T00:00:00Z")
    except FormatError:
        raise UsageError("--since is wrong", expected="2026-11-21 or 2026-11-21T18:00:00Z", found=text) from None


def _software(provider: str) -> dict[str, str]:
    import cryptography
    from cryptography.hazmat.backends.openssl.backend import backend

    return {
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "platform": platform.platform(),
        "pq-registry": __version__,
        "provider": provider,
        "python": platform.python_version(),
    }
