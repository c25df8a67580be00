# SPDX-License-Identifier: Apache-2.0
"""Uploads: opened, sent in parts (through here, or straight to the store), completed.

What an object store is asked for waits in the threads of those who wait for receipts: there are many, and a store that
does not answer keeps no other request from its thread. Presigned URLs are credentials: they stand in answers to their
holder (``no-store``, as every answer here is) and in no log.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant
from pq_registry.format.strict_json import decode_base64
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, created, json_answer, json_body
from pq_registry.server.bodies import OCTETS_TYPE, pieces, read_model, read_nothing, require_type, required_length
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Waiting
from pq_registry.server.models import (
    DigestAnswer,
    SignedPartsAnswer,
    SignedPartsRequest,
    UploadAnswer,
    UploadRequest,
    VerifyingAnswer,
)
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.completion import Verifying
from pq_registry.service.transfer import WantedPart
from pq_registry.service.uploads import UploadState

SHARDS_HEADER = "Pqreg-Shards"
_SHARDS_BYTES = 64 * limits.KIB
router = APIRouter(responses=PROBLEMS)
_BYTES = {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_UPLOAD = "/v1/repos/{ns}/{name}/uploads/{id}"


@router.post(
    "/v1/repos/{ns}/{name}/uploads",
    status_code=201,
    responses={201: {"model": UploadAnswer}, 200: {"model": UploadAnswer, "description": "An upload resumed"}},
    openapi_extra=json_body(UploadRequest),
)
async def open_upload(
    request: Request,
    ns: str,
    name: str,
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Start an upload, or resume the caller's unfinished upload of the same digest."""
    asked = await read_model(request, UploadRequest)
    digest = Digest.parse(asked.digest)
    await run_in_threadpool(service.quotas.admit_upload, caller, repository_name(ns, name), digest, asked.size)
    state, is_new = await waiting.run(
        service.uploads.open,
        caller,
        repository_name(ns, name),
        digest=digest,
        size=asked.size,
        slice_size=asked.slice_size,
    )
    return json_answer(_upload(state), created(is_new))


@router.get(_UPLOAD, responses={200: {"model": UploadAnswer}})
async def show_upload(
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Which parts of an upload are there."""
    state = await waiting.run(service.uploads.show, caller, repository_name(ns, name), id)
    return json_answer(_upload(state))


@router.put(_UPLOAD + "/parts/{n}", status_code=204, openapi_extra={"requestBody": {"required": True, **_BYTES}})
async def put_part(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    n: int,
    caller: Annotated[Caller, Depends(guard.PUBLISH_PART)],
    service: Service,
) -> Response:
    """Send one part; ``Pqreg-Shards`` holds the BLAKE3 digests of its slices, concatenated, in base64."""
    require_type(request, OCTETS_TYPE)
    length = required_length(request)
    given = request.headers.getlist(SHARDS_HEADER)
    if len(given) != 1:
        raise FormatError(f"the request has {len(given)} {SHARDS_HEADER} headers", expected="one")
    shards = decode_base64(given[0], what=SHARDS_HEADER, limit=_SHARDS_BYTES)
    writer = await run_in_threadpool(
        service.uploads.begin_part, caller, repository_name(ns, name), id, number=n, length=length, shards=shards
    )
    if writer is not None:
        try:
            async for piece in pieces(request, length, writer.plan.slice_size):
                await run_in_threadpool(writer.write, piece)
            await run_in_threadpool(writer.finish)
        finally:
            await run_in_threadpool(writer.close)
    return Response(status_code=204)


@router.post(
    _UPLOAD + "/urls", responses={200: {"model": SignedPartsAnswer}}, openapi_extra=json_body(SignedPartsRequest)
)
async def sign_parts(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Requests by which parts go straight to the store, each good for one part and a few minutes."""
    asked = await read_model(request, SignedPartsRequest)
    wanted = [WantedPart(part.number, Digest.parse(part.sha256)) for part in asked.parts]
    signed = await waiting.run(service.uploads.sign, caller, repository_name(ns, name), id, wanted)
    parts = [
        {
            "number": part.number,
            "url": request_.url,
            "headers": dict(request_.headers),
            "expires": format_instant(request_.expires),
        }
        for part, request_ in zip(wanted, signed, strict=True)
    ]
    return json_answer({"parts": parts})


@router.post(
    _UPLOAD + "/complete",
    status_code=201,
    responses={
        201: {"model": DigestAnswer},
        202: {"model": VerifyingAnswer, "description": "The whole is still being read; ask again"},
    },
)
async def complete_upload(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Verify the whole and make the blob known; whoever gets 202 asks again."""
    await read_nothing(request)
    outcome = await waiting.run(service.uploads.complete, caller, repository_name(ns, name), id)
    if isinstance(outcome, Verifying):
        content = {"verified": outcome.verified, "size": outcome.size}
        return json_answer(content, 202, {"Retry-After": str(limits.VERIFYING_POLL_SECONDS)})
    return json_answer({"digest": str(outcome)}, 201)


@router.delete(_UPLOAD, status_code=204)
async def abort_upload(
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Give an upload up."""
    await waiting.run(service.uploads.abort, caller, repository_name(ns, name), id)
    return Response(status_code=204)


def _upload(state: UploadState) -> dict[str, object]:
    return {
        "id": state.id,
        "part_size": state.part_size,
        "parts": list(state.parts),
        "transfer": state.transfer,
    }
