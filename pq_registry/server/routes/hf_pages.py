# SPDX-License-Identifier: Apache-2.0
"""A model's page at the addresses where the Hub would have it: what clients print, people click."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from pq_registry.errors import NameSyntaxError
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.guard import Service
from pq_registry.server.hub.answers import repository_of
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry

OURS = frozenset({"api", "audit", "log", "models", "namespaces", "session", "static", "v1"})
"""What paths of our own begin with. A namespace of such a name has its pages below /models only."""


class PageRoute(APIRoute):
    """A route for all paths but those that begin as ours do: what is wrong there is not that a model is missing."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this route."""
        path: str = scope.get("path", "")
        return (Match.NONE, {}) if path.lstrip("/").partition("/")[0] in OURS else super().matches(scope)


router = APIRouter(route_class=PageRoute, responses=PROBLEMS)
_THERE: dict[int | str, dict[str, Any]] = {302: {"description": "The model's page"}}


@router.get("/{ns}/{name}", status_code=302, responses=_THERE)
async def lead_to_page(
    ns: str, name: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have it."""
    return await _page(service, caller, (ns, name))


@router.get("/{ns}/{name}/tree/{path:path}", status_code=302, responses=_THERE)
async def lead_from_tree(
    ns: str, name: str, path: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have a revision's files."""
    return await _page(service, caller, (ns, name, path))


@router.get("/{ns}/{name}/blob/{path:path}", status_code=302, responses=_THERE)
async def lead_from_file(
    ns: str, name: str, path: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have a file's."""
    return await _page(service, caller, (ns, name, path))


@router.get("/{ns}/{name}/commit/{path:path}", status_code=302, responses=_THERE)
@router.get("/{ns}/{name}/commits/{path:path}", status_code=302, responses=_THERE)
async def lead_from_commit(
    ns: str, name: str, path: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have a commit, which uploads print, or a history."""
    return await _page(service, caller, (ns, name, path))


async def _page(service: Registry, caller: Caller, asked: tuple[str, ...]) -> Response:
    """To the model's page, if it is there for the caller; otherwise there is nothing here."""
    try:
        repository = repository_of(*asked[:2])
    except NameSyntaxError:
        raise HTTPException(404) from None
    await run_in_threadpool(service.revisions.require, caller, repository)
    return RedirectResponse(f"/models/{repository}", 302)
