# SPDX-License-Identifier: Apache-2.0
"""How the Hub's clients send files: they ask how (preupload), then where (git LFS's batch), then send them.

Where to is a URL with a capability (``service.hub.capabilities``) in its query: the clients send neither token nor
header there. A file goes in one request, or in parts; in both cases what came before a connection broke is not needed
again, if the client asks where to once more. A file is known once its SHA-256 was verified; nothing refers to it before
a commit does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound, PqregError
from pq_registry.format.digest import Digest
from pq_registry.format.hubjson import SIGNED_HEADER
from pq_registry.format.name import RepositoryName
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.bodies import OCTETS_TYPE, pieces, required_length
from pq_registry.server.guard import CAPABILITY_PARAMETER, Service, request_subject
from pq_registry.server.heavy import Waiting
from pq_registry.server.hub import reading
from pq_registry.server.hub.address import base_url
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.hub.turns import turn
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import Branch
from pq_registry.service.registry import Registry
from pq_registry.service.uploads import UploadState

router = APIRouter(responses=PROBLEMS, route_class=HubRoute)
JSON_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}
_BYTES = {"requestBody": {"required": True, "content": {OCTETS_TYPE: {"schema": {"type": "string"}}}}}
_LFS = "/api/lfs/{ns}/{name}"
UNSIGNED = {SIGNED_HEADER: "false"}


@router.post("/api/models/{ns}/{name}/preupload/{rev}", openapi_extra=JSON_BODY)
async def preupload(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.PUSH_QUESTION)],
    service: Service,
) -> Response:
    """How files are to be sent: small ones within the commit, others before it. What is there already is said too."""
    asked = await reading.read_object(request, limits.HUB_PREUPLOAD_BYTES)
    reading.require_drafts(service)
    repository = repository_name(ns, name)
    files = reading.items(asked, "files", most=limits.HUB_PREUPLOAD_FILES)
    there = await run_in_threadpool(_there, service, caller, repository, rev)
    answers = []
    for file in files:
        path = reading.text(file, "path")
        size = reading.number(file, "size", most=limits.FILE_BYTES)
        large = size > limits.HUB_REGULAR_BYTES
        found = there.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
                **({} if found is None else {"oid": found}),
            }
        )
    return json_answer({"files": answers}, headers=UNSIGNED)


@router.post("/{ns}/{name}.git/info/lfs/objects/batch", openapi_extra=JSON_BODY)
async def batch(
    request: Request,
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Where files are to be sent, each by its SHA-256; those that are there need not be."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    if reading.text(asked, "operation") != "upload":
        raise FormatError(
            "only uploads are asked for here", expected="operation upload", hint="GET …/resolve/… downloads"
        )
    reading.require_drafts(service)
    repository = repository_name(ns, name)
    wanted = [
        (reading.oid(item), reading.number(item, "size", most=limits.FILE_BYTES))
        for item in reading.items(asked, "objects", most=limits.HUB_BATCH_OBJECTS)
    ]
    offered = asked.get("transfers")
    in_parts = isinstance(offered, list) and "multipart" in offered
    present = await run_in_threadpool(service.intake.present, caller, [digest for digest, _ in wanted])
    base = base_url(request)
    objects = []
    chosen, urls = "basic", 0
    for digest, size in dict.fromkeys(wanted):
        item: dict[str, Any] = {"oid": digest.hex, "size": size, "authenticated": True}
        parts = -(-size // limits.PART_BYTES)
        try:
            if present.get(digest) != size:
                if in_parts and size > limits.HUB_MULTIPART_BYTES and urls + parts <= limits.HUB_BATCH_URLS:
                    state = await waiting.run(service.intake.open, caller, repository, digest, size)
                    if state is not None:
                        upload = await run_in_threadpool(_in_parts, service, caller, repository, state, size, base)
                        item["actions"] = {"upload": upload}
                        chosen, urls = "multipart", urls + parts
                else:
                    await run_in_threadpool(service.quotas.admit_upload, caller, repository, digest, size)
                    path = f"/api/lfs/{repository}/objects/{digest.hex}"
                    verify = {"href": f"{base}/api/lfs/{repository}/verify"}
                    item["actions"] = {"upload": {"href": _url(service, caller, "PUT", path, base)}, "verify": verify}
        except PqregError as error:
            item = {"oid": digest.hex, "size": size, "error": {"code": error.status, "message": str(error)}}
        objects.append(item)
    return await run_in_threadpool(_lfs_answer, {"transfer": chosen, "objects": objects})


@router.put(f"{_LFS}/objects/{{hex}}", openapi_extra=_BYTES)
async def put_object(
    request: Request,
    ns: str,
    name: str,
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUSH_OBJECT)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Send a whole file, whose SHA-256 stands in the path."""
    digest, size, repository = Digest(hex), required_length(request), repository_name(ns, name)
    reading.require_drafts(service)
    async with turn(request):
        state = await waiting.run(service.intake.open, caller, repository, digest, size)
        incoming = pieces(request, size, limits.SHARD_BYTES)
        if state is None:  # clients send all of it before they look at the answer
            async for _ in incoming:
                pass
            return Response()
        for part_number in range(-(-size // state.part_size)):
            await _receive(service, caller, repository, state, part_number, incoming)
    await waiting.run(service.intake.finish, caller, repository, state.id)
    return Response()


@router.put(f"{_LFS}/uploads/{{id}}/parts/{{n}}", openapi_extra=_BYTES)
async def put_part(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    n: int,
    caller: Annotated[Caller, Depends(guard.PUSH_PART)],
    service: Service,
) -> Response:
    """Send one part of a file; parts count from 1, as the Hub's do."""
    length, repository = required_length(request), repository_name(ns, name)
    reading.require_drafts(service)
    async with turn(request):
        part = await run_in_threadpool(service.intake.part, caller, repository, id, n - 1)
        try:
            if length != part.length:
                raise FormatError(f"part {n} has another length", expected=f"{part.length} bytes", found=length)
            async for piece in pieces(request, length, part.slice_size):
                await run_in_threadpool(part.write, piece)
            await run_in_threadpool(part.finish)
        finally:
            await run_in_threadpool(part.close)
    # Clients send it back at the end and refuse to go on without one; it means nothing here.
    return Response(headers={"ETag": f'"{n}"'})


@router.post(f"{_LFS}/uploads/{{id}}", openapi_extra=JSON_BODY)
async def end_parts(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUSH_END)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """All parts have been sent: verify the whole."""
    await reading.read_object(request, limits.HUB_PREUPLOAD_BYTES, empty=True)
    reading.require_drafts(service)
    digest = await waiting.run(service.intake.finish, caller, repository_name(ns, name), id)
    return _lfs_answer({"oid": digest.hex})


@router.post(f"{_LFS}/verify", openapi_extra=JSON_BODY)
async def verify(
    request: Request,
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
) -> Response:
    """Whether a file that was sent is there."""
    asked = await reading.read_object(request, limits.REQUEST_BODY_BYTES)
    digest, size = reading.oid(asked), reading.number(asked, "size", most=limits.FILE_BYTES)
    repository = repository_name(ns, name)
    found = await run_in_threadpool(service.intake.present, caller, [digest])
    if found.get(digest) != size:
        raise NotFound(f"no file {digest} of {size} bytes has been sent to {repository}", hint="send it again")
    return _lfs_answer({"oid": digest.hex, "size": size})


# ----------------------------------------------------------------------------------------------------------------------


def _there(service: Registry, caller: Caller, repository: RepositoryName, revision: str) -> dict[str, str]:
    """SHA-256 by path of what the next commit to this revision starts from."""
    try:
        head = service.drafts.head(caller, repository, Branch.parse(revision))
        found = service.revisions.find(caller, repository, revision if head is None else str(head))
    except NotFound:
        return {}
    return {file.path: file.sha256.hex for file in found.files}


def _url(service: Registry, caller: Caller, method: str, path: str, base: str) -> str:
    held = service.capabilities.make(caller, request_subject(method, path), limits.CAPABILITY_SECONDS)
    return f"{base}{path}?{CAPABILITY_PARAMETER}={held}"


def _in_parts(
    service: Registry, caller: Caller, repository: RepositoryName, state: UploadState, size: int, base: str
) -> dict[str, Any]:
    path = f"/api/lfs/{repository}/uploads/{state.id}"
    header = {"chunk_size": str(state.part_size)}
    for number in range(1, -(-size // state.part_size) + 1):
        header[f"{number:05}"] = _url(service, caller, "PUT", f"{path}/parts/{number}", base)
    return {"href": _url(service, caller, "POST", path, base), "header": header}


async def _receive(
    service: Registry,
    caller: Caller,
    repository: RepositoryName,
    state: UploadState,
    number: int,
    incoming: AsyncIterator[memoryview],
) -> None:
    part = await run_in_threadpool(service.intake.part, caller, repository, state.id, number)
    try:
        for _ in range(-(-part.length // part.slice_size)):
            await run_in_threadpool(part.write, await anext(incoming))
        await run_in_threadpool(part.finish)
    finally:
        await run_in_threadpool(part.close)


def _lfs_answer(content: dict[str, Any]) -> Response:
    answer = json_answer(content)
    answer.headers["content-type"] = reading.LFS_TYPE
    return answer
