# SPDX-License-Identifier: Apache-2.0
"""``pqreg draft list|show|drop``: what was pushed with the Hub's tools and nobody has signed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pqreg_cli.console import Output, count_text, size_text
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, QuietOption, RegistryOption, TokenOption
from pqreg_cli.session import Session

if TYPE_CHECKING:
    from pq_registry.client.draftroutes import DraftItem

app = new_app(help="Look at drafts: what was pushed with Hugging Face's tools and nobody has signed. See pqreg sign.")
DraftArgument = Annotated[
    str, typer.Argument(metavar="DRAFT", help="namespace/name@draft, or namespace/name@draft/branch.")
]
_UNSIGNED = "nobody signed this: it is what the registry says. `pqreg sign` makes a release of it"


@app.command("list")
def list_(
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="namespace/name")],
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the drafts of a repository.

    Example:
      pqreg draft list acme/minilm
    """
    from pq_registry.format.name import RepositoryName

    output = Output(json=json, quiet=quiet)
    with Session(output, registry=registry, token=token).client() as client:
        items = client.drafts(RepositoryName.parse(repository))
    if not items:
        output.data([])
        output.note(f"{repository} has no drafts that this token may read")
        return
    output.table(
        ("name", "kind", "signed", "head", "files", "size", "title"),
        [
            (item.name, item.kind, _signed(item), item.head, item.files, size_text(item.size), item.title)
            for item in items
        ],
    )
    output.data([_json(item) for item in items])
    if any(item.release is None for item in items):
        output.note(_UNSIGNED)


@app.command("show")
def show(
    reference: DraftArgument,
    *,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show the files of a draft.

    Examples:
      pqreg draft show acme/minilm@draft
      pqreg draft show acme/minilm@draft/dev --json
    """
    from pq_registry.client.draftroutes import DraftReference

    output = Output(json=json, quiet=quiet)
    wanted = DraftReference.parse(reference)
    with Session(output, registry=registry, token=token).client() as client:
        draft = client.draft(wanted.repository, wanted.branch)
    item = draft.item
    output.fields(
        [
            ("draft", f"{wanted} ({item.kind})"),
            ("head", item.head),
            ("signed", _signed(item)),
            ("release", item.release),
            ("title", item.title or None),
            ("content", f"{count_text(item.files, 'file')}, {size_text(item.size)}"),
        ]
    )
    if draft.files:
        output.table(("sha256", "bytes", "path"), [(file.sha256.hex, file.size, file.path) for file in draft.files])
    listing = [{"path": file.path.text, "size": file.size, "sha256": file.sha256.hex} for file in draft.files]
    output.data({**_json(item), "listing": listing})
    if item.release is None:
        output.note(_UNSIGNED)


@app.command("drop")
def drop(
    reference: DraftArgument,
    *,
    head: Annotated[
        str | None, typer.Option("--head", metavar="COMMIT", help="Drop it only if it is at this commit.")
    ] = None,
    registry: RegistryOption = None,
    token: TokenOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drop a draft with its history. Releases stay; what nothing else refers to is collected later.

    Example:
      pqreg draft drop acme/minilm@draft/dev
    """
    from pq_registry.client.draftroutes import DraftReference, parse_commit

    output = Output(json=json, quiet=quiet)
    wanted = DraftReference.parse(reference)
    expected = None if head is None else parse_commit(head)
    with Session(output, registry=registry, token=token).client() as client:
        client.drop_draft(wanted.repository, wanted.branch, head=expected)
    output.line(f"dropped {wanted}", "good")
    output.data({"name": str(wanted.repository), "branch": wanted.branch, "dropped": True})


def _signed(item: DraftItem) -> str:
    return "no" if item.release is None else "as a release"


def _json(item: DraftItem) -> dict[str, object]:
    from pq_registry.format.instant import format_instant

    return {
        "name": item.name,
        "kind": item.kind,
        "head": item.head,
        "signed": item.release is not None,
        "release": None if item.release is None else str(item.release),
        "files": item.files,
        "size": item.size,
        "title": item.title,
        "updated": format_instant(item.updated),
    }
