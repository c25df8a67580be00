# SPDX-License-Identifier: Apache-2.0
"""Callers, tokens and identities."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry.crypto.identity import PublicIdentity
from pq_registry.errors import FormatError, NotAuthenticated
from pq_registry.format.instant import format_instant
from pq_registry.format.name import Namespace
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, created, json_answer, json_body, token_item
from pq_registry.server.bodies import read_model
from pq_registry.server.config import ServerConfig
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing
from pq_registry.server.models import (
    AboutAnswer,
    CallerAnswer,
    IdentityItem,
    IdentityItems,
    IdentityRequest,
    NewToken,
    TokenItems,
    TokenRequest,
    UsageAnswer,
)
from pq_registry.service.access import Caller, format_namespaces
from pq_registry.service.tokens import rights_of

router = APIRouter(responses=PROBLEMS)


@router.get("/v1/whoami", responses={200: {"model": CallerAnswer}})
async def whoami(caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)]) -> Response:
    """Whose token this is."""
    if caller.rights is None:
        raise NotAuthenticated("nobody: the request has no token")
    return json_answer(
        {
            "role": caller.rights.role.value,
            "namespaces": format_namespaces(caller.rights.namespaces),
            "expires": None if caller.expires is None else format_instant(caller.expires),
        }
    )


@router.get("/v1/about", responses={200: {"model": AboutAnswer}})
async def about(request: Request, _caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)]) -> Response:
    """What a client has to know of this registry before it reads from it."""
    config: ServerConfig = request.app.state.config
    s3 = config.stores.s3
    return json_answer({"storage_origins": [] if s3 is None else [s3.public_origin]})


@router.get("/v1/tokens", responses={200: {"model": TokenItems}})
async def list_tokens(caller: Annotated[Caller, Depends(guard.MANAGE_TOKENS)], service: Service) -> Response:
    """The tokens whose rights the caller's cover, without secrets."""
    items = await run_in_threadpool(service.tokens.list, caller)
    return json_answer({"items": [token_item(item) for item in items]})


@router.post("/v1/tokens", status_code=201, responses={201: {"model": NewToken}}, openapi_extra=json_body(TokenRequest))
async def create_token(
    request: Request, caller: Annotated[Caller, Depends(guard.MAKE_TOKENS)], service: Service
) -> Response:
    """Make a token that is no more than the caller's own; its text is answered this once."""
    asked = await read_model(request, TokenRequest)
    rights = rights_of(role=asked.role, namespaces=asked.namespaces)
    made = await run_in_threadpool(
        service.tokens.create, caller, rights=rights, expires_days=asked.expires_days, note=asked.note
    )
    return json_answer({**token_item(made.item), "token": made.text}, 201)


@router.delete("/v1/tokens/{id}", status_code=204)
async def revoke_token(
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.MANAGE_TOKENS)],
    service: Service,
) -> Response:
    """Revoke a token and every token made with it."""
    await run_in_threadpool(service.tokens.revoke, caller, id)
    return Response(status_code=204)


@router.get("/v1/namespaces/{ns}/usage", responses={200: {"model": UsageAnswer}})
async def show_usage(
    ns: str, _caller: Annotated[Caller, Depends(guard.PUBLISH)], service: Service, browsing: Browsing
) -> Response:
    """What a namespace holds, with its unfinished uploads, and its quota."""
    usage = await browsing.run(service.quotas.usage, Namespace(ns))
    return json_answer(
        {
            "bytes": usage.bytes,
            "repositories": usage.repositories,
            "quota_bytes": usage.quota.bytes or None,
            "quota_repositories": usage.quota.repositories or None,
        }
    )


@router.get("/v1/namespaces/{ns}/identities", responses={200: {"model": IdentityItems}})
async def list_identities(ns: str, _caller: Annotated[Caller, Depends(guard.READ)], service: Service) -> Response:
    """The identities that may publish in a namespace."""
    found = await run_in_threadpool(service.identities.list, Namespace(ns))
    return json_answer({"items": [{"id": item.id, "public": item.public} for item in found]})


@router.post(
    "/v1/namespaces/{ns}/identities",
    status_code=201,
    responses={201: {"model": IdentityItem}, 200: {"model": IdentityItem, "description": "It was registered already"}},
    openapi_extra=json_body(IdentityRequest),
)
async def register_identity(
    request: Request, ns: str, caller: Annotated[Caller, Depends(guard.REGISTER)], service: Service
) -> Response:
    """Let an identity publish in a namespace."""
    asked = await read_model(request, IdentityRequest)
    if not asked.public.isascii():
        raise FormatError("not a public identity", expected="two PEM blocks PUBLIC KEY, EC half first")
    public = PublicIdentity.from_pem(asked.public.encode("ascii"))
    is_new = await run_in_threadpool(service.identities.register, caller, Namespace(ns), public)
    return json_answer({"id": public.id, "public": asked.public}, created(is_new))
