# SPDX-License-Identifier: Apache-2.0
"""Sending part of a file, shard by shard, each verified before its first byte leaves.

* The head is sent as soon as the first shard is there, or after ``limits.GATEWAY_HEAD_SECONDS``. Until then what is
  wrong is told by a status.
* After that only one thing can be said: the answer is broken off, and the connection closed, before Content-Length is
  reached. No client takes that for a whole file. What was sent until then was verified.
* Shards are asked for ahead: one at first, more with each that was sent, up to what a download may hold of the
  gateway's memory. So the first byte of a slow line does not wait for bytes that are needed later.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pq_registry import limits
from pq_registry.errors import PqregError, TooManyRequests
from pq_registry.gateway.metrics import Counts
from pq_registry.gateway.served import Served, ServedFile
from pq_registry.gateway.shards import Shard, Shards
from pq_registry.server.logs import log
from pq_registry.server.ranges import ByteRange

_LOGGER = logging.getLogger(__name__)


class Downloads:
    """The downloads under way, which share the gateway's memory. For the event loop alone."""

    def __init__(self, shards: Shards, counts: Counts, *, patience: float = limits.GATEWAY_HEAD_SECONDS) -> None:
        self.shards = shards
        self.counts = counts
        self.patience = patience
        self.held = 0
        """Shards of all downloads together in memory or on their way."""
        self._active = 0

    def __enter__(self) -> None:
        if self._active >= limits.GATEWAY_STREAMS:
            busy = TooManyRequests(
                "the gateway has as many downloads as it can", found=f"{self._active} downloads", hint="try again"
            )
            busy.retry_after = limits.GATEWAY_BUSY_SECONDS
            raise busy
        self._active += 1
        self.counts.active.inc()

    def __exit__(self, *_: object) -> None:
        self._active -= 1
        self.counts.active.dec()

    @property
    def window(self) -> int:
        """Shards one download may have in memory or on their way."""
        return max(1, min(limits.GATEWAY_WINDOW_SHARDS, limits.GATEWAY_MEMORY_SHARDS // max(1, self._active)))

    @property
    def left(self) -> int:
        """Shards that may be asked for. A client that takes nothing keeps what it has, however many came after it."""
        return limits.GATEWAY_MEMORY_SHARDS - self.held


class _Ahead:
    """The shards of one download, asked for ahead of what was sent."""

    def __init__(self, downloads: Downloads, served: Served, file: ServedFile, part: ByteRange) -> None:
        self._downloads = downloads
        self._served = served
        self._file = file
        self._part = part
        self._next = part.start // limits.SHARD_BYTES
        self._end = -(-part.end // limits.SHARD_BYTES)
        self._run = 1
        self._taken = 0
        self._waiting: deque[tuple[int, Shard]] = deque()

    async def take(self) -> memoryview | None:
        """The next bytes to send, or None behind the last. Raises what the shard's future holds."""
        self._ask()
        if not self._waiting:
            return None
        index, shard = self._waiting[0]
        data = await asyncio.wrap_future(shard)
        self._waiting.popleft()
        self._downloads.held -= 1
        self._taken += 1
        self._ask()
        offset, _ = self._file.plain_range(index)
        return data[max(0, self._part.start - offset) : self._part.end - offset]

    def _ask(self) -> None:
        while self._next < self._end:
            room = min(self._downloads.window, 2 * self._taken + 1) - len(self._waiting)
            room = min(room, self._downloads.left)
            wanted = min(self._run, self._end - self._next)
            if room < wanted:
                if self._waiting:
                    return
                wanted = max(1, room)
            first, self._next = self._next, self._next + wanted
            found = self._downloads.shards.want(self._served, self._file, first, self._next)
            self._waiting.extend(enumerate(found, first))
            self._downloads.held += len(found)
            self._run = min(2 * self._run, limits.GATEWAY_RUN_SHARDS)

    def end(self) -> None:
        """Ask for nothing more, and let go of what was asked for."""
        self._next = self._end
        self._downloads.held -= len(self._waiting)
        self._waiting.clear()


class ShardResponse(Response):
    """Part of a file of a release."""

    def __init__(
        self,
        downloads: Downloads,
        served: Served,
        file: ServedFile,
        part: ByteRange,
        *,
        status: int,
        headers: Mapping[str, str],
        refusal: Callable[[PqregError], Response],
    ) -> None:
        super().__init__(None, status_code=status, headers=dict(headers))
        self.headers["Content-Length"] = str(part.length)
        self._downloads = downloads
        self._ahead = _Ahead(downloads, served, file, part)
        self._release, self._file = str(served.release), file.path
        self._refusal = refusal
        self._name = str(served.verified.release.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            with self._downloads:
                try:
                    answer = await self._while_there(receive, send)
                finally:
                    self._ahead.end()
        except PqregError as error:
            answer = self._refusal(error)
        if answer is not None:
            await answer(scope, receive, send)

    async def _while_there(self, receive: Receive, send: Send) -> Response | None:
        """Send everything as long as the client is there. Answers as ``_send``."""
        gone = asyncio.create_task(_disconnected(receive))
        sending = asyncio.create_task(self._send(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            return sending.result() if sending.done() else None
        finally:
            for task in (gone, sending):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _send(self, send: Send) -> Response | None:
        """Send everything. Answers a refusal to be sent instead, if nothing was sent yet; else breaks off."""
        begun = False
        first = asyncio.ensure_future(self._ahead.take())
        try:
            await asyncio.wait({first}, timeout=self._downloads.patience)
            if not first.done():
                begun = await self._begin(send)
            data = await first
            if not begun:
                begun = await self._begin(send)
            while data is not None:
                following = asyncio.ensure_future(self._ahead.take())
                try:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    self._downloads.counts.sent.inc(len(data))
                    data = await following
                finally:
                    await _end(following)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except PqregError as error:
            if not begun:
                return self._refusal(error)
            # The unfinished answer makes the HTTP server close the connection.
            self._downloads.counts.aborted.inc()
            log(
                _LOGGER, logging.ERROR, "broke off an answer: what comes next is not what was signed, or not to be had",
                repository=self._name, release=self._release, file=self._file, problem=error.code(), found=str(error),
            )  # fmt: skip
        finally:
            await _end(first)
        return None

    async def _begin(self, send: Send) -> bool:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        return True


async def _end(task: asyncio.Future[memoryview | None]) -> None:
    """Leave no task behind, and no exception of it unseen."""
    if not task.done():
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
