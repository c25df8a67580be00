# SPDX-License-Identifier: Apache-2.0
"""Uploads without HTTP: resuming, taking over, restarting, sweeping."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import Conflict, FileDigestMismatch, FormatError, NotFound, ShardMismatch, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller, Rights, Role
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.service.uploads import part_size_for
from pq_registry.service.visible import SLICE_SIZES
from pq_registry.storage.local import LocalBlobStore
from tests.logsetup import log_setup
from tests.samples import REPOSITORY
from tests.server_harness import MovableClock
from tests.stack import store_config

pytestmark = pytest.mark.directory_only("how bytes come into a directory; into an object store they come another way")
PART = limits.PART_BYTES
CALLER = host_caller()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def open_registry(tmp_path: Path, clock: MovableClock) -> Iterator[Callable[[], Registry]]:
    """Opens the registry of this test, closing the one before: a restart."""
    opened: list[Registry] = []

    def reopen() -> Registry:
        if opened:
            opened.pop().close()
        opened.append(Registry.open(store_config(tmp_path / "registry"), clock, log=log_setup()))
        return opened[0]

    yield reopen
    opened.pop().close()


def start(registry: Registry, content: bytes, caller: Caller = CALLER, **changes: int) -> str:
    options = {"size": len(content), "slice_size": limits.SHARD_BYTES, **changes}
    return registry.uploads.open(caller, REPOSITORY, digest=Digest.of(content), **options)[0].id


def send(registry: Registry, upload: str, number: int, content: bytes) -> None:
    data = content[number * PART : (number + 1) * PART]
    writer = registry.uploads.begin_part(
        CALLER, REPOSITORY, upload, number=number, length=len(data), shards=shard_digests(data)
    )
    if writer is None:
        return
    try:
        for offset in range(0, len(data), limits.SHARD_BYTES):
            writer.write(data[offset : offset + limits.SHARD_BYTES])
        writer.finish()
    finally:
        writer.close()


def test_part_sizes() -> None:
    for slice_size in SLICE_SIZES:
        unit = slice_size * 8
        for size in (0, 1, unit, unit * limits.PARTS, unit * limits.PARTS + 1, limits.FILE_BYTES):
            part = part_size_for(size, slice_size)
            assert part % unit == 0
            assert -(-size // part) <= limits.PARTS
            assert part == unit or -(-size // (part - unit)) > limits.PARTS
    assert part_size_for(limits.PARTS * PART, limits.SHARD_BYTES) == PART


def test_parts_survive_a_restart_and_are_hashed_again(open_registry: Callable[[], Registry]) -> None:
    content = os.urandom(3 * PART + 12345)
    registry = open_registry()
    upload = start(registry, content)
    for number in (2, 0):
        send(registry, upload, number, content)
    registry = open_registry()
    state, is_new = registry.uploads.open(
        CALLER, REPOSITORY, digest=Digest.of(content), size=len(content), slice_size=limits.SHARD_BYTES
    )
    assert (state.id, state.parts, is_new) == (upload, (0, 2), False)
    for number in (3, 1):
        send(registry, upload, number, content)
    assert registry.uploads.show(CALLER, REPOSITORY, upload).parts == (0, 1, 2, 3)
    assert registry.uploads.complete(CALLER, REPOSITORY, upload) == Digest.of(content)
    assert registry.uploads.complete(CALLER, REPOSITORY, upload) == Digest.of(content)
    reader = registry.resolving.open_blob(CALLER, Digest.of(content))
    assert reader.read(0, reader.size) == content
    reader.close()


def test_an_empty_blob_has_no_parts(open_registry: Callable[[], Registry]) -> None:
    registry = open_registry()
    upload = start(registry, b"")
    with pytest.raises(FormatError, match="no such part"):
        send(registry, upload, 0, b"")
    assert registry.uploads.complete(CALLER, REPOSITORY, upload) == Digest.of(b"")


def test_missing_parts_are_named(open_registry: Callable[[], Registry]) -> None:
    content = bytes(2 * PART + 1)
    registry = open_registry()
    upload = start(registry, content)
    send(registry, upload, 0, content)
    with pytest.raises(Conflict, match="2 missing, the first is 1"):
        registry.uploads.complete(CALLER, REPOSITORY, upload)


def test_another_file_is_dropped(open_registry: Callable[[], Registry], tmp_path: Path) -> None:
    registry = open_registry()
    upload = start(registry, b"announced")
    send(registry, upload, 0, b"delivered")
    with pytest.raises(FileDigestMismatch):
        registry.uploads.complete(CALLER, REPOSITORY, upload)
    with pytest.raises(NotFound):
        registry.uploads.show(CALLER, REPOSITORY, upload)
    assert list((tmp_path / "registry" / "incoming").iterdir()) == []
    assert list(registry.blobs.iterate()) == []


def test_a_slice_that_is_not_the_declared_one_is_not_written(
    open_registry: Callable[[], Registry], tmp_path: Path
) -> None:
    content = os.urandom(3 * limits.SHARD_BYTES)
    registry = open_registry()
    upload = start(registry, content)
    writer = registry.uploads.begin_part(
        CALLER, REPOSITORY, upload, number=0, length=len(content), shards=shard_digests(content)
    )
    assert writer is not None
    writer.write(content[: limits.SHARD_BYTES])
    with pytest.raises(ShardMismatch, match="shard 1 of part 0"):
        writer.write(bytes(limits.SHARD_BYTES - 1) + b"x")
    with pytest.raises(FormatError):
        writer.write(b"short")
    with pytest.raises(FormatError, match="shorter"):
        writer.finish()
    writer.close()
    stored = (tmp_path / "registry" / "incoming" / upload).read_bytes()
    assert stored == content[: limits.SHARD_BYTES] + bytes(2 * limits.SHARD_BYTES)
    assert registry.uploads.show(CALLER, REPOSITORY, upload).parts == ()


@pytest.mark.parametrize(
    ("number", "length", "shards"),
    [(-1, 10, 32), (1, 10, 32), (0, 9, 32), (0, 11, 32), (0, 10, 31), (0, 10, 64), (0, 10, 0)],
)
def test_what_does_not_fit_is_refused(
    open_registry: Callable[[], Registry], number: int, length: int, shards: int
) -> None:
    registry = open_registry()
    upload = start(registry, b"0123456789")
    with pytest.raises(FormatError):
        registry.uploads.begin_part(CALLER, REPOSITORY, upload, number=number, length=length, shards=bytes(shards))


def test_a_second_sender_takes_a_part_over(open_registry: Callable[[], Registry]) -> None:
    content = b"fought over"
    registry = open_registry()
    upload = start(registry, content)

    def begin():
        return registry.uploads.begin_part(
            CALLER, REPOSITORY, upload, number=0, length=len(content), shards=shard_digests(content)
        )

    first, second = begin(), begin()
    assert first is not None
    assert second is not None
    with pytest.raises(Conflict, match="another request"):
        first.write(content)
    second.write(content)
    with pytest.raises((Conflict, FormatError)):
        first.finish()
    first.close()
    second.finish()
    second.close()
    assert begin() is None


def test_a_closed_writer_writes_nothing(open_registry: Callable[[], Registry]) -> None:
    registry = open_registry()
    upload = start(registry, b"closed")
    writer = registry.uploads.begin_part(
        CALLER, REPOSITORY, upload, number=0, length=6, shards=shard_digests(b"closed")
    )
    assert writer is not None
    writer.close()  # as when the request was cancelled while its thread was about to write
    with pytest.raises(StorageError):
        writer.write(b"closed")


def test_a_sender_of_an_aborted_upload_is_refused(open_registry: Callable[[], Registry], tmp_path: Path) -> None:
    registry = open_registry()
    upload = start(registry, b"aborted")
    writer = registry.uploads.begin_part(
        CALLER, REPOSITORY, upload, number=0, length=7, shards=shard_digests(b"aborted")
    )
    assert writer is not None
    registry.uploads.abort(CALLER, REPOSITORY, upload)
    with pytest.raises(Conflict):
        writer.write(b"aborted")
    writer.close()
    assert list((tmp_path / "registry" / "incoming").iterdir()) == []


def test_an_upload_is_its_callers_and_its_repositorys(open_registry: Callable[[], Registry]) -> None:
    registry = open_registry()
    upload = start(registry, b"mine")
    rights = Rights(role=Role.PUBLISHER, namespaces=frozenset({"acme"}))
    other = Caller(token_id="0" * 16, rights=rights, expires=None, public_read=False, request_id="x")
    assert start(registry, b"mine", other) != upload
    for caller, repository in ((other, REPOSITORY), (CALLER, RepositoryName.parse("acme/other"))):
        with pytest.raises(NotFound):
            registry.uploads.show(caller, repository, upload)
        with pytest.raises(NotFound):
            registry.uploads.complete(caller, repository, upload)
        with pytest.raises(NotFound):
            registry.uploads.abort(caller, repository, upload)


def test_resuming_with_another_size_is_refused(open_registry: Callable[[], Registry]) -> None:
    registry = open_registry()
    start(registry, b"content")
    for changes in ({"size": 8}, {"slice_size": SLICE_SIZES[1]}):
        with pytest.raises(FormatError, match="another size"):
            start(registry, b"content", CALLER, **changes)


def test_a_name_in_another_spelling_is_refused(open_registry: Callable[[], Registry]) -> None:
    registry = open_registry()
    start(registry, b"content")
    for name in ("Acme/minilm", "acme/MiniLM"):
        with pytest.raises(Conflict, match="another spelling"):
            registry.uploads.open(
                CALLER, RepositoryName.parse(name), digest=Digest.of(b"x"), size=1, slice_size=limits.SHARD_BYTES
            )


def test_idle_uploads_are_swept(open_registry: Callable[[], Registry], clock: MovableClock, tmp_path: Path) -> None:
    registry = open_registry()
    old = start(registry, b"old")
    clock.offset = timedelta(seconds=limits.UPLOAD_IDLE_SECONDS - 1)
    assert registry.uploads.sweep(CALLER, starting=False) == 0
    young = start(registry, b"young")
    clock.offset += timedelta(seconds=2)
    assert registry.uploads.sweep(CALLER, starting=False) == 1
    assert [path.name for path in (tmp_path / "registry" / "incoming").iterdir()] == [young]
    with pytest.raises(NotFound):
        registry.uploads.show(CALLER, REPOSITORY, old)


def test_a_start_sweeps_what_a_crash_left(open_registry: Callable[[], Registry], tmp_path: Path) -> None:
    root = tmp_path / "registry"
    registry = open_registry()
    kept, lost, linked = start(registry, b"kept"), start(registry, b"lost"), start(registry, b"linked")
    send(registry, linked, 0, b"linked")
    (root / "incoming" / lost).unlink()
    (root / "incoming" / ("a" * 32)).write_bytes(b"a file without a row")
    (root / ".admin.token.0123456789abcdef.tmp").write_bytes(b"half written")
    # As after a crash between linking the blob and the transaction: the bytes stand under their final name only.
    LocalBlobStore(root / "blobs").adopt(root / "incoming" / linked, Digest.of(b"linked"))
    registry = open_registry()
    assert [path.name for path in (root / "incoming").iterdir()] == [kept]
    assert not list(root.glob(".*.tmp"))
    with pytest.raises(NotFound):
        registry.uploads.show(CALLER, REPOSITORY, lost)
    assert registry.uploads.complete(CALLER, REPOSITORY, linked) == Digest.of(b"linked")


def test_both_names_of_a_blob_after_a_crash(open_registry: Callable[[], Registry], tmp_path: Path) -> None:
    registry = open_registry()
    upload = start(registry, b"both")
    send(registry, upload, 0, b"both")
    incoming = tmp_path / "registry" / "incoming" / upload
    target = registry.blobs.path(Digest.of(b"both"))  # type: ignore[attr-defined]
    target.parent.mkdir()
    os.link(incoming, target)
    registry = open_registry()
    assert registry.uploads.complete(CALLER, REPOSITORY, upload) == Digest.of(b"both")
    assert not incoming.exists()


def test_an_orphan_with_wrong_bytes_is_not_believed(open_registry: Callable[[], Registry], tmp_path: Path) -> None:
    registry = open_registry()
    upload = start(registry, b"linked")
    send(registry, upload, 0, b"linked")
    LocalBlobStore(tmp_path / "registry" / "blobs").adopt(
        tmp_path / "registry" / "incoming" / upload, Digest.of(b"linked")
    )
    path = registry.blobs.path(Digest.of(b"linked"))  # type: ignore[attr-defined]
    path.chmod(0o600)
    path.write_bytes(b"LINKED")
    with pytest.raises(FileDigestMismatch):
        registry.uploads.complete(CALLER, REPOSITORY, upload)
    with pytest.raises(NotFound):
        registry.resolving.open_blob(CALLER, Digest.of(b"linked"))
