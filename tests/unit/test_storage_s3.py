# SPDX-License-Identifier: Apache-2.0
"""Blobs, parts and the log's files in a real object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from pq_registry import limits
from pq_registry.errors import FileDigestMismatch, FormatError, LogHalted, NotFound, StorageError
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.digest import Digest
from pq_registry.log.merkle import EMPTY_ROOT
from pq_registry.storage.blobs import DirectUploads, SignedRequest, StoredBlob
from pq_registry.storage.hashing import hash_blob
from pq_registry.storage.incoming import new_upload_id
from pq_registry.storage.s3.blobs import S3BlobStore
from pq_registry.storage.s3.session import S3Session
from pq_registry.storage.s3.tiles import S3Tiles
from pq_registry.storage.s3.writing import part_bytes
from tests.engines import Bucket
from tests.local_log import signers
from tests.logsamples import ORIGIN, TIME

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PART = 5 * 1024 * 1024
HTTP = urllib3.PoolManager(retries=False)


@pytest.fixture
def session(s3_bucket: Bucket) -> Iterator[S3Session]:
    session = S3Session(s3_bucket.config())
    yield session
    session.close()
    HTTP.clear()


@pytest.fixture
def store(session: S3Session) -> S3BlobStore:
    return S3BlobStore(session)


@pytest.fixture
def tiles(session: S3Session) -> S3Tiles:
    return S3Tiles(session)


def fresh(data: bytes) -> StoredBlob:
    return StoredBlob(Digest.of(data), new_upload_id())


def send(request: SignedRequest, data: bytes, method: str = "PUT") -> int:
    headers = {name: value for name, value in request.headers.items() if name != "content-length"}
    return HTTP.request(method, request.url, headers=headers, body=data, redirect=False).status


def note(size: int, origin: str = ORIGIN) -> bytes:
    return signers(origin).sign(Checkpoint(origin, size, b"r" * 32 if size else EMPTY_ROOT), TIME)


def test_a_blob_has_an_object_of_its_own(store: S3BlobStore, s3_bucket: Bucket) -> None:
    assert isinstance(store, DirectUploads)
    blob = fresh(b"content")
    assert store.size(blob) is None and store.stored_at(blob) is None
    with pytest.raises(NotFound):
        store.open(blob)
    store.put(blob, b"content")
    again = fresh(b"content")
    store.put(again, b"content")
    hexes = blob.digest.hex
    assert sorted(s3_bucket.keys()) == sorted(f"sha256/{hexes[:2]}/{hexes}/{each.copy}" for each in (blob, again))
    assert sorted(map(str, store.iterate())) == [str(blob), str(blob)]
    assert store.size(blob) == 7
    at = store.stored_at(blob)
    assert at is not None and abs((datetime.now(UTC) - at).total_seconds()) < 60
    reader = store.open(blob, size=7)
    assert (reader.size, reader.read(0, 7), reader.read(3, 2), reader.read(7, 0)) == (7, b"content", b"te", b"")
    with pytest.raises(StorageError, match="shorter"):
        reader.read(3, 5)
    reader.close()
    reader.close()
    with pytest.raises(StorageError, match="damaged"):
        store.open(blob, size=8)
    store.remove(blob)
    store.remove(blob)
    assert list(store.iterate()) == [again]


def test_a_blob_of_a_directory_is_not_looked_for(store: S3BlobStore) -> None:
    with pytest.raises(StorageError, match="not in an object store"):
        store.open(StoredBlob(Digest.of(b"x")))
    with pytest.raises(StorageError, match="not in an object store"):
        store.put(StoredBlob(Digest.of(b"x"), "../../../log/checkpoint"), b"x")


def test_whatever_is_no_blob_is_reported(store: S3BlobStore, s3_bucket: Bucket) -> None:
    client = s3_bucket.client()
    client.put_object(Bucket=s3_bucket.name, Key=f"{s3_bucket.prefix}/sha256/notes.txt", Body=b"")
    client.close()
    blob = fresh(b"x")
    store.put(blob, b"x")
    strays: list[str] = []
    assert list(store.iterate(stray=strays.append)) == [blob]
    assert strays == ["sha256/notes.txt"]


def test_reading_on_shares_one_request(store: S3BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1024 * 1024)
    blob = fresh(data)
    store.put(blob, data)
    asked: list[str] = []
    fetch = store.session.http.request

    def counted(*arguments: Any, **named: Any) -> Any:
        asked.append(named["headers"]["Range"])
        return fetch(*arguments, **named)

    monkeypatch.setattr(store.session.http, "request", counted)
    monkeypatch.setattr(limits, "S3_RANGE_BYTES", 600_000)
    reader = store.open(blob)
    assert b"".join(reader.read(at, 65536) for at in range(0, len(data), 65536)) == data
    reader.close()
    assert asked == ["bytes=0-65535", "bytes=65536-665535", "bytes=665536-1048575"]
    asked.clear()
    reader = store.open(blob)
    assert (
        reader.read(500, 10) + reader.read(100, 10) + reader.read(900, 10)
        == data[500:510] + data[100:110] + data[900:910]
    )
    assert asked == ["bytes=500-509", "bytes=100-109", "bytes=900-909"]
    reader.close()


def test_parts_go_straight_to_the_store(store: S3BlobStore) -> None:
    data = os.urandom(2 * PART + 77)
    blob = fresh(data)
    storage_id = store.begin(blob)
    found = list(store.unfinished())
    assert [(each.blob, each.storage_id) for each in found] == [(blob, storage_id)]
    assert abs((datetime.now(UTC) - found[0].started).total_seconds()) < 60
    for number in (2, 0, 1):
        part = data[number * PART : (number + 1) * PART]
        request = store.sign_part(blob, storage_id, number, sha256=Digest.of(part), length=len(part), now=NOW)
        assert request.expires == NOW + timedelta(seconds=limits.S3_URL_SECONDS)
        assert send(request, part) == 200
    held = store.parts(blob, storage_id)
    assert {number: part.size for number, part in held.items()} == {0: PART, 1: PART, 2: 77}
    assert store.size(blob) is None, "nothing stands under a blob's name before it is finished"
    store.finish(blob, storage_id, held)
    store.finish(blob, storage_id, held)
    assert hash_blob(store, blob) == blob.digest
    assert list(store.unfinished()) == []
    with pytest.raises(NotFound):
        store.parts(blob, storage_id)
    location = store.locate(blob, NOW)
    answer = HTTP.request("GET", location.url, headers={"Range": f"bytes={PART}-{PART + 9}"})
    assert (answer.status, answer.data) == (206, data[PART : PART + 10])
    store.abandon(blob, storage_id)
    assert list(store.iterate()) == []


def test_a_part_is_bound_to_its_bytes_and_place(store: S3BlobStore) -> None:
    blob = fresh(b"?")
    storage_id = store.begin(blob)
    part = os.urandom(PART)
    able = store.session.capabilities
    assert able.bound_digest and able.bound_length, "SeaweedFS refuses both; the test would show nothing without"
    request = store.sign_part(blob, storage_id, 0, sha256=Digest.of(part), length=PART, now=NOW)
    assert send(request, os.urandom(PART)) in (400, 403)
    assert send(request, part + b"more") in (400, 403)
    assert send(request, part[:-1]) in (400, 403)
    moved = SignedRequest(request.url.replace("partNumber=1", "partNumber=2"), request.headers, request.expires)
    assert send(moved, part) == 403
    longer = SignedRequest(request.url.replace("Expires=900", "Expires=9000"), request.headers, request.expires)
    assert send(longer, part) == 403
    assert send(request, b"", "GET") in (403, 405)
    assert send(request, b"", "DELETE") in (403, 405)
    assert store.parts(blob, storage_id) == {}
    assert send(request, part) == 200
    store.abandon(blob, storage_id)
    store.abandon(blob, storage_id)
    assert send(request, part) in (403, 404)
    assert list(store.unfinished()) == []


def test_a_url_is_over_after_its_time(store: S3BlobStore, session: S3Session) -> None:
    blob = fresh(b"content")
    store.put(blob, b"content")
    late = S3BlobStore(S3Session(session.config, clock=lambda: datetime.now(UTC) - timedelta(seconds=901)))
    assert send(late.locate(blob, NOW), b"", "GET") == 403
    early = S3BlobStore(S3Session(session.config, clock=lambda: datetime.now(UTC) - timedelta(seconds=800)))
    assert send(early.locate(blob, NOW), b"", "GET") == 200
    late.session.close()
    early.session.close()


def test_the_service_writes_a_blob_itself(store: S3BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES", PART)
    for length in (0, 1, PART, PART + 1, 2 * PART + 7):
        data = os.urandom(length)
        blob = fresh(data)
        store.write(blob, iter([data[: length // 3], b"", data[length // 3 :]]), size=length)
        assert (store.size(blob), hash_blob(store, blob)) == (length, blob.digest)
        store.remove(blob)
    for chunks in ([b"a" * PART, b"b"], [b"a" * PART * 3], [b""]):
        with pytest.raises(FileDigestMismatch):
            store.write(fresh(b"else"), iter(chunks), size=2 * PART)
    assert list(store.iterate()) == [] and list(store.unfinished()) == []


def test_large_blobs_have_larger_parts() -> None:
    assert part_bytes(1) == limits.PART_BYTES
    assert part_bytes(limits.PART_BYTES * limits.PARTS) == limits.PART_BYTES
    more = part_bytes(limits.PART_BYTES * limits.PARTS + 1)
    assert more == limits.PART_BYTES + limits.MIB
    assert -(-limits.FILE_BYTES // part_bytes(limits.FILE_BYTES)) <= limits.PARTS


def test_tiles_are_written_where_readers_look(tiles: S3Tiles, s3_bucket: Bucket) -> None:
    assert not tiles.has_tiles()
    tiles.sweep()
    both = [("tile/entries/000.p/2", b"ab"), ("tile/0/x001/x234/067", b"cd")]
    tiles.write(both)
    tiles.write(both)
    assert tiles.has_tiles() and tiles.read("tile/0/x001/x234/067") == b"cd"
    assert sorted(tiles.names()) == ["tile/0/x001/x234/067", "tile/entries/000.p/2"]
    tiles.write_vkey(b"key\n")
    tiles.write_checkpoint(note(2))
    with pytest.raises(NotFound):
        tiles.read("tile/0/000")
    client = s3_bucket.client()
    for path, kind, keep in (
        ("tile/entries/000.p/2", "application/octet-stream", "public, max-age=31536000, immutable"),
        ("checkpoint", "text/plain; charset=utf-8", "public, max-age=2"),
        ("vkey", "text/plain; charset=utf-8", "public, max-age=2"),
    ):
        head = client.head_object(Bucket=s3_bucket.name, Key=f"{s3_bucket.prefix}/log/{path}")
        assert (head["ContentType"], head["CacheControl"]) == (kind, keep)
    client.close()


@pytest.mark.parametrize("name", ["../x", "tile/0/../../x", "/etc/passwd", "tile/64/000", "checkpoint/", "log.key", ""])
def test_nothing_but_files_of_a_log_has_a_name(tiles: S3Tiles, name: str) -> None:
    for attempt in (tiles.read, lambda path: tiles.write([(path, b"")]), lambda path: tiles.replace(path, b"")):
        with pytest.raises(FormatError):
            attempt(name)


@pytest.mark.parametrize("conditional", [True, False])
def test_a_tile_with_other_bytes_halts_the_log(
    tiles: S3Tiles, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_conditions(tiles.session, monkeypatch, conditional)
    tiles.write([("tile/0/000.p/1", b"x" * 32)])
    with pytest.raises(LogHalted, match="other bytes"):
        tiles.write([("tile/0/001", b"y" * 32), ("tile/0/000.p/1", b"z" * 32), ("tile/0/002", b"y" * 32)])
    assert tiles.read("tile/0/000.p/1") == b"x" * 32
    tiles.replace("tile/0/000.p/1", b"z" * 32)
    assert tiles.read("tile/0/000.p/1") == b"z" * 32


def test_a_full_tile_replaces_partial_ones(tiles: S3Tiles) -> None:
    tiles.write([(f"tile/0/000.p/{width}", b"x" * 32 * width) for width in (1, 3, 255)])
    tiles.write([("tile/0/001.p/1", b"x" * 32)])
    tiles.write([("tile/0/000", b"x" * 8192)])
    assert sorted(tiles.names()) == ["tile/0/000", "tile/0/001.p/1"]


@pytest.mark.parametrize("conditional", [True, False])
def test_the_checkpoint_never_shrinks(tiles: S3Tiles, conditional: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    without_conditions(tiles.session, monkeypatch, conditional)
    for size in (0, 3, 3, 7):
        newest = note(size)
        for _ in range(2):
            tiles.write_checkpoint(newest)
            assert tiles.read("checkpoint") == newest
    with pytest.raises(LogHalted, match="larger tree"):
        tiles.write_checkpoint(note(6))
    with pytest.raises(LogHalted, match="another log"):
        tiles.write_checkpoint(note(8, "other.example"))
    tiles.write_checkpoint(note(8))
    tiles.replace("checkpoint", b"damaged")
    with pytest.raises(LogHalted, match="damaged"):
        tiles.write_checkpoint(note(9))


@pytest.mark.parametrize("conditional", [True, False])
def test_another_writer_of_the_checkpoint_is_noticed(
    tiles: S3Tiles, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_conditions(tiles.session, monkeypatch, conditional)
    tiles.write_checkpoint(note(1))
    larger = note(9)
    S3Tiles(tiles.session).write_checkpoint(larger)
    with pytest.raises(LogHalted, match="larger tree"):
        tiles.write_checkpoint(note(5))
    assert tiles.read("checkpoint") == larger
    largest = note(12)
    tiles.write_checkpoint(largest)
    assert tiles.read("checkpoint") == largest


def test_a_writer_between_look_and_write_is_noticed(tiles: S3Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition refuses, and the second look decides."""
    tiles.replace("checkpoint", note(1))
    larger = note(9)
    look, others = tiles._read, [larger]

    def looking(path: str) -> tuple[bytes, str]:
        found = look(path)
        if others:
            tiles.replace("checkpoint", others.pop())
        return found

    monkeypatch.setattr(tiles, "_read", looking)
    with pytest.raises(LogHalted, match="larger tree"):
        tiles.write_checkpoint(note(5))
    assert tiles.read("checkpoint") == larger


def test_a_checkpoint_that_is_gone_is_written_again(tiles: S3Tiles) -> None:
    tiles.write_checkpoint(note(1))
    tiles.session.call("delete_object", "remove", "log/checkpoint")
    newest = note(2)
    tiles.write_checkpoint(newest)
    assert tiles.read("checkpoint") == newest


def test_an_unchallenged_writer_does_not_look_again(tiles: S3Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles.write_checkpoint(note(1))
    monkeypatch.setattr(tiles, "_read", lambda path: pytest.fail(f"{path} was looked at"))
    for size in range(2, 5):
        tiles.write_checkpoint(note(size))


def test_a_file_that_is_too_large_is_not_read(tiles: S3Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pq_registry.storage.s3.tiles._MOST_BYTES", 100)
    tiles.replace("tile/0/000", b"x" * 101)
    with pytest.raises(StorageError, match="larger than any"):
        tiles.read("tile/0/000")


def without_conditions(session: S3Session, monkeypatch: pytest.MonkeyPatch, conditional: bool) -> None:
    if not conditional:
        from dataclasses import replace

        able = replace(session.capabilities, conditional_put=False, conditional_replace=False)
        monkeypatch.setattr(session, "_capabilities", able)
