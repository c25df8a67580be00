# SPDX-License-Identifier: Apache-2.0
"""What is asked of a Hub and is not here: pages at the Hub's addresses, which are elsewhere; data sets and spaces."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from pq_registry.errors import NameSyntaxError, NotFound
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.guard import Service
from pq_registry.server.hub.answers import repository_of
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry

router = APIRouter(route_class=HubRoute, responses=PROBLEMS)
pages = APIRouter(responses=PROBLEMS)
_THERE: dict[int | str, dict[str, Any]] = {302: {"description": "The model's page"}}


@router.get("/api/models/{path:path}")
@router.get("/api/datasets/{path:path}")
@router.get("/api/spaces/{path:path}")
@router.get("/datasets/{path:path}")
@router.get("/spaces/{path:path}")
async def show_nothing(path: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """Nothing is here: models have names of two parts, and there is nothing but models."""
    raise _nothing(path)


@router.get("/{name}/resolve/{rev}/{path:path}")
async def get_nothing(name: str, rev: str, path: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """No file is here: models have names of two parts."""
    raise _nothing(f"{name}/{rev}/{path}")


@router.head("/{name}/resolve/{rev}/{path:path}")
async def head_nothing(name: str, rev: str, path: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """No file is here: models have names of two parts."""
    raise _nothing(f"{name}/{rev}/{path}")


def _nothing(asked: str) -> NotFound:
    return NotFound(
        "no such repository here", found=repr(asked)[:120], hint="this registry keeps models, named namespace/name"
    )


@pages.get("/{ns}/{name}", status_code=302, responses=_THERE)
async def lead_to_page(
    ns: str, name: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have it."""
    return await _page(service, caller, (ns, name))


@pages.get("/{ns}/{name}/tree/{path:path}", status_code=302, responses=_THERE)
async def lead_from_tree(
    ns: str, name: str, path: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have a revision's files."""
    return await _page(service, caller, (ns, name, path))


@pages.get("/{ns}/{name}/blob/{path:path}", status_code=302, responses=_THERE)
async def lead_from_file(
    ns: str, name: str, path: str, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service
) -> Response:
    """A model's page, where the Hub would have a file's."""
    return await _page(service, caller, (ns, name, path))


async def _page(service: Registry, caller: Caller, asked: tuple[str, ...]) -> Response:
    """To the model's page, if it is there for the caller; otherwise there is nothing here."""
    try:
        repository = repository_of(*asked[:2])
    except NameSyntaxError:
        raise HTTPException(404) from None
    await run_in_threadpool(service.revisions.require, caller, repository)
    return RedirectResponse(f"/models/{repository}", 302)
