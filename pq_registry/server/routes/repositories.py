# SPDX-License-Identifier: Apache-2.0
"""Repositories, releases, tags and statements."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE as ENVELOPE_TYPE
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.strict_json import encode_base64
from pq_registry.server import guard
from pq_registry.server.answers import (
    ENVELOPE_ANSWER,
    ENVELOPE_BODY,
    PROBLEMS,
    RECORDED,
    RECORDED_ALREADY,
    envelope_answer,
    json_answer,
    release_item,
    repository_item,
    tag_item,
)
from pq_registry.server.bodies import read_bytes
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Heavy
from pq_registry.server.models import (
    ReleaseItem,
    ReleaseItems,
    RepositoryAnswer,
    RepositoryPage,
    StatementAnswer,
)
from pq_registry.server.recorded import recorded_answer
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS)
PageSize = Annotated[int, Query(ge=1, le=limits.PAGE_ITEMS)]


@router.get("/v1/repos", responses={200: {"model": RepositoryPage}})
async def list_repositories(
    caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)],
    service: Service,
    namespace: str | None = None,
    after: str | None = None,
    limit: PageSize = 100,
) -> Response:
    """The repositories the caller may read, by name."""
    items, following = await run_in_threadpool(
        service.resolving.repositories,
        caller,
        namespace=None if namespace is None else Namespace(namespace),
        after=None if after is None else RepositoryName.parse(after),
        limit=limit,
    )
    return json_answer({"items": [repository_item(item) for item in items], "next": following})


@router.get("/v1/repos/{ns}/{name}", responses={200: {"model": RepositoryAnswer}})
async def show_repository(
    ns: str,
    name: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    after: str | None = None,
    limit: PageSize = 100,
) -> Response:
    """A repository with its tags and one page of releases, newest first."""
    view = await run_in_threadpool(
        service.resolving.repository,
        repository_name(ns, name),
        after=None if after is None else Digest.parse(after),
        limit=limit,
    )
    return json_answer(
        {
            "name": view.name,
            "tags": [tag_item(item) for item in view.tags],
            "releases": [release_item(item) for item in view.releases],
            "next": view.next,
        }
    )


@router.get("/v1/repos/{ns}/{name}/releases", responses={200: {"model": ReleaseItems}})
async def find_releases(
    ns: str,
    name: str,
    content: str,
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    limit: PageSize = 100,
) -> Response:
    """The releases that hold exactly the files of a content digest; none for a repository that does not exist."""
    items = await run_in_threadpool(
        service.resolving.releases_with_content, repository_name(ns, name), Digest.parse(content), limit=limit
    )
    return json_answer({"items": [release_item(item) for item in items]})


@router.get("/v1/repos/{ns}/{name}/releases/{hex}", responses={200: {"model": ReleaseItem}})
async def show_release(
    ns: str,
    name: str,
    hex: str,  # noqa: A002 - the path parameter's published name
    _caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
) -> Response:
    """One release: where its statement and its manifest are."""
    item = await run_in_threadpool(service.resolving.release, repository_name(ns, name), Digest(hex))
    return json_answer(release_item(item))


@router.post(
    "/v1/repos/{ns}/{name}/releases",
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=ENVELOPE_BODY,
)
async def commit_release(
    request: Request,
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_RELEASE)],
    service: Service,
    heavy: Heavy,
) -> Response:
    """Commit a release, whose files have been uploaded: the exact bytes of its envelope."""
    body = await read_bytes(request, kind=ENVELOPE_TYPE, limit=limits.ENVELOPE_BYTES)
    await heavy.run(service.quotas.admit_repository, repository_name(ns, name))
    digest, is_new = await heavy.run(service.publishing.commit, caller, repository_name(ns, name), body)
    await heavy.run(service.cards.follow, repository_name(ns, name))
    return await recorded_answer(request, digest, is_new=is_new)


@router.get("/v1/repos/{ns}/{name}/tags/{tag}", responses={200: ENVELOPE_ANSWER})
async def show_tag(
    request: Request, ns: str, name: str, tag: str, _caller: Annotated[Caller, Depends(guard.READ)], service: Service
) -> Response:
    """The exact envelope of the tag's present statement, also when it withdraws the tag."""
    digest, envelope = await run_in_threadpool(service.resolving.tag_envelope, repository_name(ns, name), Tag(tag))
    return envelope_answer(request, digest, envelope)


@router.put(
    "/v1/repos/{ns}/{name}/tags/{tag}",
    status_code=201,
    responses={201: RECORDED, 200: RECORDED_ALREADY},
    openapi_extra=ENVELOPE_BODY,
)
async def put_tag(
    request: Request,
    ns: str,
    name: str,
    tag: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_TAG)],
    service: Service,
) -> Response:
    """Set or withdraw a tag: the exact envelope of the statement that follows its present one."""
    body = await read_bytes(request, kind=ENVELOPE_TYPE, limit=limits.TAG_ENVELOPE_BYTES)
    digest, is_new = await run_in_threadpool(service.tagging.put, caller, repository_name(ns, name), Tag(tag), body)
    await run_in_threadpool(service.cards.follow, repository_name(ns, name))
    return await recorded_answer(request, digest, is_new=is_new)


@router.get("/v1/statements/{hex}", responses={200: {"model": StatementAnswer}})
async def show_statement(
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)],
    service: Service,
) -> Response:
    """A statement by the digest of its payload, and its receipt."""
    digest = Digest(hex)
    envelope = await run_in_threadpool(service.resolving.statement_envelope, caller, digest)
    receipt = await run_in_threadpool(service.ledger.receipt, digest)
    return json_answer(
        {"envelope": encode_base64(envelope), "tlog_proof": None if receipt is None else encode_base64(receipt)}
    )


def repository_name(ns: str, name: str) -> RepositoryName:
    """The repository a path names.

    Raises:
        NameSyntaxError: if it names none.
    """
    return RepositoryName(Namespace(ns), name)
