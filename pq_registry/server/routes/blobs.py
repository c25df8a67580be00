# SPDX-License-Identifier: Apache-2.0
"""Blobs: their bytes, and which of them are missing.

Where weights are kept in an object store, a GET is answered by a redirect to it, whose URL is good for one blob and a
few minutes. It is a credential, so it stands in no log, and caches may keep it for its holder only, and no longer.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, etags, json_answer, json_body
from pq_registry.server.bodies import OCTETS_TYPE, read_model
from pq_registry.server.download import BlobResponse
from pq_registry.server.guard import Service
from pq_registry.server.models import MissingAnswer, MissingRequest
from pq_registry.server.ranges import ByteRange, parse_range
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry
from pq_registry.service.resolve import LocatedBlob

router = APIRouter(responses=PROBLEMS)
_BYTES = {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_REDIRECT: dict[int | str, dict[str, Any]] = {307: {"description": "The bytes are in the store that Location names"}}


async def _blob(request: Request, hex_digits: str, caller: Caller, service: Registry) -> Response:
    digest = Digest(hex_digits)
    reader = await run_in_threadpool(service.resolving.obtain_blob, caller, digest)
    etag = f'"{digest.hex}"'
    audience = "public" if caller.public_read else "private"
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"{audience}, max-age=31536000, immutable",
        "Content-Type": OCTETS_TYPE,
    }
    if isinstance(reader, LocatedBlob):
        if etag in etags(request):
            return Response(status_code=304, headers=headers)
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(reader.size)})
        return _elsewhere(reader)
    try:
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


def _elsewhere(blob: LocatedBlob) -> Response:
    """A redirect to the store, for as long as its URL is good and a little less."""
    left = int((blob.request.expires - utc_now()).total_seconds()) - limits.LOCATION_MARGIN_SECONDS
    headers = {
        "Location": blob.request.url,
        "Cache-Control": f"private, max-age={max(left, 0)}",
        "Referrer-Policy": "no-referrer",
    }
    return Response(status_code=307, headers=headers)


@router.get("/v1/blobs/sha256/{hex}", responses={200: _BYTES, 206: _BYTES, **_REDIRECT})
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
