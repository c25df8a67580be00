# SPDX-License-Identifier: Apache-2.0
"""Drafts by our own API: what ``pqreg sign`` and ``pqreg draft`` look at, and how a draft goes.

They are written through the Hub's protocol alone. Every answer says that nobody signed what it shows.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from pq_registry.format.draft import DraftFile
from pq_registry.format.instant import format_instant
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Heavy
from pq_registry.server.models import DraftAnswer, DraftItems
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.hub.draftview import Draft
from pq_registry.service.hub.model import Branch, Commit

router = APIRouter(responses=PROBLEMS)
_UNSIGNED = {"X-Pqreg-Signed": "false", "Cache-Control": "no-store"}


@router.get("/v1/repos/{ns}/{name}/drafts", responses={200: {"model": DraftItems}})
async def list_drafts(
    ns: str, name: str, caller: Annotated[Caller, Depends(guard.READ)], service: Service, heavy: Heavy
) -> Response:
    """The branches and tags of a repository that nobody signed; none for those who may not read drafts."""
    drafts = await heavy.run(service.drafts.listing, caller, repository_name(ns, name))
    return json_answer({"items": [_item(draft) for draft in drafts]}, headers=_UNSIGNED)


@router.get("/v1/repos/{ns}/{name}/drafts/{branch:path}", responses={200: {"model": DraftAnswer}})
async def show_draft(
    ns: str, name: str, branch: str, caller: Annotated[Caller, Depends(guard.READ)], service: Service, heavy: Heavy
) -> Response:
    """A draft and its files; ``release`` is set, and there are none, if it points to a release."""
    return await heavy.run(_show, service, caller, ns, name, branch)


@router.delete("/v1/repos/{ns}/{name}/drafts/{branch:path}", status_code=204)
async def drop_draft(
    ns: str,
    name: str,
    branch: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
    heavy: Heavy,
    head: str | None = None,
) -> Response:
    """Drop a draft and the commits only it leads to; with ``head`` only if it still points there."""
    expected = None if head is None else Commit(head)
    await heavy.run(service.drafts.drop, caller, repository_name(ns, name), Branch(branch), head=expected)
    return Response(status_code=204)


def _show(service: Service, caller: Caller, ns: str, name: str, branch: str) -> Response:
    draft, files = service.drafts.contents(caller, repository_name(ns, name), Branch(branch))
    return json_answer({**_item(draft), "listing": [_file(file) for file in files]}, headers=_UNSIGNED)


def _item(draft: Draft) -> dict[str, Any]:
    return {
        "name": draft.name,
        "kind": draft.kind.value,
        "head": str(draft.head),
        "release": None if draft.release is None else str(draft.release),
        "files": draft.files,
        "size": draft.size,
        "title": draft.title,
        "created": format_instant(draft.created),
        "updated": format_instant(draft.updated),
    }


def _file(file: DraftFile) -> dict[str, Any]:
    return {"path": file.path.text, "sha256": str(file.sha256), "size": file.size}
