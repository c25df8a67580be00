# SPDX-License-Identifier: Apache-2.0
"""E5: an immutable key must never get other bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pq_registry.errors import StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.local import LocalBlobStore
from tests.server_harness import RunningRegistry


def test_other_bytes_under_a_known_digest_are_refused(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = Digest.of(b"content")
    (tmp_path / "one").write_bytes(b"content")
    store.adopt(tmp_path / "one", digest)
    for other in (b"c0ntent", b"content and more", b""):
        (tmp_path / "two").write_bytes(other)
        with pytest.raises(StorageError, match="other bytes"):
            store.adopt(tmp_path / "two", digest)
        assert (tmp_path / "two").read_bytes() == other
        assert store.path(digest).read_bytes() == b"content"
    (tmp_path / "same").write_bytes(b"content")
    store.adopt(tmp_path / "same", digest)
    assert not (tmp_path / "same").exists()


def test_blobs_are_read_only_files(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    (tmp_path / "one").write_bytes(b"content")
    store.adopt(tmp_path / "one", Digest.of(b"content"))
    mode = store.path(Digest.of(b"content")).stat().st_mode
    assert not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH)


@pytest.mark.directory_only("every upload has an object of its own")
def test_a_damaged_blob_is_not_overwritten_by_an_upload(registry: RunningRegistry) -> None:
    digest = registry.upload(b"the right bytes")
    path = registry.data / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.chmod(0o600)
    path.write_bytes(b"the wrong bytes")
    other = registry.as_role("publisher", "lab")
    opened = other.post(
        "/v1/repos/lab/x/uploads", {"digest": str(digest), "size": 15, "slice_size": 2097152}
    ).json["id"]  # fmt: skip
    from pq_registry.crypto.shards import shard_digests
    from pq_registry.format.strict_json import encode_base64

    shards = encode_base64(shard_digests(b"the right bytes"))
    headers = {"Content-Type": "application/octet-stream", "Pqreg-Shards": shards}
    part = other.request("PUT", f"/v1/repos/lab/x/uploads/{opened}/parts/0", b"the right bytes", headers)
    assert part.status == 204
    answer = other.post(f"/v1/repos/lab/x/uploads/{opened}/complete")
    assert answer.code == "storage-error"
    assert path.read_bytes() == b"the wrong bytes"
    assert other.get(f"/v1/blobs/sha256/{digest.hex}").status == 404


def test_an_acknowledged_part_never_changes(registry: RunningRegistry) -> None:
    upload = registry.open_upload(b"acknowledged").json["id"]
    assert registry.put_part(upload, 0, b"acknowledged").status == 204
    assert registry.put_part(upload, 0, b"ACKNOWLEDGED").code == "conflict"
    assert registry.put_part(upload, 0, b"acknowledged").status == 204
    assert registry.complete(upload).status == 201


def test_a_link_among_the_blobs_is_not_followed(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    digest = Digest.of(b"secret")
    (tmp_path / "secret").write_bytes(b"secret")
    store.path(digest).parent.mkdir()
    os.symlink(tmp_path / "secret", store.path(digest))
    with pytest.raises(StorageError):
        store.open(StoredBlob(digest))
