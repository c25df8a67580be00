# SPDX-License-Identifier: Apache-2.0
"""``pqreg status issue|show|revoke``: what a namespace has revoked, and until when that is news."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, NotFound, UsageError
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.logview import leaf_index, leaf_text, warn_without_quorum
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
    from collections.abc import Sequence

    from pq_registry.client.revoking import StatusChange
    from pq_registry.client.tagging import Publisher
    from pq_registry.format.name import Namespace
    from pq_registry.format.status import Revocation, StatusStatement

app = new_app(
    help="Say what a namespace has revoked. Revocations are final: the list only grows. Sign with an identity to which "
    "readers' trust files give the revoker role (pqreg trust add --revoker)."
)

NamespaceArgument = Annotated[str, typer.Argument(metavar="NAMESPACE", help="The namespace, e.g. acme.")]
DaysOption = Annotated[
    int,
    typer.Option(
        "--days", metavar="N", min=1, max=limits.STATUS_LIFETIME_DAYS, help="How long readers take it for news."
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="DATE", help="Since when; a day or an instant.  [default: now]"),
]
STATUS_DAYS = 30


@app.command("issue")
def issue(
    namespace: NamespaceArgument,
    *,
    days: DaysOption = STATUS_DAYS,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Issue the first status of a namespace, or renew it: the same revocations, a later expiry.

    Readers whose trust file names revokers refuse a namespace without a current status when they ask a registry. Run
    this on a timer, more often than the status expires.

    Example:
      pqreg status issue acme --key revoker.pqkey --days 30
    """
    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd,
    )  # fmt: skip
    publish_status(session, namespace, (), days)


@app.command("revoke")
def revoke(
    namespace: NamespaceArgument,
    *,
    identity: Annotated[
        list[str], typer.Option("--identity", metavar="FILE|ID", help="A signing identity: its .pqpub file, or its id.")
    ] = [],  # noqa: B006  typer copies it
    release: Annotated[list[str], typer.Option("--release", metavar="DIGEST", help="A release: sha256:...")] = [],  # noqa: B006  typer copies it
    recipient: Annotated[
        list[str], typer.Option("--recipient", metavar="FILE|ID", help="A recipient: its .pqpub file, or its id.")
    ] = [],  # noqa: B006  typer copies it
    grant: Annotated[
        list[str], typer.Option("--grant", metavar="DIGEST", help="A grant statement: sha256:... of its payload.")
    ] = [],  # noqa: B006  typer copies it
    since: FromOption = None,
    days: DaysOption = STATUS_DAYS,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Revoke identities, releases, recipients or grants, for good.

    A release, recipient or grant is refused at once, whenever it was signed. An identity is refused for what it signed
    at --from or later, as its log and witnesses attest; what nobody attests an earlier time for is refused altogether.

    Examples:
      pqreg status revoke acme --release sha256:0123... --key revoker.pqkey
      pqreg status revoke acme --identity alice.pqpub --from 2026-11-21T18:00:00Z --key revoker.pqkey
      pqreg status revoke acme --recipient node7.pqpub --key revoker.pqkey
    """
    from pq_registry.format.digest import Digest
    from pq_registry.format.status import Revocation, RevocationKind

    at = instant(since)
    entries = [Revocation(RevocationKind.IDENTITY, _identity_id(text), at) for text in identity]
    entries += [Revocation(RevocationKind.RECIPIENT, _recipient_id(text), at) for text in recipient]
    entries += [Revocation(RevocationKind.RELEASE, str(Digest.parse(text)), at) for text in release]
    entries += [Revocation(RevocationKind.GRANT, str(Digest.parse(text)), at) for text in grant]
    if not entries:
        raise UsageError("there is nothing to revoke", expected="--identity, --release, --recipient or --grant")
    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd,
    )  # fmt: skip
    publish_status(session, namespace, entries, days)


@app.command("show")
def show(
    namespace: NamespaceArgument,
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what a namespace has revoked. Signature, receipt and sequence are verified first.

    Example:
      pqreg status show acme
    """
    from pq_registry.client.attested import EXEMPT_NOTE
    from pq_registry.client.proofs import adopt_status
    from pq_registry.client.seenstatus import SeenStatuses
    from pq_registry.format.name import Namespace

    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, trust=trust, provider=provider)
    wanted = Namespace(namespace)
    verifier = session.verifier(online=True)
    if not verifier.wants_status(wanted):
        raise UsageError(
            f"the trust file names no revoker for {wanted}, so nobody's word counts",
            hint=f"pqreg trust add FILE --revoker {wanted}=FILE.pqpub",
        )
    with session.client() as client:
        adopt_status(client, verifier, wanted, SeenStatuses(session.settings.state_dir))
    found = verifier.adopted(wanted)
    if found is None:
        raise NotFound(f"{wanted} has no status yet", hint=f"a revoker issues one: pqreg status issue {wanted}")
    show_status(output, found.statement)
    if not verifier.wants_receipts:
        output.note(EXEMPT_NOTE)
    output.data(status_json(found.statement))


def publish_status(session: Session, namespace: str, entries: Sequence[Revocation], days: int) -> None:
    """Issue the next status with ``entries`` added, and say what came of it."""
    from pq_registry.client.revoking import issue as issue_status
    from pq_registry.format.name import Namespace
    from pqreg_cli.push import publisher_of

    wanted = Namespace(namespace)
    with session.client() as client:
        publisher = publisher_of(session, client)
        change = issue_status(publisher, wanted, entries, lifetime=timedelta(days=days))
    _report(session.output, publisher, wanted, change)


def _report(output: Output, publisher: Publisher, namespace: Namespace, change: StatusChange) -> None:
    statement = change.statement
    if not change.changed:
        output.line(f"nothing changed: all of that is revoked already, by status {statement.sequence}", "good")
    elif change.added:
        output.line(f"revoked, for good, by status {statement.sequence} of {namespace}", "good")
    else:
        output.line(f"issued status {statement.sequence} of {namespace}", "good")
    show_status(output, statement, leaf=leaf_text(change.logged))
    listed = None if publisher.trust is None else publisher.trust.namespaces.get(namespace.key)
    if publisher.trust is not None and (listed is None or statement.signer not in listed.revokers):
        output.warning(
            f"your trust file does not let {statement.signer} revoke for {namespace}, so readers with this file refuse "
            f"this status: pqreg trust add TRUST.json --revoker {namespace}=YOURS.pqpub"
        )
    warn_without_quorum(output, change.logged)
    output.data(
        {
            **status_json(statement),
            "added": [entry.to_json() for entry in change.added],
            "changed": change.changed,
            "log_index": leaf_index(change.logged),
        }
    )


def show_status(output: Output, statement: StatusStatement, *, leaf: str | None = None) -> None:
    """A status statement for people."""
    from pq_registry.format.instant import format_instant

    output.fields(
        [
            ("namespace", statement.namespace),
            ("sequence", statement.sequence),
            ("signer", statement.signer),
            ("issued", format_instant(statement.issued)),
            ("news until", format_instant(statement.expires)),
            ("log", leaf),
            ("revoked", None if statement.revoked else "nothing"),
        ]
    )
    if statement.revoked:
        output.line("")
        rows = [(entry.kind.value, entry.subject, format_instant(entry.since)) for entry in statement.revoked]
        output.table(["revoked", "id or digest", "from"], rows)


def status_json(statement: StatusStatement) -> dict[str, object]:
    """A status statement's content."""
    from pq_registry.format.instant import format_instant

    return {
        "namespace": str(statement.namespace),
        "sequence": statement.sequence,
        "signer": statement.signer,
        "issued": format_instant(statement.issued),
        "expires": format_instant(statement.expires),
        "revoked": [entry.to_json() for entry in statement.revoked],
    }


def instant(text: str | None) -> datetime:
    """A day or an instant the user wrote; now, if nothing was.

    Raises:
        NameSyntaxError: if it is neither.
    """
    from pq_registry.format.instant import parse_instant, utc_now

    if text is None:
        return utc_now()
    try:
        return parse_instant(text if "T" in text else f"{text}T00:00:00Z")
    except FormatError:
        raise NameSyntaxError(
            "not a date", expected="2027-01-31 or 2027-01-31T12:00:00Z", found=repr(text)[:80]
        ) from None


def _identity_id(text: str) -> str:
    from pq_registry.crypto.identity import PublicIdentity
    from pq_registry.format.hexid import parse_identity_id

    if not Path(text).exists():
        return parse_identity_id(text)
    return PublicIdentity.from_pem(read_small(Path(text), "public file", limits.IDENTITY_FILE_BYTES)).id


def _recipient_id(text: str) -> str:
    from pq_registry.format.hexid import parse_recipient_id
    from pqreg_cli.recipients import read_recipient

    return read_recipient(Path(text)).id if Path(text).exists() else parse_recipient_id(text)
