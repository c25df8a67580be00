# SPDX-License-Identifier: Apache-2.0
"""What mirrors report about a repository: where its releases are besides here (docs/operations/mirror.md)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant
from pq_registry.format.name import Tag
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer, json_body
from pq_registry.server.bodies import read_model
from pq_registry.server.guard import Service
from pq_registry.server.mirrormodels import MirrorPage, MirrorReport, MirrorReported
from pq_registry.server.routes.repositories import PageSize, repository_name
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import Commit
from pq_registry.service.mirrors import MirrorItem, MirrorRun, RunState

router = APIRouter(responses=PROBLEMS)
_MIRRORS = "/v1/repos/{ns}/{name}/mirrors"


@router.get(_MIRRORS, responses={200: {"model": MirrorPage}})
async def list_mirrors(
    ns: str,
    name: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    after: Annotated[int | None, Query(ge=1)] = None,
    limit: PageSize = 100,
) -> Response:
    """What became of this repository's releases on other Hubs, as whoever mirrors them says; newest first."""
    items, following = await run_in_threadpool(
        service.mirrors.list, repository_name(ns, name), after=after, limit=limit
    )
    return json_answer({"items": [_item(item) for item in items], "next": following})


@router.post(
    _MIRRORS,
    status_code=201,
    responses={201: {"model": MirrorReported}, 200: {"model": MirrorReported, "description": "Nothing new"}},
    openapi_extra=json_body(MirrorReport),
)
async def report_mirror(
    request: Request, ns: str, name: str, caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)], service: Service
) -> Response:
    """Say what became of a release on a Hub."""
    told = await read_model(request, MirrorReport)
    run = MirrorRun(
        target=told.target,
        release=Digest.parse(told.release),
        tag=None if told.tag is None else Tag(told.tag),
        state=RunState(told.state),
        commit=None if told.commit is None else Commit(told.commit),
        reason=told.reason,
        seconds=told.seconds,
    )
    is_new = await run_in_threadpool(service.mirrors.report, caller, repository_name(ns, name), run)
    return json_answer({"new": is_new}, status=201 if is_new else 200)


def _item(item: MirrorItem) -> dict[str, Any]:
    return {
        "target": item.target,
        "release": str(item.release),
        "tag": item.tag,
        "state": item.state.value,
        "commit": item.commit,
        "reason": item.reason,
        "started": format_instant(item.started),
        "seen": format_instant(item.seen),
    }
