# SPDX-License-Identifier: Apache-2.0
"""``pqreg push``."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.logview import leaf_index, leaves_text, note_what_is_public, warn_without_quorum
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    KeyOption,
    LimitRateOption,
    PassphraseFdOption,
    PassphraseFileOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.recipients import ToOption, read_recipient
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.push import PushResult
    from pq_registry.client.sealedpush import SealedPushResult
    from pq_registry.client.tagging import Publisher
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.manifest import BaseRelease
    from pq_registry.format.tag import TagStatement


def push(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory that holds the model.")],
    reference: Annotated[str, typer.Argument(metavar="REF", help="namespace/name[:tag]; without a tag, main.")],
    *,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    license: Annotated[  # noqa: A002  the name of the option
        str | None, typer.Option("--license", metavar="SPDX", help="The licence, e.g. Apache-2.0; part of the release.")
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base", metavar="REF@DIGEST", help="A release this one was made from; may be given several times."
        ),
    ] = None,
    seal: Annotated[
        bool, typer.Option("--seal", help="Encrypt the files, so that only recipients it is granted to can read them.")
    ] = False,
    to: ToOption = None,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Publish files whose format can execute code when it is loaded.")
    ] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Sign a directory and publish it as a release, then point a tag at it.

    Nothing is visible to others before everything was sent and checked. Interrupted, it continues where it stopped
    when it is run again. Files that are in the registry already are not sent; a directory that did not change makes
    no new release.

    With --seal the registry, its storage and every mirror get ciphertext only, and neutral file names; how many files
    there are and their sizes show. The release is granted to your own identity and to every --to.

    Examples:
      pqreg push ./model acme/minilm:v1 --key alice.pqkey
      pqreg push ./tuned acme/minilm-de --base acme/minilm@sha256:0123... --license Apache-2.0
      pqreg push ./model acme/secret:v1 --seal --to node1.pqpub --to node2.pqpub
    """
    from pq_registry.client.push import PushOptions
    from pq_registry.client.push import push as push_release
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd, connections=connections, limit_rate=limit_rate,
    )  # fmt: skip
    wanted = Reference.parse(reference)
    if to and not seal:
        raise UsageError(
            "--to is for sealed releases", expected="--seal", hint="what is not sealed, everybody can read"
        )
    recipients = [read_recipient(path) for path in to or ()]
    options = PushOptions(
        license=license,
        lineage=None if base is None else tuple(base_release(text) for text in base),
        allow_unsafe=allow_unsafe,
        connections=session.connections,
        tag_lifetime=tag_lifetime(session),
    )
    begun = time.monotonic()
    with session.client() as client:
        publisher = publisher_of(session, client)
        with session.progress() as progress:
            if seal:
                from pq_registry.client.sealedpush import push_sealed

                sealed = push_sealed(
                    directory, wanted, publisher=publisher, recipients=recipients, options=options, progress=progress
                )
            else:
                result = push_release(directory, wanted, publisher=publisher, options=options, progress=progress)
    if seal:
        report_sealed(output, sealed, time.monotonic() - begun)
    else:
        report_push(output, result, time.monotonic() - begun)


def publisher_of(session: Session, client: RegistryClient) -> Publisher:
    """Who publishes: the configured key, and the trust file if there is one."""
    from pq_registry.client.configured import trust_bytes
    from pq_registry.client.tagging import Publisher
    from pq_registry.format.instant import utc_now
    from pq_registry.format.trustfile import TrustFile

    trust = trust_bytes(session.settings)
    return Publisher(
        client=client,
        signer=session.signer(),
        state_dir=session.settings.state_dir,
        now=utc_now(),
        trust=None if trust is None else TrustFile.parse(trust),
    )


def tag_lifetime(session: Session) -> timedelta:
    """How long a tag that is set now is good for."""
    return timedelta(days=session.settings.integer("tag_lifetime_days", minimum=1, maximum=limits.TAG_LIFETIME_DAYS))


def tag_json(statement: TagStatement, *, changed: bool) -> dict[str, object]:
    """A tag's last statement."""
    from pq_registry.format.instant import format_instant

    return {
        "tag": str(statement.tag),
        "target": None if statement.target is None else str(statement.target),
        "sequence": statement.sequence,
        "issued": format_instant(statement.issued),
        "expires": format_instant(statement.expires),
        "signer": statement.signer,
        "changed": changed,
    }


def tag_text(statement: TagStatement, *, changed: bool) -> str:
    """The same in words."""
    from pq_registry.format.instant import format_instant

    until = f"sequence {statement.sequence}, valid until {format_instant(statement.expires)}"
    return f"{statement.tag}, {until}" if changed else f"{statement.tag} points there already ({until})"


def base_release(text: str) -> BaseRelease:
    """A release as ``--base`` names it."""
    from pq_registry.format.manifest import BaseRelease
    from pq_registry.format.name import Reference

    reference = Reference.parse(text)
    if reference.digest is None:
        raise UsageError("--base is wrong", expected="namespace/name@sha256:<64 hex digits>", found=text)
    return BaseRelease(reference.repository, reference.digest)


def report_sealed(output: Output, result: SealedPushResult, seconds: float, **more: object) -> None:
    """What a sealed push did, and to whom it is granted."""
    from pqreg_cli.recipients import grant_json

    own, *others = [change.statement.recipient for change in result.grants]
    granted = ("granted to", "\n".join([f"{own} (your own)", *others]))
    grants = [grant_json(change) for change in result.grants]
    report_push(output, result.pushed, seconds, fields=(granted,), data={"sealed": True, "grants": grants, **more})


def report_push(
    output: Output,
    result: PushResult,
    seconds: float,
    *,
    fields: tuple[tuple[str, object], ...] = (),
    data: dict[str, object] | None = None,
) -> None:
    """What a push did; ``fields`` and ``data`` are the caller's additions."""
    manifest, sent = result.manifest, result.sent
    logged = {"release": result.logged, "tag": result.tag_change.logged}
    for name in result.skipped:
        output.note(f"{name} is not part of a release and was left out")
    for path in result.unsafe:
        output.warning(f"{path} can execute code when it is loaded (--allow-unsafe)")
    for warning in result.warnings:
        output.warning(warning)
    if result.registered:
        output.note(f"identity {manifest.signer} is now registered for {result.repository.namespace}")
    pieces = [(sent.sent, "sent"), (sent.resumed, "sent before"), (sent.present, "present")]
    if result.minted:
        did = f"published {result.repository}:{result.tag}"
    elif result.tag_change.changed:
        did = f"set {result.repository}:{result.tag}: no file changed, so the release that exists is used"
    else:
        did = "nothing changed: this release exists, and the tag points there"
    output.line(did, "good")
    output.fields(
        [
            ("release", f"{result.repository}@{result.release}"),
            ("tag", tag_text(result.tag_change.statement, changed=result.tag_change.changed)),
            ("signer", manifest.signer),
            ("log", leaves_text(logged)),
            ("content", f"{count_text(len(manifest.files), 'file')}, {size_text(manifest.total_size)}"),
            ("transfer", ", ".join(f"{size_text(count)} {what}" for count, what in pieces if count) or "nothing"),
            *fields,
        ]
    )
    output.data(
        {
            "name": str(result.repository),
            "digest": str(result.release),
            "minted": result.minted,
            "log_index": leaf_index(result.logged),
            "tag": {
                **tag_json(result.tag_change.statement, changed=result.tag_change.changed),
                "log_index": leaf_index(result.tag_change.logged),
            },
            "signer": manifest.signer,
            "registered": result.registered,
            "files": len(manifest.files),
            "size": manifest.total_size,
            "license": manifest.license,
            "lineage": [{"name": str(base.name), "release": str(base.release)} for base in manifest.lineage],
            "bytes_sent": sent.sent,
            "bytes_sent_before": sent.resumed,
            "bytes_present": sent.present,
            "skipped": list(result.skipped),
            "unsafe": list(result.unsafe),
            "warnings": list(result.warnings),
            "seconds": round(seconds, 3),
            **(data or {}),
        }
    )
    note_what_is_public(output, result.logged)
    warn_without_quorum(output, *logged.values())
