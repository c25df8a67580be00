# SPDX-License-Identifier: Apache-2.0
"""An object store behind a proxy that makes faults, and what must hold of every failure there."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable

import pytest

from pq_registry.errors import StorageError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.tiles import S3Tiles
from tests.engines import Bucket
from tests.faultproxy import FaultProxy
from tests.local_log import signers
from tests.logsamples import ORIGIN, TIME

DATA = os.urandom(300_000)
SECRET = re.compile(r"X-Amz|Signature=|AWSAccessKeyId|http://|127\.0\.0\.1", re.IGNORECASE)


class Site:
    """A store behind a proxy."""

    def __init__(self, proxy: FaultProxy, bucket: Bucket) -> None:
        self.proxy = proxy
        self.bucket = bucket
        self.session = S3Session(bucket.config(s3_endpoint=proxy.url))
        self.store = S3BlobStore(self.session)
        self.tiles = S3Tiles(self.session)

    def kept(self, data: bytes = DATA) -> StoredBlob:
        blob = StoredBlob(Digest.of(data), new_upload_id())
        self.store.put(blob, data)
        return blob

    def read(self, blob: StoredBlob) -> bytes:
        reader = self.store.open(blob)
        try:
            return reader.read(0, 100_000) + reader.read(100_000, 100_000) + reader.read(200_000, 100_000)
        finally:
            reader.close()


def refused(attempt: Callable[[], object], match: str | None = None) -> StorageError:
    """The error of an attempt that must fail, which tells no secret."""
    with pytest.raises(StorageError, match=match) as caught:
        attempt()
    told = " ".join(map(str, (caught.value, caught.value.found, caught.value.hint)))
    assert not SECRET.search(told), told
    shown: traceback.TracebackException | None = traceback.TracebackException.from_exception(caught.value)
    while shown is not None:
        assert not SECRET.search(str(shown)), "a traceback would show the request"
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    return caught.value


def note(size: int) -> bytes:
    return signers(ORIGIN).sign(Checkpoint(ORIGIN, size, b"r" * 32), TIME)
