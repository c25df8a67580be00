# SPDX-License-Identifier: Apache-2.0
"""The write side of the Xet protocol, which the Hub's clients use for large files whenever ``hf-xet`` is installed.

They ask for a token and a URL, send blocks of chunks (xorbs), and say of which chunks files are made (shards). There is
no read side: nothing here tells a client to download that way. What newer clients try first (``v2/shards``,
``xorb-grants``, ``chunks``) does not exist here, and they go on without.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from concurrent.futures import Future, wait
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, json_answer
from pq_registry.server.bodies import OCTETS_TYPE, chunks, required_length
from pq_registry.server.guard import Service, xet_subject
from pq_registry.server.heavy import Waiting
from pq_registry.server.hub import reading
from pq_registry.server.hub.address import base_url
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.hub.turns import SHARDS, turn
from pq_registry.server.routes.hf_upload import UNSIGNED
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller

router = APIRouter(responses=PROBLEMS, route_class=HubRoute)
_BYTES = {"requestBody": {"required": True, "content": {OCTETS_TYPE: {"schema": {"type": "string"}}}}}
_XET = "/api/xet/{ns}/{name}/{place}/v1"
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@router.get("/api/models/{ns}/{name}/xet-write-token/{rev}")
async def write_token(
    request: Request,
    ns: str,
    name: str,
    rev: str,  # noqa: ARG001 - clients name it; what is sent belongs to no revision yet
    caller: Annotated[Caller, Depends(guard.PUBLISH)],
    service: Service,
) -> Response:
    """Where blocks and shards go, and a capability for it that stands where a token would."""
    reading.require_drafts(service)
    repository = repository_name(ns, name)
    subject = xet_subject(str(repository.namespace), repository.name)
    token = await run_in_threadpool(service.capabilities.make, caller, subject, limits.XET_TOKEN_SECONDS)
    place = await run_in_threadpool(service.xorbs.place, repository)
    url = f"{base_url(request)}/api/xet/{repository}/{place}"
    expires = token.split(".")[1]
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": expires}
    content = {"accessToken": token, "exp": int(expires), "casUrl": url}
    return json_answer(content, headers={**UNSIGNED, **headers})


@router.post(f"{_XET}/xorbs/default/{{hash}}", openapi_extra=_BYTES)
async def put_xorb(
    request: Request,
    ns: str,
    name: str,
    place: str,  # noqa: ARG001 - only clients look at it (service.hub.xorbs)
    hash: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PUSH_XORB)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Send a block of chunks, by its hash."""
    if not _HASH.fullmatch(hash):
        raise FormatError("not the hash of a xorb", expected="64 lowercase hex digits", found=repr(hash)[:80])
    reading.require_drafts(service)
    repository, length = repository_name(ns, name), required_length(request)
    async with turn(request):
        arriving = await run_in_threadpool(service.xorbs.begin, caller, repository, hash, length)
        if arriving is None:  # clients send all of it before they look at the answer
            async for _ in chunks(request, limits.XORB_PACKED_BYTES):
                pass
            return json_answer({"was_inserted": False})
        try:
            buffer = bytearray()
            async for chunk in chunks(request, limits.XORB_PACKED_BYTES):
                buffer += chunk
                if len(buffer) >= limits.XORB_PIECE_BYTES:
                    await run_in_threadpool(arriving.write, bytes(buffer))
                    buffer.clear()
            await run_in_threadpool(arriving.write, bytes(buffer))
            is_new = await waiting.run(service.xorbs.finish, caller, repository, arriving)
        finally:
            await run_in_threadpool(arriving.close)
    return json_answer({"was_inserted": is_new})


@router.post(f"{_XET}/shards", openapi_extra=_BYTES)
async def put_shard(
    request: Request,
    ns: str,
    name: str,
    place: str,  # noqa: ARG001 - only clients look at it (service.hub.xorbs)
    caller: Annotated[Caller, Depends(guard.PUSH_SHARD)],
    service: Service,
    waiting: Waiting,
) -> Response:
    """Say of which chunks files are made; answered once they are there."""
    reading.require_drafts(service)
    async with turn(request, SHARDS):
        body = bytearray()
        async for chunk in chunks(request, limits.XET_SHARD_BYTES):
            body += chunk
        job = await run_in_threadpool(service.rebuilding.start, caller, repository_name(ns, name), bytes(body))
    if await waiting.run(_is_done, job):
        return json_answer({"result": 1})
    # Clients give up on a connection that is silent for long. White space may stand before JSON; if it goes wrong
    # after all, the answer stays unfinished, the client asks again, and is told.
    return StreamingResponse(_patiently(job), media_type="application/json")


def _is_done(job: Future[None]) -> bool:
    """Wait for a while; whether the job is done.

    Raises:
        PqregError: what it failed with.
    """
    if not wait([job], limits.XET_ANSWER_SECONDS).done:
        return False
    job.result()
    return True


async def _patiently(job: Future[None]) -> AsyncIterator[bytes]:
    following = asyncio.wrap_future(job)
    while not following.done():
        yield b" "
        await asyncio.wait([following], timeout=limits.XET_ANSWER_SECONDS)
    following.result()
    yield b'{"result":1}'
