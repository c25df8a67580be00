# SPDX-License-Identifier: Apache-2.0
"""D9: clients of a gateway that leave at once, or take nothing, cost it little."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.format.digest import Digest
from pq_registry.format.files import FileEntry
from pq_registry.gateway.metrics import Counts
from pq_registry.gateway.served import ServedFile
from pq_registry.gateway.shards import Shards
from pq_registry.gateway.stream import Downloads, ShardResponse
from pq_registry.server.ranges import ByteRange
from tests.samples import file_entry

SHARD = limits.SHARD_BYTES
CONTENT = bytes(4 * SHARD)


class Source:
    """Zeros; the first request waits."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.offsets: list[int] = []

    def read_into(
        self, _file: FileEntry, offset: int, view: memoryview, *, arrived: Callable[[int], None] = ignored
    ) -> None:
        self.offsets.append(offset)
        self.begun.set()
        assert self.go.wait(60)
        view[:] = bytes(len(view))
        arrived(len(view))


def test_what_nobody_waits_for_any_more_is_not_fetched() -> None:
    entry = file_entry("a.bin", CONTENT)
    file = ServedFile(path="a.bin", size=entry.size, sha256=entry.sha256, stored=entry)
    source = Source()
    served: Any = SimpleNamespace(remote=True, source=source, release=entry.sha256)
    with closing(Shards(None, connections=1, counts=Counts())) as shards:
        try:
            held = shards.want(served, file, 0, 1)
            assert source.begun.wait(60)
            for _ in range(100):
                shards.want(served, file, 1, 3)  # a client that leaves
            last = shards.want(served, file, 3, 4)
        finally:
            source.go.set()
        assert [len(shard.result(60)) for shard in (*held, *last)] == [SHARD, SHARD]
    assert source.offsets == [0, 3 * SHARD]


class Endless:
    """Shards that are there at once; counts those that are held."""

    def want(self, _served: object, _file: object, first: int, end: int) -> list[Any]:
        from concurrent.futures import Future

        found: list[Any] = []
        for _ in range(first, end):
            shard: Future[memoryview] = Future()
            shard.set_result(memoryview(bytes(1)))
            found.append(shard)
        return found


def test_clients_that_take_nothing_share_the_memory_there_is() -> None:
    """Each has all of what one may have when it comes, and keeps it."""
    size = 1000 * SHARD
    file = ServedFile(path="a.bin", size=size, sha256=Digest.of(b""))
    served: Any = SimpleNamespace(
        release=Digest.of(b""), verified=SimpleNamespace(release=SimpleNamespace(name="acme/minilm"))
    )
    most = 0

    async def run() -> int:
        nonlocal most
        downloads = Downloads(Endless(), Counts())  # type: ignore[arg-type]
        full = asyncio.Event()

        async def receive() -> Any:
            await full.wait()
            return {"type": "http.disconnect"}

        async def client() -> None:
            nonlocal most
            sent = 0

            async def send(_message: Any) -> None:
                # Takes enough for its window to be all that one may have, then nothing.
                nonlocal sent, most
                sent += 1
                most = max(most, downloads.held)
                if sent > limits.GATEWAY_WINDOW_SHARDS:
                    stalled.release()
                    await full.wait()

            part = ByteRange(0, size, size)
            response = ShardResponse(
                downloads,
                served,
                file,
                part,
                status=200,
                headers={},
                refusal=lambda error: error,  # type: ignore[arg-type,return-value]
            )
            await response({}, receive, send)

        stalled = asyncio.Semaphore(0)
        clients = []
        for _ in range(limits.GATEWAY_STREAMS):
            clients.append(asyncio.create_task(client()))
            await stalled.acquire()
        full.set()
        await asyncio.gather(*clients)
        return downloads.held

    assert asyncio.run(run()) == 0, "and nothing when they are gone"
    assert most <= limits.GATEWAY_MEMORY_SHARDS + limits.GATEWAY_STREAMS
