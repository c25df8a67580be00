# SPDX-License-Identifier: Apache-2.0
"""``pqreg key certify``: an enrolment identity vouches for a node's recipient key."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from pqreg_cli.console import Output
from pqreg_cli.options import JsonOption, KeyOption, PassphraseFileOption, QuietOption, RegistryOption, TokenOption


def certify(
    recipient_file: Annotated[
        Path, typer.Argument(metavar="RECIPIENT.pqpub", help="The recipient's public file, from its owner.")
    ],
    *,
    namespace: Annotated[str, typer.Option("--namespace", metavar="NS", help="The namespace it is certified for.")],
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="The node that holds the secret key.")],
    days: Annotated[
        int | None, typer.Option("--days", metavar="N", min=1, max=36500, help="Days until it lapses; else never.")
    ] = None,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Certify a recipient's key, so that others may grant to it.

    Compare the recipient's id with its owner over another channel first: your signature says that you did. It counts
    for those whose trust file names your identity for enrolment (pqreg trust add --enrolment). The statement is kept
    by the registry; its token must be one of an owner of the namespace.

    Example:
      pqreg key certify node1.pqpub --namespace acme --node edge-7.example.org --key enrol.pqkey --days 365
    """
    from pq_registry.client.enrolment import certify as certify_recipient
    from pq_registry.format.instant import format_instant
    from pq_registry.format.name import Namespace
    from pqreg_cli.logview import leaf_index, leaf_text, warn_without_quorum
    from pqreg_cli.push import publisher_of
    from pqreg_cli.recipients import read_recipient
    from pqreg_cli.session import Session

    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, key=key, passphrase_file=passphrase_file)
    recipient = read_recipient(recipient_file)
    with session.client() as client:
        certified = certify_recipient(
            publisher_of(session, client),
            recipient,
            namespace=Namespace(namespace),
            node=node,
            lifetime=None if days is None else timedelta(days=days),
        )
    statement = certified.statement
    until = None if statement.not_after is None else format_instant(statement.not_after)
    output.line(f"certified: {node} of {statement.namespace} holds this key", "good")
    output.fields(
        [
            ("recipient", recipient.id),
            ("node", node),
            ("until", until or "for ever"),
            ("signer", statement.signer),
            ("log", leaf_text(certified.logged)),
        ]
    )
    output.data(
        {
            "recipient": recipient.id,
            "namespace": str(statement.namespace),
            "node": node,
            "issued": format_instant(statement.issued),
            "not_after": until,
            "signer": statement.signer,
            "log_index": leaf_index(certified.logged),
        }
    )
    warn_without_quorum(output, certified.logged)
