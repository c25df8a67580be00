# SPDX-License-Identifier: Apache-2.0
"""F2 at the service's end of storage: no log, at any level, and no repr holds a signature, a key or a presigned URL."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime

import pytest

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.session import S3Session
from tests.engines import Bucket
from tests.faultproxy import Answer, FaultProxy, Reset

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_nothing_secret_is_logged(
    s3_bucket: Bucket, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("botocore", "urllib3"):  # as a process has them that never opened an object store
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(limits, "S3_ATTEMPTS", 2)
    monkeypatch.setattr(limits, "BACKOFF_SECONDS", 0.01)
    data = os.urandom(100)
    blob = StoredBlob(Digest.of(data), new_upload_id())
    with FaultProxy(s3_bucket.server.endpoint) as proxy:
        session = S3Session(s3_bucket.config(s3_endpoint=proxy.url))
        store = S3BlobStore(session)
        store.put(blob, data)
        storage_id = store.begin(blob)
        part = store.sign_part(blob, storage_id, 0, sha256=blob.digest, length=100, now=NOW)
        location = store.locate(blob, NOW)
        reader = store.open(blob)
        assert reader.read(0, 100) == data
        for fault in (Answer(503), Reset(), Answer(403, "AccessDenied")):
            proxy.inject(fault, times=1000)
            with pytest.raises(StorageError) as refused:
                reader.read(0, 100)
            caplog.records.append(logging.makeLogRecord({"msg": f"{refused.value} {refused.value.hint}"}))
            proxy.heal()
        reader.close()
        store.abandon(blob, storage_id)
        session.close()
    logging.getLogger("test").debug("something is captured")
    said = "\n".join(record.getMessage() for record in caplog.records) + caplog.text
    shown = repr((session, store, part, location, session._signer, reader))
    assert "something is captured" in said and "AccessDenied" in said
    keys = s3_bucket.server.credentials
    for secret in ("X-Amz-", "Signature", keys.secret_key, part.url, location.url):
        assert secret not in said, secret
        assert secret not in shown, secret
