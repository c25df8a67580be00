# SPDX-License-Identifier: Apache-2.0
"""Reading a blob from end to end, to find out what it is: the digest of the whole and those of its slices."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import BlobReader

_Read = Future[tuple[bytes, bytes]]


def verify_blob(reader: BlobReader, *, slice_size: int, watch: Callable[[int], None]) -> tuple[Digest, bytes]:
    """The SHA-256 of a whole blob, and the concatenated BLAKE3 digests of its slices, read once.

    Ranges are read ahead, and their slices hashed, in a thread of its own: SHA-256 then waits for neither the store nor
    the other digests. It is one thread, because stores answer best who reads on where the last range ended.

    Args:
        reader: the blob.
        slice_size: the length of a slice.
        watch: told how many bytes have been hashed, after each range; may raise to end it.

    Raises:
        StorageError: if the store fails.
    """
    step = slice_size * max(1, limits.PART_BYTES // slice_size)

    def fetch(offset: int) -> tuple[bytes, bytes]:
        data = reader.read(offset, min(step, reader.size - offset))
        return data, shard_digests(data, slice_size)

    sha256 = hashlib.sha256()
    shards: list[bytes] = []
    ahead: deque[_Read] = deque()
    done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as worker:
        try:
            for offset in range(0, reader.size, step):
                ahead.append(worker.submit(fetch, offset))
                if len(ahead) > limits.VERIFYING_AHEAD:
                    done += _take(ahead, sha256, shards)
                    watch(done)
            while ahead:
                done += _take(ahead, sha256, shards)
                watch(done)
        finally:
            worker.shutdown(wait=False, cancel_futures=True)
    return Digest(sha256.hexdigest()), b"".join(shards)


def _take(ahead: deque[_Read], sha256: hashlib._Hash, shards: list[bytes]) -> int:
    data, digests = ahead.popleft().result()
    sha256.update(data)
    shards.append(digests)
    return len(data)
