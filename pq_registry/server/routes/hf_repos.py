# SPDX-License-Identifier: Apache-2.0
"""Repositories as the Hub's clients make, move and remove them, and what else they ask before they write.

A repository that has a release stays, under its name: both are in signed and logged statements. Who may read it is the
business of tokens and of the operator, not of a switch of the repository's.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import AccessDenied, AlreadyExists, FormatError, PqregError
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.guard import Service
from pq_registry.server.hub import reading
from pq_registry.server.hub.address import model_url
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.routes.hf_upload import JSON_BODY, UNSIGNED
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller, Permission, denied
from pq_registry.service.cards import read_header
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS, route_class=HubRoute)


@router.post("/api/repos/create", openapi_extra=JSON_BODY)
async def create_repository(
    request: Request,
    caller: Annotated[Caller, Depends(guard.PUBLISH_SOMEWHERE)],
    service: Service,
) -> Response:
    """Make a repository, which has an empty draft then."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    name = _named(caller, asked)
    _require_model(asked)
    content = {"url": model_url(request, name), "name": str(name)}
    try:
        await run_in_threadpool(_create, service, caller, name)
    except AlreadyExists as error:
        # Clients that do not mind read the URL from this very answer.
        return json_answer({**content, "error": error.message}, 409, {"X-Error-Message": error.message})
    return json_answer(content, headers=UNSIGNED)


@router.delete("/api/repos/delete", openapi_extra=JSON_BODY)
async def delete_repository(
    request: Request,
    caller: Annotated[Caller, Depends(guard.PUBLISH_SOMEWHERE)],
    service: Service,
) -> Response:
    """Remove a repository that never had a release, with its drafts."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    name = _named(caller, asked)
    _require_model(asked)
    await run_in_threadpool(_delete, service, caller, name)
    return json_answer({})


@router.post("/api/repos/move", openapi_extra=JSON_BODY)
async def move_repository(
    request: Request,
    _caller: Annotated[Caller, Depends(guard.PUBLISH_SOMEWHERE)],
) -> Response:
    """Refused: a repository's name is part of what is signed."""
    await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    raise FormatError(
        "repositories are not renamed here: the name is part of every signature",
        hint="push it under its new name; pqreg push sends no file again that is there",
    )


@router.put("/api/models/{ns}/{name}/settings", openapi_extra=JSON_BODY)
async def change_settings(
    request: Request,
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
) -> Response:
    """Settings a repository could have on the Hub: those that say what is so already are fine, others refused."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    await run_in_threadpool(service.revisions.refs, caller, repository_name(ns, name))  # which has to be there
    visible = "public" if caller.public_read else "private"
    wanted = asked.get("visibility")
    private = asked.get("private")
    if wanted not in (None, visible) or private not in (None, not caller.public_read):
        raise AccessDenied(
            f"repositories of this registry are {visible}", hint="the registry's operator decides that (public_read)"
        )
    if asked.get("gated") not in (None, False):
        raise FormatError(
            "there is no gate to be asked at here", expected="gated false",
            hint="give readers a token of the namespace (pqreg token create), or seal the model (pqreg push --seal)",
        )  # fmt: skip
    return json_answer({})


@router.post("/api/validate-yaml", openapi_extra=JSON_BODY)
async def validate_card(
    request: Request,
    _caller: Annotated[Caller, Depends(guard.PUBLISH_SOMEWHERE)],
) -> Response:
    """Whether the header of a model card can be read."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    content = reading.text(asked, "content")
    errors: list[dict[str, Any]] = []
    try:
        await run_in_threadpool(read_header, content)
    except PqregError as error:
        errors.append({"message": str(error)})
    return json_answer({"errors": errors, "warnings": []})


def _create(service: Registry, caller: Caller, name: RepositoryName) -> None:
    reading.require_drafts(service)
    service.quotas.admit_repository(name)
    service.drafts.create(caller, name, exist_ok=False)


def _delete(service: Registry, caller: Caller, name: RepositoryName) -> None:
    service.xorbs.discard(service.drafts.delete_repository(caller, name))


def _named(caller: Caller, asked: reading.Object) -> RepositoryName:
    """The repository a body names; without an organization it is in the caller's own namespace, if there is one only.

    Raises:
        AccessDenied: if the caller may not publish there.
        FormatError: if it names none.
    """
    name = reading.text(asked, "name")
    organization = reading.text(asked, "organization", default="")
    if not organization:
        head, slash, rest = name.partition("/")
        organization, name = (head, rest) if slash else (_own_namespace(caller), name)
    found = RepositoryName(Namespace(organization), name)
    if not caller.may(Permission.PUBLISH, found.namespace.key):
        raise denied(Permission.PUBLISH, f"namespace {found.namespace}")
    return found


def _own_namespace(caller: Caller) -> str:
    namespaces = None if caller.rights is None else caller.rights.namespaces
    if namespaces is None or len(namespaces) != 1:
        raise FormatError("the repository needs a namespace", expected="namespace/name")
    return next(iter(namespaces))


def _require_model(asked: reading.Object) -> None:
    kind = reading.text(asked, "type", default="model")
    if kind != "model":
        raise FormatError("this registry has models only", expected="type model", found=repr(kind)[:80])
