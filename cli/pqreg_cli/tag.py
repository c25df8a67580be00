# SPDX-License-Identifier: Apache-2.0
"""``pqreg tag`` and ``pqreg rm``: tags are signed statements; setting, renewing and withdrawing one adds the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import UsageError
from pqreg_cli.console import Output
from pqreg_cli.logview import leaf_index, leaf_text, warn_without_quorum
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
from pqreg_cli.push import publisher_of, tag_json, tag_lifetime, tag_text
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.tagging import TagChange
    from pq_registry.format.name import Reference


def tag(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The tag to set: namespace/name:tag.")],
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="Where it is to point: namespace/name@sha256:... or sha256:...")
    ],
    *,
    renew: Annotated[
        bool, typer.Option("--renew", help="Sign a new statement even if the tag points there already.")
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
    """Point a tag at a release of the same repository, or renew it before it expires.

    The release is fetched and its signature verified first: by your own identity, or by a publisher of your trust
    file.

    Examples:
      pqreg tag acme/minilm:stable sha256:0123...
      pqreg tag acme/minilm:stable acme/minilm@sha256:0123... --renew
    """
    from pq_registry.client.published import read_release
    from pq_registry.client.tagging import move_tag
    from pq_registry.format.digest import Digest
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    wanted = _tag_of(reference)
    source = None if release.startswith("sha256:") else Reference.parse(release)
    digest = Digest.parse(release) if source is None else source.digest
    if digest is None:
        raise UsageError(
            "the release must be named by its digest", expected="namespace/name@sha256:... or sha256:...",
            found=release, hint=f"pqreg show {release} prints it",
        )  # fmt: skip
    if source is not None and source.repository.key != wanted.repository.key:
        raise UsageError(
            "a tag points at a release of its own repository", expected=wanted.repository, found=source.repository
        )
    assert wanted.tag is not None
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
        read_release(client, wanted.repository, digest, own=publisher.signer.identity, trust=publisher.trust)
        change = move_tag(publisher, wanted.repository, wanted.tag, digest, lifetime=tag_lifetime(session), renew=renew)
    _report(output, wanted, change)


def rm(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The tag to withdraw: namespace/name:tag.")],
    *,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Withdraw a tag. Its release stays: releases are immutable, and whoever names one by its digest still gets it.

    Example:
      pqreg rm acme/minilm:beta
    """
    from pq_registry.client.tagging import move_tag

    output = Output(json=json, quiet=quiet)
    wanted = _tag_of(reference)
    assert wanted.tag is not None
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
        change = move_tag(publisher, wanted.repository, wanted.tag, None, lifetime=tag_lifetime(session))
    _report(output, wanted, change)


def _tag_of(text: str) -> Reference:
    """A reference that spells its tag out: setting or withdrawing ``main`` by leaving it out would surprise."""
    from pq_registry.format.name import Reference

    reference = Reference.parse(text)
    if reference.digest is not None or reference.tag is None or ":" not in text:
        raise UsageError("which tag?", expected="namespace/name:tag", found=text)
    return reference


def _report(output: Output, wanted: Reference, change: TagChange) -> None:
    statement, before = change.statement, change.before
    was = None if before is None or before.target is None else str(before.target)
    if not change.changed:
        output.line("nothing changed", "good")
    elif statement.target is None:
        output.line(f"withdrew {wanted}", "good")
    else:
        output.line(f"set {wanted}", "good")
    if statement.target is None:
        words = f"{statement.tag} is withdrawn by statement {statement.sequence}"
    else:
        words = tag_text(statement, changed=change.changed)
    output.fields(
        [
            ("release", None if statement.target is None else f"{wanted.repository}@{statement.target}"),
            ("before", was if was and was != str(statement.target) else None),
            ("tag", words),
            ("signer", statement.signer),
            ("log", leaf_text(change.logged)),
        ]
    )
    output.data(
        {
            "name": str(wanted.repository),
            "before": was,
            **tag_json(statement, changed=change.changed),
            "log_index": leaf_index(change.logged),
        }
    )
    warn_without_quorum(output, change.logged)
