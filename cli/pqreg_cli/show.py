# SPDX-License-Identifier: Apache-2.0
"""``pqreg ls`` and ``pqreg show``: what a registry says it has, and what a release verifiably is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import Output, size_text
from pqreg_cli.importview import claim_fields, claim_json, remote_claim, warn_of_claim
from pqreg_cli.options import JsonOption, QuietOption, RegistryOption, TokenOption, TrustOption
from pqreg_cli.releaseview import files_json, release_json, show_files, show_summary
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from pq_registry.client.answers import ReleaseItem, RepositoryItem, RepositoryView, TagItem
    from pq_registry.client.transport import RegistryClient
    from pq_registry.format.name import Namespace

_UNVERIFIED = "this is what the registry says; `pqreg show REF` and `pqreg verify REF` check signatures"


def ls(
    what: Annotated[
        str | None, typer.Argument(metavar="[NAMESPACE|REPOSITORY]", help="List only this, e.g. acme or acme/minilm.")
    ] = None,
    *,
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="List at most N repositories or releases.")] = 100,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List repositories, or the tags and releases of one repository.

    Examples:
      pqreg ls
      pqreg ls acme
      pqreg ls acme/minilm --json
    """
    from pq_registry.format.name import Namespace, RepositoryName

    if not 1 <= limit <= limits.PAGE_ITEMS:
        raise UsageError("--limit is wrong", expected=f"1 to {limits.PAGE_ITEMS}", found=limit)
    output = Output(json=json, quiet=quiet)
    if what is not None and (":" in what or "@" in what):
        raise UsageError(
            f"{what} names one release, not a repository",
            expected="namespace or namespace/name",
            hint=f"pqreg show {what}",
        )
    with Session(output, registry=registry, token=token).client() as client:
        if what is not None and "/" in what:
            _list_repository(output, client.repository(RepositoryName.parse(what), limit=limit))
        else:
            _list_repositories(output, client, None if what is None else Namespace(what), limit)


def show(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="namespace/name[:tag][@sha256:...]; without a tag, main.")
    ],
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what a release holds and who signed it. Its signatures are verified first; no weights are fetched.

    Examples:
      pqreg show acme/minilm:v1
      pqreg show acme/minilm --json
    """
    from pq_registry.client.resolve import resolve
    from pq_registry.format.name import Reference

    output = Output(json=json, quiet=quiet)
    session = Session(output, registry=registry, token=token, trust=trust)
    wanted = Reference.parse(reference)
    with session.client() as client:
        found = resolve(wanted, client, session.verifier(online=True), session.seen_tags())
        manifest = found.verified.release.manifest
        claim = remote_claim(client, manifest.files)
    show_summary(output, found.verified, found.tag, more=claim_fields(claim))
    show_files(output, manifest)
    warn_of_claim(output, claim)
    output.data({**release_json(found.verified, found.tag), "import": claim_json(claim), "files": files_json(manifest)})


def _list_repositories(output: Output, client: RegistryClient, namespace: Namespace | None, limit: int) -> None:
    items: list[RepositoryItem] = []
    after: str | None = None
    while len(items) < limit:
        page = client.repos(namespace=namespace, after=after, limit=limit - len(items))
        items += page.items
        after = page.next
        if after is None or not page.items:
            break
    rows = [(item.name, item.releases, item.tags, _instant(item.updated) or "-") for item in items]
    if rows:
        output.table(["repository", "releases", "tags", "updated"], rows)
        output.note(_UNVERIFIED)
    else:
        output.line(f"there is no repository{f' in {namespace}' if namespace else ''} that you may read")
    if after is not None:
        output.note(f"there are more: --limit N shows up to {limits.PAGE_ITEMS}")
    output.data(
        {
            "repositories": [
                {
                    "name": str(item.name),
                    "releases": item.releases,
                    "tags": item.tags,
                    "updated": _instant(item.updated),
                }
                for item in items
            ],
            "more": after is not None,
        }
    )


def _list_repository(output: Output, view: RepositoryView) -> None:
    if view.tags:
        rows = [
            (item.tag, item.target or "withdrawn", item.sequence, _instant(item.issued), _instant(item.expires))
            for item in view.tags
        ]
        output.table(["tag", "release", "sequence", "issued", "expires"], rows)
        output.line("")
    output.table(
        ["release", "created", "size", "files"],
        [(item.digest, _instant(item.created), size_text(item.size), item.files) for item in view.releases],
    )
    output.note(_UNVERIFIED)
    if view.next is not None:
        output.note(f"there are older releases: --limit N shows up to {limits.PAGE_ITEMS}")
    output.data(
        {
            "name": str(view.name),
            "tags": [_tag_json(item) for item in view.tags],
            "releases": [_release_json(item) for item in view.releases],
            "more": view.next is not None,
        }
    )


def _tag_json(item: TagItem) -> dict[str, object]:
    return {
        "tag": str(item.tag),
        "target": None if item.target is None else str(item.target),
        "sequence": item.sequence,
        "issued": _instant(item.issued),
        "expires": _instant(item.expires),
        "signer": item.signer,
    }


def _release_json(item: ReleaseItem) -> dict[str, object]:
    return {
        "digest": str(item.digest),
        "created": _instant(item.created),
        "size": item.size,
        "files": item.files,
        "signer": item.signer,
    }


def _instant(instant: datetime | None) -> str | None:
    from pq_registry.format.instant import format_instant

    return None if instant is None else format_instant(instant)
