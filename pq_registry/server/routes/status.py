# SPDX-License-Identifier: Apache-2.0
"""Statuses: what is revoked in a namespace."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.format.dsse import MEDIA_TYPE as ENVELOPE_TYPE
from pq_registry.format.name import Namespace
from pq_registry.server import guard
from pq_registry.server.answers import (
    ENVELOPE_ANSWER,
    ENVELOPE_BODY,
    PROBLEMS,
    RECORDED,
    RECORDED_ALREADY,
    envelope_answer,
)
from pq_registry.server.bodies import read_bytes
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Heavy
from pq_registry.server.recorded import recorded_answer
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS)
_STATUS = "/v1/namespaces/{ns}/status"


@router.get(_STATUS, responses={200: ENVELOPE_ANSWER})
async def show_status(
    request: Request, ns: str, _caller: Annotated[Caller, Depends(guard.READ)], service: Service
) -> Response:
    """The exact envelope of a namespace's newest status statement."""
    digest, envelope = await run_in_threadpool(service.statuses.envelope, Namespace(ns))
    return envelope_answer(request, digest, envelope)


@router.put(_STATUS, status_code=201, responses={201: RECORDED, 200: RECORDED_ALREADY}, openapi_extra=ENVELOPE_BODY)
async def put_status(
    request: Request, ns: str, caller: Annotated[Caller, Depends(guard.REVOKE)], service: Service, heavy: Heavy
) -> Response:
    """Revoke, or renew the status: the envelope of the statement that follows the present one."""
    body = await read_bytes(request, kind=ENVELOPE_TYPE, limit=limits.STATUS_ENVELOPE_BYTES)
    digest, is_new = await heavy.run(service.statuses.put, caller, Namespace(ns), body)
    return await recorded_answer(request, digest, is_new=is_new)
