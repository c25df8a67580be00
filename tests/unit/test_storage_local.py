# SPDX-License-Identifier: Apache-2.0
"""The local blob store, the incoming directory and the lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.datadir import DataDirectory, DataLock
from pq_registry.storage.hashing import hash_blob, read_blob
from pq_registry.storage.incoming import Incoming, new_upload_id
from pq_registry.storage.local import LocalBlobStore


def stored(tmp_path: Path, content: bytes) -> tuple[LocalBlobStore, Digest]:
    store = LocalBlobStore(tmp_path / "blobs")
    (tmp_path / "temporary").write_bytes(content)
    store.adopt(tmp_path / "temporary", Digest.of(content))
    return store, Digest.of(content)


def test_a_blob_is_found_by_its_digest_only(tmp_path: Path) -> None:
    store, digest = stored(tmp_path, b"content")
    assert store.path(digest) == tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    assert not (tmp_path / "temporary").exists()
    assert store.size(StoredBlob(digest)) == 7
    assert list(store.iterate()) == [StoredBlob(digest)]
    reader = store.open(StoredBlob(digest), size=7)
    assert (reader.size, reader.read(0, 7), reader.read(3, 2)) == (7, b"content", b"te")
    reader.close()
    reader.close()
    other = Digest.of(b"other")
    assert store.size(StoredBlob(other)) is None
    with pytest.raises(NotFound):
        store.open(StoredBlob(other))


def test_a_blob_of_another_length_is_damage(tmp_path: Path) -> None:
    store, digest = stored(tmp_path, b"content")
    with pytest.raises(StorageError, match="damaged"):
        store.open(StoredBlob(digest), size=8)
    reader = store.open(StoredBlob(digest))
    with pytest.raises(StorageError, match="shorter"):
        reader.read(0, 8)
    reader.close()


def test_whatever_is_no_blob_is_reported(tmp_path: Path) -> None:
    store, digest = stored(tmp_path, b"content")
    wrong = store.path(digest).parent / ("f" * 64 if digest.hex[:2] != "ff" else "0" * 64)
    wrong.touch()
    notes = [store.path(digest).parent / "notes.txt", store.path(digest).parent.parent / "00-notes.txt"]
    for path in notes:
        path.touch()
    link = notes[1].with_name("link")
    link.symlink_to(wrong.parent)
    strays: list[str] = []
    assert list(store.iterate(stray=strays.append)) == [StoredBlob(digest)]
    assert sorted(strays) == sorted(map(str, [wrong, *notes, link]))
    assert list(store.iterate()) == [StoredBlob(digest)]


def test_hashing_and_reading(tmp_path: Path) -> None:
    content = os.urandom(limits.HASH_CHUNK_BYTES + 3)
    store, digest = stored(tmp_path, content)
    assert hash_blob(store, StoredBlob(digest)) == digest
    assert read_blob(store, StoredBlob(digest), limit=len(content)) == content
    with pytest.raises(Exception, match="too large"):
        read_blob(store, StoredBlob(digest), limit=len(content) - 1)


def test_incoming_files_are_sparse_private_and_swept(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "incoming")
    one, two = new_upload_id(), new_upload_id()
    incoming.create(one, 1 << 40)
    incoming.create(two, 0)
    status = incoming.path(one).stat()
    assert (status.st_size, status.st_mode & 0o777) == (1 << 40, 0o600)
    assert status.st_blocks * 512 < 1 << 20
    with incoming.open(one) as file:
        file.write(5, b"hello")
        file.sync()
        found = bytearray(7)
        assert file.read_into(4, memoryview(found)) == 7
        assert found == b"\0hello\0"
    with pytest.raises(StorageError):
        incoming.create(one, 5)
    assert incoming.sweep({one}) == 1
    assert incoming.exists(one)
    assert not incoming.exists(two)
    incoming.discard(one)
    incoming.discard(one)
    with pytest.raises(StorageError):
        incoming.open(one)


@pytest.mark.parametrize(
    "name", ["", ".", "../catalogue.sqlite3", "a/b", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n"]
)
def test_only_ids_of_our_making_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError):
        Incoming(tmp_path / "incoming").path(name)


def test_one_service_per_data_directory(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    lock = DataLock(directory)
    with pytest.raises(StorageError, match="another service"):
        DataLock(directory)
    lock.release()
    lock.release()
    DataLock(directory).release()
