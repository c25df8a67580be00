# SPDX-License-Identifier: Apache-2.0
"""Commits, branches and tags of the Hub's clients: what they write is a draft, which nobody has signed.

Signed tags never move by this: a commit to ``main`` while that is signed goes to the draft ``draft``. Every answer says
``X-Pqreg-Signed: false``. See docs/spec/hub.md.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import DraftMoved, FormatError, NotFound
from pq_registry.format.name import RepositoryName
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Waiting
from pq_registry.server.hub import reading
from pq_registry.server.hub.address import model_url
from pq_registry.server.hub.ndjson import NDJSON_TYPE, CommitBody, lines
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.hub.turns import turn
from pq_registry.server.routes.hf_upload import JSON_BODY, UNSIGNED
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import MAIN, Branch, Commit, Pointer
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS, route_class=HubRoute)
_LINES = {"requestBody": {"required": True, "content": {NDJSON_TYPE: {"schema": {"type": "string"}}}}}
_MODEL = "/api/models/{ns}/{name}"


@router.post(f"{_MODEL}/commit/{{rev}}", openapi_extra=_LINES)
async def commit(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.PUSH_COMMIT)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Put a commit on a draft; small files are in it, others were sent before."""
    if request.query_params.get("create_pr"):
        raise FormatError("pull requests are not known here", hint="commit to a branch of another name")
    repository, branch = repository_name(ns, name), Branch.parse(rev)
    reading.require_drafts(service)
    body = CommitBody()
    async with turn(request):
        batch: dict[str, bytes] = {}
        async for line in lines(request):
            file = await run_in_threadpool(body.take, line)
            if file is not None:
                batch[file[0]] = file[1]
                if len(batch) >= limits.HUB_COMMIT_BATCH_FILES or _size(batch) >= limits.HUB_COMMIT_BATCH_BYTES:
                    await waiting.run(_take, service, caller, repository, body, batch)
        body.end()
        await waiting.run(_take, service, caller, repository, body, batch)
    made = await run_in_threadpool(_commit, service, caller, repository, branch, body)
    url = f"{model_url(request, repository)}/commit/{made}"
    content = {"success": True, "commitOid": str(made), "commitUrl": url, "hookOutput": "", "pullRequestUrl": None}
    return json_answer(content, headers=UNSIGNED)


@router.post(f"{_MODEL}/branch/{{branch}}", openapi_extra=JSON_BODY)
async def create_branch(
    request: Request,
    ns: str,
    name: str,
    branch: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
) -> Response:
    """Let a branch begin at a revision of this repository, or with nothing."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES, empty=True)
    start = reading.text(asked, "startingPoint", default=MAIN)
    repository = repository_name(ns, name)
    found = await run_in_threadpool(service.revisions.find, caller, repository, start)
    await run_in_threadpool(service.drafts.branch, caller, repository, Branch.parse(branch), found.commit)
    return json_answer({}, headers=UNSIGNED)


@router.delete(f"{_MODEL}/branch/{{branch}}")
async def delete_branch(
    ns: str,
    name: str,
    branch: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
) -> Response:
    """Remove a branch; never main, and never what is signed."""
    await run_in_threadpool(
        service.drafts.delete_name, caller, repository_name(ns, name), Branch.parse(branch), kind=Pointer.BRANCH
    )
    return json_answer({}, headers=UNSIGNED)


@router.post(f"{_MODEL}/tag/{{tag}}", openapi_extra=JSON_BODY)
async def create_tag(
    request: Request,
    ns: str,
    name: str,
    tag: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
) -> Response:
    """Set an unsigned tag, which the body names, at the revision that the path names."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    new, repository = Branch(reading.text(asked, "tag")), repository_name(ns, name)
    found = await run_in_threadpool(service.revisions.find, caller, repository, tag)
    await run_in_threadpool(service.drafts.tag, caller, repository, new, found.commit)
    return json_answer({}, headers=UNSIGNED)


@router.delete(f"{_MODEL}/tag/{{tag}}")
async def delete_tag(
    ns: str,
    name: str,
    tag: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
) -> Response:
    """Remove an unsigned tag."""
    await run_in_threadpool(
        service.drafts.delete_name, caller, repository_name(ns, name), Branch.parse(tag), kind=Pointer.TAG
    )
    return json_answer({}, headers=UNSIGNED)


@router.post(f"{_MODEL}/super-squash/{{rev}}", openapi_extra=JSON_BODY)
async def squash(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
) -> Response:
    """Put the files of a branch into one commit without history."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES, empty=True)
    branch = Branch.parse(rev)
    title, _, message = reading.text(asked, "message", default="").partition("\n")
    title = title.strip() or f"Super-squash branch '{branch}'"
    made = await run_in_threadpool(
        service.drafts.squash, caller, repository_name(ns, name), branch, title=title, message=message.strip()
    )
    return json_answer({"commitOid": str(made)}, headers=UNSIGNED)


def _size(batch: dict[str, bytes]) -> int:
    return sum(map(len, batch.values()))


def _take(
    service: Registry, caller: Caller, repository: RepositoryName, body: CommitBody, batch: dict[str, bytes]
) -> None:
    """Take in the files of a batch, which is empty then."""
    digests = service.small_files.take(caller, repository, list(batch.values()))
    for (path, data), digest in zip(batch.items(), digests, strict=True):
        body.put_file(path, digest, len(data))
    batch.clear()


def _commit(service: Registry, caller: Caller, repository: RepositoryName, branch: Branch, body: CommitBody) -> Commit:
    # What was sent before the commit was promised to stay when it was asked for; that may be a while ago.
    service.intake.present(caller, [digest for digest, _ in body.put.values()])
    return service.drafts.commit(
        caller, repository, branch, body.changes(),
        title=body.title[: limits.DRAFT_TITLE_CHARS], message=body.message[: limits.DRAFT_MESSAGE_CHARS],
        parent=_parent(service, caller, repository, branch, body.parent),
    )  # fmt: skip


def _parent(
    service: Registry, caller: Caller, repository: RepositoryName, branch: Branch, given: str | None
) -> Commit | None:
    """The commit that a client worked on, which may be given by its beginning."""
    if given is None:
        return None
    try:
        head = (
            service.drafts.head(caller, repository, branch)
            or service.revisions.find(caller, repository, str(branch)).commit
        )
    except NotFound:
        head = None
    if head is None or not head.value.startswith(given):
        raise DraftMoved(
            f"the draft {branch} of {repository} is not at the commit this one was made for",
            expected=given, found=head or "nothing", hint="read the draft again and repeat the commit",
        )  # fmt: skip
    return head
