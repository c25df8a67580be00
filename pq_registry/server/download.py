# SPDX-License-Identifier: Apache-2.0
"""Sending a blob: large reads in worker threads, one chunk in memory, an end when nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pq_registry import limits
from pq_registry.server.ranges import ByteRange
from pq_registry.storage.blobs import BlobReader


class BlobResponse(Response):
    """Part of a blob, or only its headers. Closes ``reader`` in any case."""

    def __init__(self, reader: BlobReader, part: ByteRange, *, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(None, status_code=status, headers=dict(headers))
        self.headers["Content-Length"] = str(part.length)
        self._reader = reader
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] == "HEAD" or self._part.length == 0:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            gone = asyncio.create_task(_disconnected(receive))
            try:
                await self._send_body(send, gone)
            finally:
                gone.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await gone
        finally:
            self._reader.close()

    async def _send_body(self, send: Send, gone: asyncio.Task[None]) -> None:
        offset, end = self._part.start, self._part.end
        while offset < end and not gone.done():
            length = min(limits.RESPONSE_CHUNK_BYTES, end - offset)
            data = await run_in_threadpool(self._reader.read, offset, length)
            offset += length
            # Waits until the transport has room again, so a client that stops reading ends here. The unfinished
            # answer makes the HTTP server close the connection.
            try:
                async with asyncio.timeout(limits.SEND_SILENCE_SECONDS):
                    await send({"type": "http.response.body", "body": data, "more_body": offset < end})
            except TimeoutError:
                return


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
