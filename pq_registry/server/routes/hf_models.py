# SPDX-License-Identifier: Apache-2.0
"""The Hub's protocol: models, their revisions, names and histories; who is asking. docs/spec/hub.md."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import NotAuthenticated
from pq_registry.format.hubjson import SIGNED_HEADER, caller_item, commit_item, model_item, references
from pq_registry.format.hubtree import siblings
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing, Looking
from pq_registry.server.hub.answers import encode_json, hub_json, link_to, repository_of, revision_headers
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.service.access import Caller, Permission
from pq_registry.service.hub.model import Commit, Revision
from pq_registry.service.hub.models import Order, Search
from pq_registry.service.registry import Registry

router = APIRouter(route_class=HubRoute, responses=PROBLEMS)
Words = Annotated[list[str], Query()]
Text = Annotated[str | None, Query(max_length=limits.HUB_QUERY_CHARS)]


@router.get("/api/models")
async def list_models(
    request: Request,
    caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)],
    service: Service,
    browsing: Browsing,
    *,
    search: Text = None,
    author: Text = None,
    pipeline_tag: Text = None,
    sort: Text = None,
    after: Text = None,
    limit: int = limits.HUB_MODEL_ITEMS,
    full: bool = False,
    cardData: bool = False,  # noqa: N803 - the Hub's name
    filter: Words = [],  # noqa: A002, B006 - the Hub's name; FastAPI copies defaults
    expand: Words = [],  # noqa: B006 - FastAPI copies defaults
) -> Response:
    """The models the caller may read, page by page; what is searched and filtered for is what their cards say."""
    filters = [part for value in filter for part in value.split(",") if part]
    if pipeline_tag:
        filters.append(f"pipeline:{pipeline_tag}")
    wanted = Search(text=search or "", author=author, filters=tuple(filters), order=Order.of(sort))
    size = min(max(limit, 1), limits.HUB_MODEL_ITEMS)
    views, following = await browsing.run(service.models.page, caller, wanted, after=after, limit=size)
    items = [model_item(view, expand) for view in views]
    if not (full or cardData or expand):
        for item in items:
            item.pop("cardData", None)
    headers = {}
    if following is not None:
        asked = {
            "search": search, "author": author, "filter": filter, "pipeline_tag": pipeline_tag, "sort": sort,
            "limit": size, "full": full, "cardData": cardData, "expand": expand, "after": following,
        }  # fmt: skip
        headers = link_to(request, "/api/models", asked)
    return hub_json(items, headers)


@router.get("/api/models/{ns}/{name}")
async def show_model(
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    looking: Looking,
    *,
    blobs: bool = False,
    expand: Words = [],  # noqa: B006 - FastAPI copies defaults
) -> Response:
    """A model at main, or at its newest revision where nothing is called main."""
    repository = repository_of(ns, name)
    found = await looking.run(service.revisions.current, caller, repository)
    body = await looking.run(_model, service, caller, found, blobs=blobs, expand=expand)
    return hub_json(body, revision_headers(found))


@router.get("/api/models/{ns}/{name}/revision/{rev}")
async def show_revision(
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    looking: Looking,
    *,
    blobs: bool = False,
    expand: Words = [],  # noqa: B006 - FastAPI copies defaults
) -> Response:
    """A model at a revision."""
    found = await looking.run(service.revisions.find, caller, repository_of(ns, name), rev)
    body = await looking.run(_model, service, caller, found, blobs=blobs, expand=expand)
    return hub_json(body, revision_headers(found))


def _model(service: Registry, caller: Caller, found: Revision, *, blobs: bool, expand: list[str]) -> bytes:
    item = model_item(service.models.view(caller, found), expand)
    if not expand or "siblings" in expand:
        item["siblings"] = siblings(found.files, blobs=blobs)
    if not expand or "usedStorage" in expand:
        item["usedStorage"] = sum(file.size for file in found.files)
    return encode_json(item)


@router.get("/api/models/{ns}/{name}/refs")
async def list_refs(
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    include_prs: bool = False,
) -> Response:
    """The names of a model's revisions: branches and tags, signed and unsigned."""
    refs = await run_in_threadpool(service.revisions.refs, caller, repository_of(ns, name))
    branches = [(ref.name, str(ref.commit)) for ref in refs.branches]
    tags = [(ref.name, str(ref.commit)) for ref in refs.tags]
    return hub_json(references(branches, tags, pull_requests=include_prs))


@router.get("/api/models/{ns}/{name}/commits/{rev}")
async def list_commits(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    browsing: Browsing,
    *,
    after: Text = None,
    limit: int = limits.HUB_COMMIT_ITEMS,
) -> Response:
    """The commits up to a revision, newest first, page by page."""
    size = min(max(limit, 1), limits.HUB_COMMIT_ITEMS)
    commits, following = await browsing.run(
        service.revisions.history, caller, repository_of(ns, name), rev,
        after=None if after is None else Commit(after), limit=size,
    )  # fmt: skip
    headers = {SIGNED_HEADER: str(commits[0].signed).lower()} if commits else {}
    if following is not None:
        here = f"/api/models/{ns}/{name}/commits/{commits[0].id}"
        headers |= link_to(request, here, {"after": str(following), "limit": size})
    return hub_json([commit_item(commit) for commit in commits], headers)


@router.get("/api/models/{ns}/{name}/auth-check")
async def check_reading(
    ns: str, name: str, caller: Annotated[Caller, Depends(guard.READ)], service: Service
) -> Response:
    """Whether the caller may read the model: an answer, or a refusal."""
    await run_in_threadpool(service.revisions.require, caller, repository_of(ns, name))
    return hub_json({})


@router.get("/api/models/{ns}/{name}/auth-check/write")
async def check_writing(
    ns: str, name: str, caller: Annotated[Caller, Depends(guard.PUBLISH)], service: Service
) -> Response:
    """Whether the caller may write to the model: an answer, or a refusal."""
    await run_in_threadpool(service.revisions.require, caller, repository_of(ns, name))
    return hub_json({})


@router.get("/api/whoami-v2")
async def show_caller(caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)], service: Service) -> Response:
    """Whose token it is, as far as anybody knows: a role in namespaces."""
    rights = caller.rights
    if rights is None:
        raise NotAuthenticated("this needs a token", expected="Authorization: Bearer <token>", hint="set HF_TOKEN")
    names = await run_in_threadpool(service.models.namespaces, caller)
    item = caller_item(
        caller.token_id, names, writes=caller.may_somewhere(Permission.PUBLISH), everywhere=rights.namespaces is None
    )
    return hub_json(item)
