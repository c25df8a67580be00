# SPDX-License-Identifier: Apache-2.0
"""Probes, metrics and the OpenAPI document."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.guard import Service
from pq_registry.server.metrics import MEDIA_TYPE, Metrics
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS)


class Readiness:
    """Asks the stores for all who ask at the same time at once: anybody may ask, and each question costs them all."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[None] | None = None

    async def check(self, registry: Registry) -> None:
        """Make sure that requests can be served.

        Raises:
            StorageError: if they cannot.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(run_in_threadpool(registry.check))
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps nobody waits
        # Whoever goes away takes no answer from the others.
        await asyncio.shield(self._asking)


@router.get("/livez")
async def livez(_caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """The process answers."""
    return json_answer({"status": "ok"})


@router.get("/startupz")
async def startupz(_caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """The start is over: before it is, nothing answers at all."""
    return json_answer({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request, _caller: Annotated[Caller, Depends(guard.PUBLIC)], service: Service) -> Response:
    """Catalogue and blob store answer, and the log takes statements; 503 otherwise. Says whether this one leads."""
    readiness: Readiness = request.app.state.readiness
    await readiness.check(service)
    return json_answer({"status": "ok", "log": "leader" if service.ledger.leading else "follower"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, _caller: Annotated[Caller, Depends(guard.OBSERVE)]) -> Response:
    """Metrics in Prometheus' text format; for a token that reaches every namespace."""
    collected: Metrics = request.app.state.metrics
    text = await run_in_threadpool(collected.render)
    return Response(text, headers={"Content-Type": MEDIA_TYPE})


@router.get("/openapi.json")
async def openapi(request: Request, _caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)]) -> Response:
    """This document."""
    return json_answer(request.app.state.openapi)
