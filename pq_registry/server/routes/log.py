# SPDX-License-Identifier: Apache-2.0
"""The log for its readers (C2SP tlog-tiles), and the search through it.

Below ``/log/`` are files: what is answered is what lies in the log's directory, and a file server or CDN in front of
that directory can take over. Tiles never change, so they may be kept for ever; the checkpoint and the keys are asked
for again each time. Entry bundles are sent compressed to whoever takes that; hashes do not get any shorter.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import FormatError, NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.tile import ENTRIES, TilePath
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, etags, json_answer, log_entry
from pq_registry.server.bodies import OCTETS_TYPE
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing
from pq_registry.server.models import LogEntryPage
from pq_registry.server.routes.repositories import PageSize
from pq_registry.service.access import Caller
from pq_registry.service.logsearch import Wanted

router = APIRouter(responses=PROBLEMS)
TEXT_TYPE = "text/plain; charset=utf-8"
_FOR_EVER = "max-age=31536000, immutable"
_BRIEFLY = "max-age=1"
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
Reader = Annotated[Caller, Depends(guard.READ_LOG_FILE)]


@router.head("/log/checkpoint", responses=_TEXT)
@router.get("/log/checkpoint", responses=_TEXT)
async def checkpoint(request: Request, _caller: Reader, service: Service) -> Response:
    """The newest published checkpoint, with its cosignatures."""
    data = await run_in_threadpool(service.ledger.tiles.read, "checkpoint")
    return _file(request, data, kind=TEXT_TYPE, keep=_BRIEFLY)


@router.head("/log/vkey", responses=_TEXT)
@router.get("/log/vkey", responses=_TEXT)
async def vkey(request: Request, _caller: Reader, service: Service) -> Response:
    """The log's verifier keys, a line each: Ed25519 and ML-DSA-44."""
    data = await run_in_threadpool(service.ledger.tiles.read, "vkey")
    return _file(request, data, kind=TEXT_TYPE, keep=_BRIEFLY)


@router.head("/log/tile/{path:path}", responses=_BYTES)
@router.get("/log/tile/{path:path}", responses=_BYTES)
async def tile(request: Request, path: str, _caller: Reader, service: Service) -> Response:
    """A tile of hashes, or a bundle of entries."""
    try:
        found = TilePath.parse(f"tile/{path}")
    except FormatError as error:
        raise NotFound("the log has no such file", expected=error.expected) from None
    data = await run_in_threadpool(service.ledger.tiles.read, found.path)
    compressed = found.level == ENTRIES and _takes_gzip(request)
    if compressed:
        data = await run_in_threadpool(_compressed, data)
    return _file(request, data, kind=OCTETS_TYPE, keep=_FOR_EVER, varies=found.level == ENTRIES, compressed=compressed)


@router.get("/v1/log/entries", responses={200: {"model": LogEntryPage}})
async def find_entries(
    caller: Annotated[Caller, Depends(guard.READ_LOG)],
    service: Service,
    browsing: Browsing,
    *,
    name: str | None = None,
    identity: str | None = None,
    digest: str | None = None,
    kind: str | None = None,
    after: Annotated[int | None, Query(ge=0, le=limits.TREE_SIZE)] = None,
    limit: PageSize = 100,
) -> Response:
    """Leaves by what their statements are about, newest first; all that is given must agree."""
    wanted = Wanted(name=name, identity=identity, digest=None if digest is None else Digest(digest), kind=kind)
    items, following = await browsing.run(service.search.entries, caller, wanted, after=after, limit=limit)
    return json_answer(
        {"items": [log_entry(item) for item in items], "next": None if following is None else str(following)}
    )


def _file(
    request: Request, data: bytes, *, kind: str, keep: str, varies: bool = False, compressed: bool = False
) -> Response:
    """A file, or 304 for whoever has it. The entity tag is that of the bytes as they are sent."""
    audience = "private" if request.app.state.config.private_log else "public"
    headers = {"ETag": f'"{Digest.of(data).hex}"', "Cache-Control": f"{audience}, {keep}"}
    if varies:
        headers["Vary"] = "Accept-Encoding"
    if headers["ETag"] in etags(request):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(data, headers={**headers, "Content-Type": kind})


def _takes_gzip(request: Request) -> bool:
    """Whether the reader takes gzip (RFC 9110 §12.5.3); one that gives it the weight 0 does not."""
    for item in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False


@lru_cache(limits.LOG_COMPRESSED_BUNDLES)
def _compressed(data: bytes) -> bytes:
    # Only ever compressed here: nothing that comes from outside is unpacked. 31 is a gzip container, without a time.
    compressor = zlib.compressobj(level=6, wbits=31)
    return compressor.compress(data) + compressor.flush()
