# SPDX-License-Identifier: Apache-2.0
"""D9: clients of a gateway that leave at once, or take nothing, cost it little."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.progress import ignored
from pq_registry.format.digest import Digest
from pq_registry.format.files import FileEntry
from pq_registry.gateway.cache import ShardCache
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


def test_a_disk_that_cannot_keep_up_costs_the_cache_and_neither_time_nor_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path / "cache", size=1 << 30)
    entries = [file_entry(f"{number}.bin", bytes([number]) * 100) for number in range(40)]
    go, put = threading.Event(), cache._put

    def slow(*args: Any, **options: Any) -> None:
        assert go.wait(60)
        put(*args, **options)

    monkeypatch.setattr(cache, "_put", slow)
    try:
        for number, entry in enumerate(entries):
            cache.write(entry, 0, memoryview(bytes([number]) * 100))  # waits for nothing
        kept = [cache.has(entry, 0) for entry in entries]
        assert kept == [number < limits.GATEWAY_WRITING_SHARDS for number in range(40)]
        assert cache.used == 100 * limits.GATEWAY_WRITING_SHARDS
        view = memoryview(bytearray(100))
        assert cache.read(entries[3], 0, view) and view == b"\3" * 100, "from memory"
    finally:
        go.set()
        cache.close()
    again = ShardCache(tmp_path / "cache", size=1 << 30)
    assert [again.has(entry, 0) for entry in entries] == kept, "closing writes what was taken"
    assert again.read(entries[3], 0, view) and view == b"\3" * 100
    again.close()


def test_what_was_evicted_before_it_was_written_is_not_kept_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(tmp_path / "cache", size=250)
    entries = [file_entry(f"{number}.bin", bytes([number]) * 100) for number in range(100)]
    go, put = threading.Event(), cache._put

    def slow(*args: Any, **options: Any) -> None:
        assert go.wait(60)
        put(*args, **options)

    monkeypatch.setattr(cache, "_put", slow)
    try:
        for number, entry in enumerate(entries):
            cache.write(entry, 0, memoryview(bytes([number]) * 100))
        last = limits.GATEWAY_WRITING_SHARDS
        kept = [cache.has(entry, 0) for entry in entries]
        assert kept == [last - 2 <= number < last for number in range(100)], "the newest, and no more than may wait"
        assert cache.used == 200
    finally:
        go.set()
        cache.close()
    assert len(list((tmp_path / "cache").glob("*.shards"))) == 2
    again = ShardCache(tmp_path / "cache", size=1 << 20)
    assert [again.has(entry, 0) for entry in entries] == kept
    again.close()
