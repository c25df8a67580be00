# SPDX-License-Identifier: Apache-2.0
"""What is asked of a Hub and is not here: data sets, spaces, models without a namespace, discussions.

These routes come last. They say it in the Hub's words, so that clients say what is wrong and not that the Hub is down.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry.errors import NotFound
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.routes.hf_upload import JSON_BODY
from pq_registry.service.access import Caller

_NO_DISCUSSIONS: Final = "there are no discussions or pull requests here; a branch can hold what is proposed"

router = APIRouter(route_class=HubRoute, responses=PROBLEMS)


@router.get("/api/models/{name}")
async def show_no_model(name: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """No model is here: models have names of two parts."""
    raise _nothing(name)


@router.get("/api/models/{name}/revision/{rev}")
async def show_no_revision(name: str, rev: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """No model is here: models have names of two parts."""
    raise _nothing(f"{name} at {rev}")


@router.get("/api/datasets")
@router.get("/api/spaces")
async def list_nothing(_caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """Nothing is here but models."""
    raise HTTPException(404, "this registry keeps models only: hf models ls")


@router.get("/api/settings/repositories")
async def list_no_storage(_caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """Nobody is told here what each repository takes."""
    raise HTTPException(404, "this registry does not say what repositories take; it lists them: hf models ls")


@router.get("/api/models/{ns}/{name}/discussions")
async def list_no_discussions(ns: str, name: str, _caller: Annotated[Caller, Depends(guard.READ)]) -> Response:
    """No discussions are here."""
    raise HTTPException(404, f"{ns}/{name}: {_NO_DISCUSSIONS}")


@router.post("/api/models/{ns}/{name}/discussions", openapi_extra=JSON_BODY)
async def begin_no_discussion(ns: str, name: str, _caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)]) -> Response:
    """No pull requests either."""
    raise HTTPException(404, f"{ns}/{name}: {_NO_DISCUSSIONS}")


@router.post("/api/models/{ns}/{name}/duplicate", openapi_extra=JSON_BODY)
async def duplicate_nothing(ns: str, name: str, _caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)]) -> Response:
    """Copies are pushed: the name is part of what is signed."""
    raise HTTPException(404, f"{ns}/{name} is not copied here: push it under its other name, no file is sent again")


@router.get("/api/datasets/{path:path}")
@router.get("/api/spaces/{path:path}")
@router.get("/datasets/{path:path}")
@router.get("/spaces/{path:path}")
async def show_nothing(path: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """Nothing is here but models."""
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
