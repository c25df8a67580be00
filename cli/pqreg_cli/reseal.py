# SPDX-License-Identifier: Apache-2.0
"""``pqreg reseal``: the files of a sealed release under a new content key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pqreg_cli.console import Output
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
from pqreg_cli.push import publisher_of, report_sealed, tag_lifetime
from pqreg_cli.recipients import ToOption, read_recipient
from pqreg_cli.session import Session

_HONEST = (
    "the old release stays what it was: whoever has its content key can open every copy of it, for ever; only the new "
    "release is closed to them"
)


def reseal(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="The tag of a sealed release: namespace/name:tag[@sha256:...].")
    ],
    directory: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Where to take the files from; else the release is unsealed.")
    ] = None,
    *,
    to: ToOption = None,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Publish files whose format can execute code when it is loaded.")
    ] = False,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    connections: ConnectionsOption = None,
    limit_rate: LimitRateOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Seal a release anew: a new release of the same files under a content key that nobody has.

    Do this after you withdrew a grant. The tag then points at the new release. It is granted to your own recipient, to
    those named with --to, and, until the same time, to those who have a grant of the old one in force and whose keys
    are certified; others are named, and left out. Without DIR the files are taken from the old release, unsealed in
    memory.

    Examples:
      pqreg grant withdraw acme/secret:v1 --to node2.pqpub && pqreg reseal acme/secret:v1
      pqreg reseal acme/secret:v1 ./model --to node1.pqpub
    """
    from pq_registry.client.push import PushOptions
    from pq_registry.client.reseal import reseal as reseal_release
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd, connections=connections, limit_rate=limit_rate,
    )  # fmt: skip
    wanted = Reference.parse(reference)
    recipients = [read_recipient(path) for path in to or ()]
    options = PushOptions(
        allow_unsafe=allow_unsafe, connections=session.connections, tag_lifetime=tag_lifetime(session)
    )
    begun = time.monotonic()
    with session.client() as client:
        publisher = publisher_of(session, client)
        with session.progress() as progress:
            result = reseal_release(
                wanted, publisher=publisher, recipients=recipients, directory=directory, options=options,
                progress=progress,
            )  # fmt: skip
    for one in result.left_out:
        output.warning(f"recipient {one.recipient} is left out: {one.why}; name its file with --to")
    output.warning(_HONEST)
    more = {"before": str(result.before), "left_out": [one.recipient for one in result.left_out]}
    report_sealed(output, result.sealed, time.monotonic() - begun, **more)
