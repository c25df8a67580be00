# SPDX-License-Identifier: Apache-2.0
"""Blobs and their uploads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import decode_base64
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, created, etags, json_answer, json_body
from pq_registry.server.bodies import OCTETS_TYPE, pieces, read_model, read_nothing, require_type, required_length
from pq_registry.server.download import BlobResponse
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Heavy
from pq_registry.server.models import DigestAnswer, MissingAnswer, MissingRequest, UploadAnswer, UploadRequest
from pq_registry.server.ranges import ByteRange, parse_range
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry
from pq_registry.service.uploads import UploadState

SHARDS_HEADER = "Pqreg-Shards"
_SHARDS_BYTES = 64 * limits.KIB
router = APIRouter(responses=PROBLEMS)
_BYTES = {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_UPLOAD = "/v1/repos/{ns}/{name}/uploads/{id}"


async def _blob(request: Request, hex_digits: str, caller: Caller, service: Registry) -> Response:
    digest = Digest(hex_digits)
    reader = await run_in_threadpool(service.resolving.open_blob, caller, digest)
    try:
        etag = f'"{digest.hex}"'
        audience = "public" if caller.public_read else "private"
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": f"{audience}, max-age=31536000, immutable",
            "Content-Type": OCTETS_TYPE,
        }
        if etag in etags(request):
            reader.close()
            return Response(status_code=304, headers=headers)
        wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
        part = parse_range(wanted, reader.size)
        if part is None:
            return BlobResponse(reader, ByteRange(0, reader.size, reader.size), status=200, headers=headers)
        headers["Content-Range"] = part.content_range
        return BlobResponse(reader, part, status=206, headers=headers)
    except HTTPException:
        reader.close()
        raise


@router.get("/v1/blobs/sha256/{hex}", responses={200: _BYTES, 206: _BYTES})
async def get_blob(
    request: Request,
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)],
    service: Service,
) -> Response:
    """The bytes of a blob, or one range of them."""
    return await _blob(request, hex, caller, service)


@router.head("/v1/blobs/sha256/{hex}")
async def head_blob(
    request: Request,
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.READ_SOMEWHERE)],
    service: Service,
) -> Response:
    """The size of a blob."""
    return await _blob(request, hex, caller, service)


@router.post(
    "/v1/repos/{ns}/{name}/missing", responses={200: {"model": MissingAnswer}}, openapi_extra=json_body(MissingRequest)
)
async def find_missing(
    request: Request, ns: str, name: str, caller: Annotated[Caller, Depends(guard.QUERY)], service: Service
) -> Response:
    """Which blobs the caller would have to upload before a release here can refer to them."""
    repository_name(ns, name)
    asked = await read_model(request, MissingRequest)
    digests = [Digest.parse(text) for text in asked.digests]
    absent = await run_in_threadpool(service.resolving.missing, caller, digests, slice_size=asked.slice_size)
    return json_answer({"missing": [str(digest) for digest in absent]})


@router.post(
    "/v1/repos/{ns}/{name}/uploads",
    status_code=201,
    responses={201: {"model": UploadAnswer}, 200: {"model": UploadAnswer, "description": "An upload resumed"}},
    openapi_extra=json_body(UploadRequest),
)
async def open_upload(
    request: Request, ns: str, name: str, caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)], service: Service
) -> Response:
    """Start an upload, or resume the caller's unfinished upload of the same digest."""
    asked = await read_model(request, UploadRequest)
    digest = Digest.parse(asked.digest)
    await run_in_threadpool(service.quotas.admit_upload, caller, repository_name(ns, name), digest, asked.size)
    state, is_new = await run_in_threadpool(
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
) -> Response:
    """Which parts of an upload are there."""
    state = await run_in_threadpool(service.uploads.show, caller, repository_name(ns, name), id)
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


@router.post(_UPLOAD + "/complete", status_code=201, responses={201: {"model": DigestAnswer}})
async def complete_upload(
    request: Request,
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH_JSON)],
    service: Service,
    heavy: Heavy,
) -> Response:
    """Verify the whole and make the blob known."""
    await read_nothing(request)
    digest = await heavy.run(service.uploads.complete, caller, repository_name(ns, name), id)
    return json_answer({"digest": str(digest)}, 201)


@router.delete(_UPLOAD, status_code=204)
async def abort_upload(
    ns: str,
    name: str,
    id: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
) -> Response:
    """Give an upload up."""
    await run_in_threadpool(service.uploads.abort, caller, repository_name(ns, name), id)
    return Response(status_code=204)


def _upload(state: UploadState) -> dict[str, object]:
    return {"id": state.id, "part_size": state.part_size, "parts": list(state.parts)}
