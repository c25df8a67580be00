# SPDX-License-Identifier: Apache-2.0
"""What a provider supports is found out by trying: the probe, Object Lock and versions, encryption at rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import urllib3

from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3 import parts
from pq_registry.storage.s3.blobs import S3BlobStore, name_of
from pq_registry.storage.s3.probe import probe
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.tiles import S3Tiles
from tests.engines import Bucket

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HTTP = urllib3.PoolManager(retries=False)


@pytest.fixture
def store(s3_bucket: Bucket) -> Iterator[S3BlobStore]:
    session = S3Session(s3_bucket.config())
    yield S3BlobStore(session)
    session.close()


def fresh(data: bytes) -> StoredBlob:
    return StoredBlob(Digest.of(data), new_upload_id())


@pytest.fixture
def locked(s3_bucket: Bucket) -> Iterator[S3BlobStore]:
    """A store whose bucket has versions and Object Lock, with a day's retention."""
    name = f"locked-{new_upload_id()[:12]}"
    s3_bucket.server.make_bucket(name, object_lock=True)
    session = S3Session(s3_bucket.config(storage=f"s3://{name}", s3_retention_days="1"))
    yield S3BlobStore(session)
    session.close()


def test_a_release_is_held_by_object_lock(locked: S3BlobStore) -> None:
    able = locked.session.capabilities
    assert able.object_lock and able.versioning
    blob, free = fresh(b"weights"), fresh(b"draft")
    locked.put(blob, b"weights")
    locked.put(free, b"draft")
    now = datetime.now(UTC)
    locked.retain(blob, now)
    locked.retain(blob, now)
    held = locked.session.call("get_object_retention", "look at", name_of(blob))["Retention"]
    assert held["Mode"] == "GOVERNANCE"
    assert abs(held["RetainUntilDate"] - (now + timedelta(days=1))) < timedelta(minutes=1)
    with pytest.raises(StorageError, match="Object Lock"):
        locked.remove(blob)
    assert hash_blob(locked, blob) == blob.digest, "not even hidden by a delete marker"
    locked.remove(free)
    with pytest.raises(NotFound):
        locked.retain(free, now)


def test_removal_leaves_no_version_behind(locked: S3BlobStore) -> None:
    blob = fresh(b"draft")
    for _ in range(3):
        locked.put(blob, b"draft")
    locked.session.call("delete_object", "hide", name_of(blob))
    assert locked.size(blob) is None
    locked.remove(blob)
    key = locked.session.config.prefix + name_of(blob)
    left = locked.session.call("list_object_versions", "list", "", Prefix=key)
    assert not left.get("Versions") and not left.get("DeleteMarkers")


def test_the_probe_says_what_it_saw_and_leaves_nothing(
    store: S3BlobStore, locked: S3BlobStore, s3_bucket: Bucket
) -> None:
    found, findings = probe(store.session)
    assert replace(found, skew_seconds=0) == replace(store.session.capabilities, skew_seconds=0)
    assert {each.name: each.works for each in findings} == {
        "write and list": True,
        "ranges": True,
        "clock": True,
        "presigned reads": True,
        "presigned parts": True,
        "no reads without a signature": True,
        "parts bound to their digest": True,
        "parts bound to their length": True,
        "conditional writes (If-None-Match)": True,
        "conditional replacement (If-Match)": True,
        "conditional completion of uploads": True,
        "versioning": False,
        "Object Lock": False,
    }
    assert not any(each.fatal for each in findings)
    assert s3_bucket.keys() == [] and list(parts.under_way(store.session, "")) == []
    _, with_lock = probe(locked.session)
    assert {each.name: each.required for each in with_lock if each.works is False} == {}
    left = locked.session.call("list_object_versions", "list", "", Prefix="probe/")
    assert not left.get("Versions") and not left.get("DeleteMarkers")


def test_a_public_endpoint_out_of_reach_is_no_failure(s3_bucket: Bucket) -> None:
    session = S3Session(s3_bucket.config(s3_public_endpoint="http://127.0.0.1:1"))
    _, findings = probe(session)
    unknown = {each.name: each.detail for each in findings if each.works is None}
    assert set(unknown) == {"presigned reads", "presigned parts"}
    assert not any(each.fatal for each in findings)
    session.close()


def test_objects_are_encrypted_by_the_provider(s3_bucket: Bucket) -> None:
    session = S3Session(s3_bucket.config(s3_encryption="AES256"))
    store, tiles = S3BlobStore(session), S3Tiles(session)
    small, large = fresh(b"content"), fresh(b"x" * 3)
    store.put(small, b"content")
    tiles.write([("tile/0/000", b"t")])
    storage_id = store.begin(large)
    request = store.sign_part(large, storage_id, 0, sha256=large.digest, length=3, now=NOW)
    assert HTTP.request("PUT", request.url, headers=request.headers, body=b"xxx").status == 200
    store.finish(large, storage_id, store.parts(large, storage_id))
    for name in (name_of(small), name_of(large), "log/tile/0/000"):
        assert session.call("head_object", "look at", name)["ServerSideEncryption"] == "AES256"
    assert hash_blob(store, small) == small.digest and hash_blob(store, large) == large.digest
    session.close()
    HTTP.clear()
