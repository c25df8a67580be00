# SPDX-License-Identifier: Apache-2.0
"""``pqreg sign``: makes a release of a draft, after this machine has read every byte of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry.errors import NameSyntaxError, UsageError
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
from pqreg_cli.push import base_release, publisher_of, tag_json, tag_lifetime, tag_text
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.draftroutes import DraftReference
    from pq_registry.client.signdraft import Review, SignResult
    from pq_registry.format.name import Tag

_SHOWN = 50
"""Files listed before signing; --json lists all of them."""
_UNCOMPARED = (
    "this signs what the registry delivers. If the files are on this machine, --against DIR makes sure that they are "
    "the ones"
)


def sign(
    reference: Annotated[
        str, typer.Argument(metavar="DRAFT", help="namespace/name@draft, or namespace/name@draft/branch.")
    ],
    *,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="DIR", help="Sign only if the draft is what is in DIR, byte for byte."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="The tag to set; by default the name of the branch.")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", metavar="COMMIT", help="Sign only if the draft is at this commit.")
    ] = None,
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
    """Sign what was pushed with Hugging Face's tools, and publish it as a release.

    Such a push is a draft: nobody signed it. This reads every byte of it, shows what it is about to sign, signs and
    logs it, points the tag at the release and drops the draft. If the draft moves meanwhile, nothing is signed.
    Interrupted, it continues where it stopped when it is run again.

    With --against nothing is fetched: what is in DIR is read instead, and must be the files of the draft.

    Examples:
      pqreg sign acme/minilm@draft --key alice.pqkey --against ./minilm --tag v1
      pqreg sign acme/minilm@draft/dev --key alice.pqkey --tag dev
    """
    from pq_registry.client.draftroutes import DraftReference, parse_commit
    from pq_registry.client.push import PushOptions
    from pq_registry.client.signdraft import SignOptions, sign_draft

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd, connections=connections, limit_rate=limit_rate,
    )  # fmt: skip
    wanted = DraftReference.parse(reference)
    options = SignOptions(
        push=PushOptions(
            license=license,
            lineage=None if base is None else tuple(base_release(text) for text in base),
            allow_unsafe=allow_unsafe,
            connections=session.connections,
            tag_lifetime=tag_lifetime(session),
        ),
        against=against,
        head=None if head is None else parse_commit(head),
        review=lambda review: _show(output, wanted, review),
    )
    chosen = _tag(wanted, tag)
    with session.client() as client, session.progress() as progress:
        publisher = publisher_of(session, client)
        result = sign_draft(wanted, chosen, publisher=publisher, options=options, progress=progress)
    _report(output, wanted, result)


def _tag(reference: DraftReference, given: str | None) -> Tag:
    from pq_registry.format.name import Tag

    if given is not None:
        return Tag(given)
    try:
        return Tag(reference.branch)
    except NameSyntaxError:
        raise UsageError(
            f"{reference.branch} cannot be a tag", expected="--tag TAG", hint="say which tag is to point at the release"
        ) from None


def _show(output: Output, reference: DraftReference, review: Review) -> None:
    if not review.compared:
        output.warning(_UNCOMPARED)
    if output.silent:
        return
    size = sum(entry.size for entry in review.files)
    output.line(f"about to sign {reference} at {review.draft.item.head}", "strong")
    rows = [(entry.sha256.hex, entry.size, entry.path) for entry in review.files[:_SHOWN]]
    output.table(("sha256", "bytes", "path"), rows)
    left = len(review.files) - _SHOWN
    output.line(
        f"{count_text(len(review.files), 'file')}, {size_text(size)}" + (f"; {left} are not shown" if left > 0 else "")
    )


def _report(output: Output, reference: DraftReference, result: SignResult) -> None:
    manifest, repository, item = result.manifest, reference.repository, result.draft.item
    logged = {"release": result.logged, "tag": result.tag_change.logged}
    for path in result.unsafe:
        output.warning(f"{path} can execute code when it is loaded (--allow-unsafe)")
    for warning in result.warnings:
        output.warning(warning)
    if result.registered:
        output.note(f"identity {manifest.signer} is now registered for {repository.namespace}")
    if not result.dropped:
        output.note(f"{reference} went on while {item.head} was signed, and is kept")
    did = f"signed {reference} as {repository}:{result.tag}"
    output.line(did if result.minted else f"{did}: a release of the same files existed", "good")
    output.fields(
        [
            ("release", f"{repository}@{result.release}"),
            ("tag", tag_text(result.tag_change.statement, changed=result.tag_change.changed)),
            ("signer", manifest.signer),
            ("log", leaves_text(logged)),
            ("content", f"{count_text(len(manifest.files), 'file')}, {size_text(manifest.total_size)}"),
            ("draft", f"{item.head}, {'dropped' if result.dropped else 'kept'}"),
        ]
    )
    output.data(
        {
            "name": str(repository),
            "digest": str(result.release),
            "minted": result.minted,
            "log_index": leaf_index(result.logged),
            "tag": {
                **tag_json(result.tag_change.statement, changed=result.tag_change.changed),
                "log_index": leaf_index(result.tag_change.logged),
            },
            "signer": manifest.signer,
            "registered": result.registered,
            "draft": {"branch": reference.branch, "head": item.head, "dropped": result.dropped},
            "compared": result.compared,
            "files": [
                {"path": entry.path.text, "size": entry.size, "sha256": entry.sha256.hex} for entry in manifest.files
            ],
            "size": manifest.total_size,
            "unsafe": list(result.unsafe),
            "warnings": list(result.warnings),
        }
    )
    note_what_is_public(output, result.logged)
    warn_without_quorum(output, *logged.values())
