# SPDX-License-Identifier: Apache-2.0
"""``pqreg grant``: who may open a sealed release; given, listed and withdrawn without touching the release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.logview import leaf_text, warn_without_quorum
from pqreg_cli.options import (
    JsonOption,
    KeyOption,
    PassphraseFdOption,
    PassphraseFileOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.push import publisher_of
from pqreg_cli.recipients import ExpiresOption, check_fingerprint, expiry, grant_json, read_recipient
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.tagging import Publisher
    from pq_registry.crypto.recipient import PublicRecipient
    from pq_registry.format.name import Namespace, Reference

app = new_app(help="Say who may open a sealed release.")
ReferenceArgument = Annotated[
    str, typer.Argument(metavar="REF", help="A sealed release: namespace/name[:tag][@sha256:...].")
]
_WITHDRAWN = (
    "the registry hands the grant out no more. Whoever opened the release before has its content key and can go on "
    "opening this release, from any copy: that cannot be taken back. To shut them out of what comes next: pqreg reseal"
)


@app.command("add")
def add(
    reference: ReferenceArgument,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="FILE|NODE", help="A recipient's .pqpub file, or a certified recipient's node or id."
        ),
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint", metavar="ID", help="The recipient's id as its owner told you; then nobody need certify it."
        ),
    ] = None,
    expires_days: ExpiresOption = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Sign it again although it is in force: with the identity that comes next.")
    ] = False,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Grant a sealed release to a recipient.

    The recipient's key must be certified by an enrolment identity of your trust file (pqreg key certify), or you give
    its id as its owner told you, with --fingerprint.

    Examples:
      pqreg grant add acme/secret:v1 --to node2.pqpub
      pqreg grant add acme/secret:v1 --to node2.pqpub --fingerprint 0123... --expires-days 90
      pqreg grant add acme/secret:v1 --to edge-7.example.org
    """
    from pq_registry.client.attested import EXEMPT_NOTE
    from pq_registry.client.grants import content_key, give, named_release

    output = Output(json=json, quiet=quiet)
    wanted = _reference(reference)
    session = Session(
        output,
        registry=registry,
        token=token,
        trust=trust,
        key=key,
        passphrase_file=passphrase_file,
        passphrase_fd=passphrase_fd,
    )
    with session.client() as client:
        publisher = publisher_of(session, client)
        recipient = _recipient(publisher, wanted.repository.namespace, to, fingerprint)
        release = named_release(publisher, wanted)
        with content_key(publisher, release) as secret:
            change = give(
                publisher, release, recipient, secret, expires=expiry(publisher.now, expires_days), renew=renew
            )
    output.line(
        f"granted {release.name} to {to}" if change.changed else "nothing changed: this grant is in force", "good"
    )
    described = grant_json(change)
    output.fields(
        [
            ("release", f"{release.name}@{release.digest}"),
            ("recipient", recipient.id),
            ("until", described["expires"] or "for ever"),
            ("log", leaf_text(change.logged)),
        ]
    )
    if fingerprint is None and publisher.trust is not None and not isinstance(publisher.trust.log, tuple):
        output.note(EXEMPT_NOTE)  # of the key statement that was relied on
    output.data(described)
    warn_without_quorum(output, change.logged)


@app.command("list")
def list_(
    reference: ReferenceArgument,
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List to whom a sealed release is granted, as the registry says.

    Example:
      pqreg grant list acme/secret:v1
    """
    from pq_registry.client.resolve import resolve
    from pq_registry.format.instant import format_instant

    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, trust=trust)
    wanted = _reference(reference)
    with session.client() as client:
        release = resolve(wanted, client, session.verifier(online=False), session.seen_tags()).verified.release
        grants = client.grants(release.name, release=release.digest)
        nodes = {item.recipient: item.node for item in client.certificates(release.name.namespace)}
    rows = [
        (
            item.recipient,
            nodes.get(item.recipient, ""),
            "withdrawn" if item.withdrawn else "granted",
            format_instant(item.issued),
            "" if item.expires is None else format_instant(item.expires),
        )
        for item in grants
        if item.release == release.digest
    ]
    output.table(["recipient", "node", "state", "since", "until"], rows)
    output.note("this is the registry's account; a node verifies its own grant before it uses it")
    output.data(
        {
            "name": str(release.name),
            "digest": str(release.digest),
            "grants": [
                {"recipient": row[0], "node": row[1] or None, "withdrawn": row[2] == "withdrawn", "issued": row[3],
                 "expires": row[4] or None}
                for row in rows
            ],
        }
    )  # fmt: skip


@app.command("withdraw")
def withdraw(
    reference: ReferenceArgument,
    *,
    to: Annotated[str, typer.Option("--to", metavar="FILE|ID", help="The recipient's .pqpub file, or its id.")],
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Withdraw a grant.

    The registry hands it out no more. Whoever opened the release before has its content key and keeps it; only a
    release under a new key, made by pqreg reseal, is closed to them.

    Example:
      pqreg grant withdraw acme/secret:v1 --to node2.pqpub
    """
    from pq_registry.client.grants import named_release
    from pq_registry.client.grants import withdraw as withdraw_grant
    from pq_registry.format.hexid import parse_recipient_id

    output = Output(json=json, quiet=quiet)
    wanted = _reference(reference)
    session = Session(
        output,
        registry=registry,
        token=token,
        trust=trust,
        key=key,
        passphrase_file=passphrase_file,
        passphrase_fd=passphrase_fd,
    )
    recipient = read_recipient(Path(to)).id if Path(to).exists() else parse_recipient_id(to)
    with session.client() as client:
        publisher = publisher_of(session, client)
        change = withdraw_grant(publisher, named_release(publisher, wanted), recipient)
    output.line("withdrawn" if change.changed else "nothing changed: it was withdrawn before", "good")
    output.fields(
        [
            ("release", f"{wanted.repository}@{change.statement.release}"),
            ("recipient", recipient),
            ("log", leaf_text(change.logged)),
        ]
    )
    warn_without_quorum(output, change.logged)
    output.warning(_WITHDRAWN)
    output.data({**grant_json(change), "warnings": [_WITHDRAWN]})


def _reference(text: str) -> Reference:
    from pq_registry.format.name import Reference

    return Reference.parse(text)


def _recipient(publisher: Publisher, namespace: Namespace, to: str, fingerprint: str | None) -> PublicRecipient:
    from pq_registry.client.vouched import certified, look_up

    if not Path(to).exists():
        if fingerprint is not None:
            raise UsageError(
                "--fingerprint is compared with a file", expected="--to FILE", found=to, hint="get its .pqpub file"
            )
        return look_up(publisher, namespace, to)
    recipient = read_recipient(Path(to))
    if fingerprint is not None:
        check_fingerprint(recipient, fingerprint)
    else:
        certified(publisher, namespace, recipient.id)
    return recipient
