# SPDX-License-Identifier: Apache-2.0
"""Reading request bodies: bounded in bytes and in time, of exactly the declared type, and parsed strictly.

A body may pause for ``limits.BODY_SILENCE_SECONDS`` and must otherwise arrive at ``limits.BODY_BYTES_PER_SECOND`` on
average; only the time spent waiting for the client counts. There is no multipart parser and no decompression here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.strict_json import parse_strict

JSON_TYPE = "application/json"
OCTETS_TYPE = "application/octet-stream"
Model = TypeVar("Model", bound=BaseModel)


def require_type(request: Request, expected: str) -> None:
    """Refuse a body of another type, and any content coding.

    Raises:
        HTTPException: 415 if type or coding differ.
    """
    given = request.headers.getlist("content-type")
    kind, _, parameters = (given[0] if given else "").partition(";")
    if len(given) != 1 or kind.strip().lower() != expected or parameters.strip().lower() not in ("", "charset=utf-8"):
        raise HTTPException(415, f"expected Content-Type {expected}, found {', '.join(given)[:100] or 'none'}")
    if "content-encoding" in request.headers:
        raise HTTPException(415, "expected no Content-Encoding")


def required_length(request: Request) -> int:
    """The announced length of the body.

    Raises:
        HTTPException: 411 if none is announced.
    """
    length = request.headers.get("content-length")
    if length is None:
        raise HTTPException(411, "expected a Content-Length")
    return int(length)


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        HTTPException: 413 if it is longer than ``limit``, 408 if it is too slow.
        ClientDisconnect: if the client goes away.
    """
    loop = asyncio.get_running_loop()
    received = 0
    waited = 0.0
    more = True
    while more:
        patience = limits.BODY_SILENCE_SECONDS + received / limits.BODY_BYTES_PER_SECOND - waited
        started = loop.time()
        try:
            async with asyncio.timeout(min(limits.BODY_SILENCE_SECONDS, patience)):
                message = await request.receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not arrive in time") from None
        waited += loop.time() - started
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        received += len(chunk)
        if received > limit:
            raise HTTPException(413, f"expected at most {limit} bytes")
        more = message.get("more_body", False)
        if chunk:
            yield chunk


async def pieces(request: Request, length: int, size: int) -> AsyncIterator[memoryview]:
    """A body of exactly ``length`` bytes in pieces of ``size`` (the last may be shorter).

    Every piece is a view of the same buffer: done with one before asking for the next. One timer per piece, not per
    chunk, because this is the path of the weights.

    Raises:
        HTTPException: 400 if the body has another length, 408 if it is too slow.
        ClientDisconnect: if the client goes away.
    """
    buffer = memoryview(bytearray(min(size, length)))
    rest = memoryview(b"")
    for start in range(0, length, size):
        piece = buffer[: min(size, length - start)]
        try:
            async with asyncio.timeout(limits.BODY_SILENCE_SECONDS + size / limits.BODY_BYTES_PER_SECOND):
                filled = 0
                while filled < len(piece):
                    if not rest:
                        rest = await _next_chunk(request)
                    taken = min(len(rest), len(piece) - filled)
                    piece[filled : filled + taken] = rest[:taken]
                    rest = rest[taken:]
                    filled += taken
        except TimeoutError:
            raise HTTPException(408, "the body did not arrive in time") from None
        yield piece


async def _next_chunk(request: Request) -> memoryview:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            return memoryview(message["body"])
        if not message.get("more_body", False):
            raise HTTPException(400, "the body is shorter than announced")


async def read_bytes(request: Request, *, kind: str, limit: int) -> bytes:
    """The whole body, which must be of type ``kind``.

    Raises:
        HTTPException: if it is of another type, too large or too slow.
    """
    require_type(request, kind)
    body = bytearray()
    async for chunk in chunks(request, limit):
        body += chunk
    return bytes(body)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The whole body as strict JSON of the form ``model``; unknown fields are refused.

    Raises:
        HTTPException: if it is of another type, too large or too slow.
        FormatError: if it is not strict JSON, or not of that form.
    """
    data = await read_bytes(request, kind=JSON_TYPE, limit=limits.REQUEST_BODY_BYTES)
    value = parse_strict(data, what="the request's body", limit=limits.REQUEST_BODY_BYTES)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Only place and rule: the value may be a secret.
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100] or "the whole"
        raise FormatError("the request's body is malformed", expected=first["msg"][:200], found=f"at {where}") from None


async def read_nothing(request: Request) -> None:
    """A body that says nothing: none at all, or an empty JSON object.

    Raises:
        HTTPException: if it is of another type, too large or too slow.
        FormatError: if it says something.
    """
    if "transfer-encoding" not in request.headers and request.headers.get("content-length", "0") == "0":
        return
    data = await read_bytes(request, kind=JSON_TYPE, limit=limits.REQUEST_BODY_BYTES)
    if parse_strict(data, what="the request's body", limit=limits.REQUEST_BODY_BYTES) != {}:
        raise FormatError("the request's body is malformed", expected="nothing, or {}")
