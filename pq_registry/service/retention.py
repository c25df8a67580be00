# SPDX-License-Identifier: Apache-2.0
"""Holding the blobs of a release in an object store for as long as the settings say (Object Lock).

Before a release is recorded: one that the store cannot hold is refused, so that every release there is, is held. Blobs
held for a release that was then not committed stay for that time; nobody refers to them, and gc removes them after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.storage.blobs import BlobStore, DirectUploads, StoredBlob


def retain_blobs(store: BlobStore, blobs: Sequence[StoredBlob], now: datetime) -> None:
    """Hold every one of ``blobs``; nothing in a directory, or without settings that say so.

    Raises:
        StorageError: if the store fails, knows no Object Lock, or has lost a blob.
    """
    if not isinstance(store, DirectUploads):
        return
    held: DirectUploads = store

    def retain(some: Sequence[StoredBlob]) -> None:
        for blob in some:
            try:
                held.retain(blob, now)
            except NotFound:
                raise StorageError(f"the storage lost {blob}", hint="run pqreg fsck") from None

    tasks = min(limits.RETAINING_TASKS, len(blobs))
    with ThreadPoolExecutor(max(tasks, 1), thread_name_prefix="retain") as workers:
        list(workers.map(retain, [blobs[start::tasks] for start in range(tasks)]))
