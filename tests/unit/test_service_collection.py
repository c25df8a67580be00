# SPDX-License-Identifier: Apache-2.0
"""gc: what goes and what stays, with the grace time on each; a dry run says the same and does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pq_registry import limits
from pq_registry.errors import LogHalted, StorageError, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.collection import Collected, Collection, Kind, Stock
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import DirectUploads, StoredBlob
from pq_registry.storage.catalogue.tables import AuditEventRow, BlobRow, RepositoryBlobRow
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.incoming import Incoming, new_upload_id
from pq_registry.storage.stores import Stores, opened
from tests import stack
from tests.faults.publishing import documents, publish, upload
from tests.logsetup import log_setup
from tests.samples import REPOSITORY
from tests.stored import change_blob

UNUSED = b"nobody refers to this"
DAY = timedelta(days=1)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(stack.store_config(tmp_path / "registry"), utc_now, log=log_setup())
    publish(registry)
    registry.ledger.catch_up()
    yield registry
    registry.close()


def collect(stores: Stores, after: timedelta = timedelta(0), *, dry: bool = False) -> list[Collected]:
    """A collection with a grace time of a day, ``after`` from now."""
    incoming = Incoming(stores.config.directory.incoming) if stores.config.s3 is None else None
    stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=incoming)
    return list(Collection(stock, now=utc_now() + after, grace=DAY, dry=dry).run())


@pytest.fixture
def stores(registry: Registry, tmp_path: Path) -> Iterator[Stores]:
    with opened(stack.store_config(tmp_path / "registry")) as stores:
        yield stores


def held(registry: Registry) -> int:
    return len(list(registry.blobs.iterate()))


def test_a_release_keeps_everything_forever(registry: Registry, stores: Stores) -> None:
    assert collect(stores, 1000 * DAY) == []
    assert check_registry(registry.catalogue, registry.blobs, tiles=stores.tiles) == []


def test_an_unused_blob_goes_after_its_grace(registry: Registry, stores: Stores) -> None:
    upload(registry, UNUSED)
    assert held(registry) == 3
    assert collect(stores, DAY / 2) == []
    expected = [
        Collected(Kind.REFERENCE, f"{REPOSITORY} to {Digest.of(UNUSED)}"),
        Collected(Kind.BLOB, str(Digest.of(UNUSED)), len(UNUSED)),
    ]
    assert collect(stores, 2 * DAY, dry=True) == expected
    assert held(registry) == 3
    assert collect(stores, 2 * DAY) == expected
    assert held(registry) == 2
    assert collect(stores, 2 * DAY) == []
    assert check_registry(registry.catalogue, registry.blobs) == []
    with registry.catalogue.reading() as session:
        events = session.scalars(select(AuditEventRow.action).order_by(AuditEventRow.id)).all()
    assert events[-2:] == ["reference-collected", "blob-collected"]


def test_what_a_publisher_was_told_is_there_stays(registry: Registry, stores: Stores) -> None:
    upload(registry, UNUSED)
    with registry.catalogue.writing() as session:  # uploaded long ago, and asked for now
        for row in (session.get(BlobRow, Digest.of(UNUSED).hex), *session.scalars(select(RepositoryBlobRow))):
            if isinstance(row, BlobRow):
                row.verified_at -= 30 * DAY
            elif row is not None:
                row.added -= 30 * DAY
    assert registry.resolving.missing(host_caller(), [Digest.of(UNUSED)]) == []
    assert collect(stores) == []
    assert held(registry) == 3
    assert len(collect(stores, 2 * DAY)) == 2


def test_a_repository_that_is_being_pushed_to_keeps_its_blobs(registry: Registry, stores: Stores) -> None:
    upload(registry, UNUSED)
    with registry.catalogue.writing() as session:
        for row in session.scalars(select(RepositoryBlobRow)):
            row.added -= 30 * DAY
    registry.uploads.open(
        host_caller(), REPOSITORY, digest=Digest.of(b"more"), size=4, slice_size=limits.SHARD_BYTES
    )  # fmt: skip
    assert collect(stores, DAY / 2) == []


def test_an_idle_upload_goes(registry: Registry, stores: Stores) -> None:
    state, _ = registry.uploads.open(
        host_caller(), REPOSITORY, digest=Digest.of(b"more"), size=4, slice_size=limits.SHARD_BYTES
    )
    assert collect(stores, DAY / 2) == []
    subject = f"{state.id} of {Digest.of(b'more')}"
    assert collect(stores, 2 * DAY, dry=True)[0] == Collected(Kind.UPLOAD, subject)
    assert collect(stores, 2 * DAY)[0] == Collected(Kind.UPLOAD, subject)
    assert collect(stores, 2 * DAY) == []


def test_an_object_nobody_knows_goes(registry: Registry, stores: Stores) -> None:
    copy = new_upload_id() if isinstance(stores.blobs, DirectUploads) else ""
    orphan = StoredBlob(Digest.of(b"orphan"), copy)
    stores.blobs.write(orphan, [b"orphan"], size=6)
    assert collect(stores, DAY / 2) == []
    (gone,) = collect(stores, 2 * DAY)
    assert (gone.kind, gone.size) == (Kind.OBJECT, 6)
    assert stores.blobs.size(orphan) is None


def test_a_manifest_that_cannot_be_read_stops_it(registry: Registry, stores: Stores, tmp_path: Path) -> None:
    """Nobody knows then what its release refers to."""
    upload(registry, UNUSED)
    change_blob(
        tmp_path / "registry", Digest.of(documents()[1]), lambda content: content.replace(b"weights", b"WEIGHTS")
    )
    with pytest.raises(StorageError, match="cannot be read, so nothing is known to be unused"):
        collect(stores, 30 * DAY)
    assert held(registry) == 3


def test_a_catalogue_that_is_behind_decides_nothing(registry: Registry, stores: Stores, tmp_path: Path) -> None:
    upload(registry, UNUSED)
    other = Registry.open(stack.store_config(tmp_path / "longer"), utc_now, log=log_setup())
    publish(other)
    other.ledger.catch_up()
    registry.close()
    with opened(stack.store_config(tmp_path / "longer")) as longer:
        stock = Stock(catalogue=longer.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
        with longer.catalogue.writing() as session:
            session.connection().exec_driver_sql("DELETE FROM log_state")
        with pytest.raises(LogHalted, match="not the newest of this store"):
            list(Collection(stock, now=utc_now() + 30 * DAY, grace=DAY, dry=False).run())
    other.close()


def test_a_store_that_does_not_answer_is_not_called_damaged(
    registry: Registry, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object, path: str) -> bytes:
        raise StorageError(f"cannot read {path}", found="NewConnectionError")

    monkeypatch.setattr(type(stores.tiles), "read", away)
    with pytest.raises(StorageError, match="cannot read checkpoint") as raised:
        collect(stores, 2 * DAY)
    assert "fsck" not in str(raised.value.hint)


def test_a_grace_shorter_than_a_push_is_refused(stores: Stores) -> None:
    stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
    with pytest.raises(UsageError, match="too short"):
        Collection(stock, now=utc_now(), grace=timedelta(minutes=59), dry=True)


@pytest.mark.directory_only("in an object store its name has another form")
def test_what_is_no_blob_stays_and_ends_nothing(registry: Registry, stores: Stores, tmp_path: Path) -> None:
    upload(registry, UNUSED)
    stray = tmp_path / "registry" / "blobs" / "sha256" / "00-notes.txt"
    stray.write_text("an operator's")
    stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
    collection = Collection(stock, now=utc_now() + 2 * DAY, grace=DAY, dry=False)
    assert [item.kind for item in collection.run()] == [Kind.REFERENCE, Kind.BLOB]
    assert held(registry) == 2  # the blob's file, behind the stray one, went too
    assert collection.strays == [str(stray)]
    assert stray.exists()
