# SPDX-License-Identifier: Apache-2.0
"""Verified shards, for any number of downloads: from the cache, the disk or the network, each brought once.

Whoever wants a shard gets a future. While anybody holds it, everybody else who wants that shard gets the same one, so
several readers of one file cost one fetch. What nobody holds any more when its turn comes is not fetched, so clients
that come and go leave no work behind. In a thread of its own each shard is

1. read: by itself from the cache or a directory, together with its neighbours by one request from a network;
2. checked against its signed BLAKE3 digest, while it is in the core's cache (step 8 of DESIGN §5);
3. kept in the cache, if it came by a network;
4. decrypted, if it is sealed and this node may open it.

Only then has its future a result. One that is wrong is dropped from the cache and read anew; read from where it comes
from, it is read ``limits.ATTEMPTS`` times in all, and a second time from a directory. What stays wrong is remembered
for a while as the error it is.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pq_registry import limits
from pq_registry.client.crew import cores
from pq_registry.crypto.shards import check_shard
from pq_registry.errors import ConnectionFailed, ContentError, PqregError, ShardMismatch
from pq_registry.format.manifest import FileEntry
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.metrics import Counts
from pq_registry.gateway.served import Served, ServedFile

Shard = Future[memoryview]
_Key = tuple[bytes, str, str, int]


class Shards:
    """Brings shards. Made and closed by the gateway; ``want`` is for any thread."""

    def __init__(
        self,
        cache: ShardCache | None,
        *,
        connections: int,
        counts: Counts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._counts = counts
        self._clock = clock
        self._lock = threading.Lock()
        self._shared: weakref.WeakValueDictionary[_Key, Shard] = weakref.WeakValueDictionary()
        self._refused: OrderedDict[_Key, tuple[PqregError, float]] = OrderedDict()
        self._network = ThreadPoolExecutor(connections, "pqreg-fetch")
        self._disk = ThreadPoolExecutor(min(cores(), limits.GATEWAY_CHECKERS), "pqreg-check")

    def want(self, served: Served, file: ServedFile, first: int, end: int) -> list[Shard]:
        """The shards ``first`` to before ``end`` of a file, in order: what the client is sent, verified."""
        wanted: list[Shard] = []
        run: list[_Wanted] = []
        with self._lock:
            for index in range(first, end):
                one, shard, known = self._one(served, file, index)
                wanted.append(shard)
                if known:
                    self._fetch(run)
                    run = []
                elif not served.remote or (self._cache is not None and self._cache.has(one.entry, index)):
                    self._disk.submit(self._from_disk, one)
                else:
                    run.append(one)
            self._fetch(run)
        return wanted

    def close(self) -> None:
        """End. Whoever still waits hears of it; the sources were aborted before."""
        for pool in (self._network, self._disk):
            pool.shutdown(wait=True, cancel_futures=True)
        for shard in list(self._shared.values()):
            if not shard.done():
                shard.set_exception(ConnectionFailed("the gateway was stopped"))

    def _one(self, served: Served, file: ServedFile, index: int) -> tuple[_Wanted, Shard, bool]:
        """A shard, its future, and whether it is on its way, there, or refused already."""
        entry = file.stored
        assert entry is not None
        # By the digest it is checked against, and by no other: a manifest may claim another one's SHA-256, which nobody
        # checks here. What a shard opens to is the release's own.
        where = "" if file.sealer is None else str(served.release)
        key = (entry.shard_digest(index), where, file.path, index)
        shard = self._shared.get(key)
        if shard is not None and not (shard.done() and shard.exception() is not None):
            return _Wanted(served, file, entry, index, shard, key), shard, True
        shard = Future()
        shard.set_running_or_notify_cancel()  # a reader that goes away takes nothing from the others
        refused = self._refused.get(key)
        if refused is not None and self._clock() < refused[1]:
            shard.set_exception(refused[0])
            return _Wanted(served, file, entry, index, shard, key), shard, True
        self._shared[key] = shard
        return _Wanted(served, file, entry, index, shard, key), shard, False

    def _fetch(self, run: Sequence[_Wanted]) -> None:
        if run:
            self._network.submit(self._from_network, run)

    # -- in threads ----------------------------------------------------------------------------------------------------

    def _from_disk(self, one: _Wanted) -> None:
        """Read a shard by itself: from the cache, or from the directory the release is in."""
        if not one.hold():
            return
        with one.reporting(self._failed):
            view = one.memory()
            if one.served.remote:
                self._from_cache(one, view)
                return
            for last in (False, True):
                one.served.source.read_into(one.entry, one.offset, view)
                if self._right(one, view, last=last):
                    self._deliver(one, view, "directory")
                    return

    def _from_cache(self, one: _Wanted, view: memoryview) -> None:
        assert self._cache is not None
        if self._cache.read(one.entry, one.index, view) and self._right(one, view, last=False):
            self._deliver(one, view, "cache")
            return
        self._cache.drop(one.entry, one.index)
        self._fetch([one])

    def _from_network(self, run: Sequence[_Wanted]) -> None:
        """Fetch neighbouring shards by one request, each delivered as soon as it is complete and right."""
        held = [one.hold() for one in run]
        if not any(held):
            return
        waiting = list(run)
        wrong: list[_Wanted] = []
        try:
            base = run[0].offset
            view = _memory(run[-1].offset + run[-1].length - base)
            got = 0

            def arrived(more: int) -> None:
                nonlocal got
                got += more
                while waiting and waiting[0].offset + waiting[0].length - base <= got:
                    one = waiting.pop(0)
                    begin = one.offset - base
                    with one.reporting(self._failed):
                        part = view[begin : begin + one.length]
                        if self._right(one, part, last=False):
                            self._deliver(one, part, "network")
                        else:
                            wrong.append(one)

            run[0].served.source.read_into(run[0].entry, base, view, arrived=arrived)
        except BaseException as error:  # noqa: BLE001  handed to whoever waits
            for one in (*wrong, *waiting):
                self._failed(one, error)
            return
        for one in wrong:
            self._again(one)

    def _again(self, one: _Wanted) -> None:
        """Fetch one wrong shard by itself until it is right."""
        with one.reporting(self._failed):
            for attempt in range(2, limits.ATTEMPTS + 1):
                view = one.memory()
                one.served.source.read_into(one.entry, one.offset, view)
                if self._right(one, view, last=attempt == limits.ATTEMPTS):
                    self._deliver(one, view, "network")
                    return

    def _right(self, one: _Wanted, view: memoryview, *, last: bool) -> bool:
        """8. Whether a shard is what was signed; raises ShardMismatch if not and this was the ``last`` try."""
        try:
            check_shard(one.entry.shard_digest(one.index), view, path=one.entry.path, index=one.index)
        except ShardMismatch:
            self._counts.wrong()
            if last:
                raise
            return False
        return True

    def _deliver(self, one: _Wanted, stored: memoryview, origin: str) -> None:
        if origin == "network" and self._cache is not None:
            self._cache.write(one.entry, one.index, stored)
        plain = stored
        if one.file.sealer is not None:
            plain = _memory(one.file.plain_range(one.index)[1])
            one.file.sealer.unseal_into(one.index, stored, plain)
        self._counts.brought(origin, len(stored))
        one.shard.set_result(plain.toreadonly())

    def _failed(self, one: _Wanted, error: BaseException) -> None:
        # Without its traceback, which would keep the bytes that failed their check.
        error = error.with_traceback(None)
        if isinstance(error, ContentError):
            with self._lock:
                self._refused[one.key] = (error, self._clock() + limits.GATEWAY_REFUSED_SECONDS)
                while len(self._refused) > limits.GATEWAY_REFUSED_SHARDS:
                    self._refused.popitem(last=False)
        if not one.shard.done():
            one.shard.set_exception(error)


class _Wanted:
    """One shard, where it stands in the stored file, and the future it is for."""

    __slots__ = ("_waiting", "entry", "file", "index", "key", "length", "offset", "served", "shard")

    def __init__(self, served: Served, file: ServedFile, entry: FileEntry, index: int, shard: Shard, key: _Key) -> None:
        self.served, self.file, self.entry, self.index, self.key = served, file, entry, index, key
        self.offset, self.length = entry.shard_range(index)
        self._waiting = weakref.ref(shard)
        self.shard: Shard

    def hold(self) -> bool:
        """Take its future, now that it is its turn. Whether anybody has waited for it."""
        waiting = self._waiting()
        self.shard = Future() if waiting is None else waiting
        return waiting is not None

    def memory(self) -> memoryview:
        """Memory for it."""
        return _memory(self.length)

    def reporting(self, failed: Callable[[_Wanted, BaseException], None]) -> _Reporting:
        """A context whose errors go to whoever waits for the shard."""
        return _Reporting(self, failed)


class _Reporting:
    def __init__(self, one: _Wanted, failed: Callable[[_Wanted, BaseException], None]) -> None:
        self._one = one
        self._failed = failed

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is not None:
            self._failed(self._one, error)
        return True


def _memory(size: int) -> memoryview:
    # Not a bytearray: zeros that are overwritten at once cost as much as hashing.
    return np.empty(size, np.uint8).data
