# SPDX-License-Identifier: Apache-2.0
"""Probes, metrics and the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.guard import Service
from pq_registry.server.metrics import MEDIA_TYPE, Metrics
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS)


@router.get("/livez")
async def livez(_caller: Annotated[Caller, Depends(guard.PUBLIC)]) -> Response:
    """The process answers."""
    return json_answer({"status": "ok"})


@router.get("/readyz")
async def readyz(_caller: Annotated[Caller, Depends(guard.PUBLIC)], service: Service) -> Response:
    """Catalogue and blob store answer; 503 otherwise."""
    await run_in_threadpool(service.check)
    return json_answer({"status": "ok"})


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, _caller: Annotated[Caller, Depends(guard.OBSERVE)]) -> Response:
    """Metrics in Prometheus' text format; for a token that reaches every namespace."""
    collected: Metrics = request.app.state.metrics
    return Response(collected.render(), headers={"Content-Type": MEDIA_TYPE})


@router.get("/openapi.json")
async def openapi(request: Request, _caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)]) -> Response:
    """This document."""
    return json_answer(request.app.state.openapi)
