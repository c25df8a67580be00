# SPDX-License-Identifier: Apache-2.0
"""``pqreg key revoke``: end a key for good, whichever kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.crypto.recipient import PublicRecipient
from pq_registry.errors import UsageError
from pq_registry.format.status import Revocation, RevocationKind
from pqreg_cli.console import Output
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
from pqreg_cli.session import Session
from pqreg_cli.status import STATUS_DAYS, DaysOption, FromOption, instant, publish_status
from pqreg_keys import custody


def revoke(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .pqpub file of an identity or a recipient.")],
    *,
    namespace: Annotated[str, typer.Option("--namespace", metavar="NAMESPACE", help="The namespace it is used in.")],
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
    """Revoke a signing identity or a recipient, for good, by the next status of its namespace.

    An identity is refused for what it signed at --from or later; a recipient is refused altogether. Sign with a
    revoker's key (--key), which is never the one that was stolen. For several things at once: pqreg status revoke.

    Examples:
      pqreg key revoke alice.pqpub --namespace acme --from 2026-11-21T18:00:00Z --key revoker.pqkey
      pqreg key revoke node7.pqpub --namespace acme --key revoker.pqkey
    """
    public = custody.shown(file, None) if file.suffix == ".pqpub" else None
    if isinstance(public, PublicIdentity):
        kind, subject = RevocationKind.IDENTITY, public.id
    elif isinstance(public, PublicRecipient):
        kind, subject = RevocationKind.RECIPIENT, public.id
    else:
        raise UsageError(
            f"{file} is no public file of an identity or a recipient", expected="a .pqpub file",
            hint="pqreg key export makes one from a secret key file; pqreg status revoke takes ids as well",
        )  # fmt: skip
    session = Session(
        Output(json=json, quiet=quiet), registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd,
    )  # fmt: skip
    publish_status(session, namespace, [Revocation(kind, subject, instant(since))], days)
