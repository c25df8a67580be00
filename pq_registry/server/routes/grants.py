# SPDX-License-Identifier: Apache-2.0
"""Grants of sealed releases, and certificates of recipients' keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE as ENVELOPE_TYPE
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.name import Namespace
from pq_registry.server import guard
from pq_registry.server.answers import (
    ENVELOPE_ANSWER,
    ENVELOPE_BODY,
    PROBLEMS,
    RECORDED,
    RECORDED_ALREADY,
    envelope_answer,
    grant_item,
    json_answer,
    key_item,
)
from pq_registry.server.bodies import read_bytes
from pq_registry.server.guard import Service
from pq_registry.server.models import GrantPage, KeyPage
from pq_registry.server.recorded import recorded_answer
from pq_registry.server.routes.repositories import PageSize, repository_name
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS)
_GRANT = "/v1/repos/{ns}/{name}/grants/{release}/{recipient}"
_KEY = "/v1/namespaces/{ns}/keys/{recipient}"


@router.get("/v1/repos/{ns}/{name}/grants", responses={200: {"model": GrantPage}})
async def list_grants(
    ns: str,
    name: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    release: str | None = None,
    recipient: str | None = None,
    after: str | None = None,
    limit: PageSize = 100,
) -> Response:
    """The newest statement per release and recipient, also those that withdraw."""
    items, following = await run_in_threadpool(
        service.granting.list,
        repository_name(ns, name),
        release=None if release is None else Digest(release),
        recipient=None if recipient is None else parse_recipient_id(recipient),
        after=after,
        limit=limit,
    )
    return json_answer({"items": [grant_item(item) for item in items], "next": following})


@router.get(_GRANT, responses={200: ENVELOPE_ANSWER})
async def show_grant(
    request: Request,
    ns: str,
    name: str,
    release: str,
    recipient: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
) -> Response:
    """The exact envelope of the newest statement about a release and a recipient, also when it withdraws."""
    digest, envelope = await run_in_threadpool(
        service.granting.envelope, repository_name(ns, name), Digest(release), parse_recipient_id(recipient)
    )
    return envelope_answer(request, digest, envelope)


@router.put(
    _GRANT,
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=ENVELOPE_BODY,
)
async def put_grant(
    request: Request,
    ns: str,
    name: str,
    release: str,
    recipient: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_GRANT)],
    service: Service,
) -> Response:
    """Grant a sealed release to a recipient, or withdraw that: the envelope of the statement that comes next."""
    body = await read_bytes(request, kind=ENVELOPE_TYPE, limit=limits.GRANT_ENVELOPE_BYTES)
    digest, is_new = await run_in_threadpool(
        service.granting.put,
        caller,
        repository_name(ns, name),
        Digest(release),
        parse_recipient_id(recipient),
        body,
    )
    return await recorded_answer(request, digest, is_new=is_new)


@router.get("/v1/namespaces/{ns}/keys", responses={200: {"model": KeyPage}})
async def list_keys(
    ns: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    after: str | None = None,
    limit: PageSize = 100,
) -> Response:
    """The recipients of a namespace whose keys somebody certified, by id."""
    items, following = await run_in_threadpool(
        service.keys.list,
        Namespace(ns),
        after=None if after is None else parse_recipient_id(after),
        limit=limit,
    )
    return json_answer({"items": [key_item(item) for item in items], "next": following})


@router.get(_KEY, responses={200: ENVELOPE_ANSWER})
async def show_key(
    request: Request,
    ns: str,
    recipient: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
) -> Response:
    """The exact envelope of the newest key statement about a recipient."""
    digest, envelope = await run_in_threadpool(service.keys.envelope, Namespace(ns), parse_recipient_id(recipient))
    return envelope_answer(request, digest, envelope)


@router.put(
    _KEY,
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=ENVELOPE_BODY,
)
async def put_key(
    request: Request,
    ns: str,
    recipient: str,
    caller: Annotated[Caller, Depends(guard.REGISTER_KEY)],
    service: Service,
) -> Response:
    """Certify a recipient's key: the envelope of a key statement."""
    body = await read_bytes(request, kind=ENVELOPE_TYPE, limit=limits.GRANT_ENVELOPE_BYTES)
    digest, is_new = await run_in_threadpool(
        service.keys.put, caller, Namespace(ns), parse_recipient_id(recipient), body
    )
    return await recorded_answer(request, digest, is_new=is_new)
