# SPDX-License-Identifier: Apache-2.0
"""Files of known SHA-256, and blocks of chunks, taken in by several instances on one object store, without HTTP."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.errors import Conflict, FileDigestMismatch, FormatError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.service.hub.intake import Intake
from pq_registry.service.hub.rebuilding import Rebuilding
from pq_registry.service.hub.smallfiles import SmallFiles
from pq_registry.service.hub.xorbs import Xorbs
from pq_registry.service.quotas import QuotaKeeper
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.blocks import Blocks
from pq_registry.storage.catalogue.tables import UploadRow
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.orphans import unknown_blobs
from tests.samples import REPOSITORY
from tests.upload_instances import BIG, CALLER, OTHER_REPOSITORY, PART, Site, site, small_parts
from tests.xetsamples import SampleXorb, sample_shard, sample_xorb, whole

__all__ = ["site", "small_parts"]  # fixtures


def intake(site: Site) -> Intake:
    return Intake(site.catalogue, site.instance(), QuotaKeeper(site.catalogue), site.clock, pause=lambda _: None)


def send(taker: Intake, upload: str, number: int, data: bytes) -> None:
    with closing(taker.part(CALLER, REPOSITORY, upload, number)) as part:
        for start in range(0, len(data), part.slice_size):
            part.write(data[start : start + part.slice_size])
        part.finish()


def test_parts_may_come_to_any_instance(site: Site) -> None:
    first, second = intake(site), intake(site)
    state = first.open(CALLER, REPOSITORY, Digest.of(BIG), len(BIG))
    assert state is not None
    send(first, state.id, 0, BIG[:PART])
    send(second, state.id, 2, BIG[2 * PART :])
    again = second.open(CALLER, REPOSITORY, Digest.of(BIG), len(BIG))
    assert again is not None and (again.id, again.parts) == (state.id, (0, 2))
    with pytest.raises(Conflict, match="missing"):
        second.finish(CALLER, REPOSITORY, state.id)
    send(second, state.id, 1, BIG[PART : 2 * PART])
    assert first.finish(CALLER, REPOSITORY, state.id) == second.finish(CALLER, REPOSITORY, state.id) == Digest.of(BIG)
    row = site.blob(BIG)
    assert row is not None and row.size == len(BIG)
    assert second.open(CALLER, REPOSITORY, Digest.of(BIG), len(BIG)) is None
    assert second.present(CALLER, [Digest.of(BIG), Digest.of(b"x")]) == {Digest.of(BIG): len(BIG)}
    with pytest.raises(FormatError, match="another size"):
        first.open(CALLER, REPOSITORY, Digest.of(BIG), 1)


def test_other_bytes_are_never_a_file(site: Site) -> None:
    taker = intake(site)
    for size in (1000, len(BIG)):
        digest = Digest.of(os.urandom(10))
        with pytest.raises(FileDigestMismatch):
            taker.copy(CALLER, REPOSITORY, digest, size, lambda _, length: bytes(length))
        assert site.catalogue and not taker.present(CALLER, [digest])
    assert not site.store.objects and not site.store.multiparts
    with pytest.raises(FormatError, match="too large"):
        taker.open(CALLER, REPOSITORY, Digest.of(b"x"), limits.HUB_FILE_BYTES + 1)


def test_a_part_must_be_whole_and_come_in_slices(site: Site) -> None:
    taker = intake(site)
    state = taker.open(CALLER, REPOSITORY, Digest.of(BIG), len(BIG))
    assert state is not None
    with closing(taker.part(CALLER, REPOSITORY, state.id, 0)) as part:
        for wrong in (b"", b"x", bytes(limits.SHARD_BYTES + 1)):
            with pytest.raises(FormatError):
                part.write(wrong)
        part.write(BIG[: limits.SHARD_BYTES])
        with pytest.raises(FormatError, match="shorter"):
            part.finish()
    for number in (-1, 3):
        with pytest.raises(FormatError, match="no such part"):
            taker.part(CALLER, REPOSITORY, state.id, number)
    older = taker.part(CALLER, REPOSITORY, state.id, 0)
    newer = taker.part(CALLER, REPOSITORY, state.id, 0)
    with closing(older), closing(newer), pytest.raises(Conflict, match="another request"):
        older.write(BIG[: limits.SHARD_BYTES])


def test_a_file_that_is_copied_goes_on_where_it_broke(site: Site) -> None:
    taker = intake(site)
    read: list[int] = []

    def breaking(offset: int, length: int) -> bytes:
        if offset >= PART:
            raise StorageError("gone")
        return BIG[offset : offset + length]

    def whole_source(offset: int, length: int) -> bytes:
        read.append(offset)
        return BIG[offset : offset + length]

    with pytest.raises(StorageError):
        taker.copy(CALLER, REPOSITORY, Digest.of(BIG), len(BIG), breaking)
    taker.copy(CALLER, REPOSITORY, Digest.of(BIG), len(BIG), whole_source)
    assert min(read) == PART, "the first part was there"
    assert taker.take(CALLER, REPOSITORY, b"small") == Digest.of(b"small")
    assert taker.take(CALLER, REPOSITORY, b"") == Digest.of(b"")
    assert taker.take(CALLER, REPOSITORY, BIG) == Digest.of(BIG)


def small_files(site: Site) -> SmallFiles:
    return SmallFiles(site.catalogue, site.store, intake(site), QuotaKeeper(site.catalogue), site.clock)


def test_small_files_are_taken_in_together(site: Site) -> None:
    taker, contents = small_files(site), [b"one", b"two", b"", b"one"]
    assert taker.take(CALLER, REPOSITORY, contents) == [Digest.of(content) for content in contents]
    assert len(site.store.objects) == 3
    assert [site.links(content) for content in (b"one", b"two", b"")] == [1, 1, 1]
    assert taker.take(CALLER, REPOSITORY, [b"one", b"three"]) == [Digest.of(b"one"), Digest.of(b"three")]
    assert len(site.store.objects) == 4
    with site.catalogue.reading() as session:
        assert not session.query(UploadRow).count()


def test_small_files_that_were_not_stored_are_taken_in_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    taker = small_files(site)

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(site.store, "write", fail)
        with pytest.raises(StorageError):
            taker.take(CALLER, REPOSITORY, [b"one"])
    assert site.blob(b"one") is None
    with site.catalogue.reading() as session:
        (left,) = session.query(UploadRow).all()
    state = intake(site).open(CALLER, REPOSITORY, Digest.of(b"one"), 3)
    assert state is not None and state.id == left.id, "which another way in can go on with"
    assert taker.take(CALLER, REPOSITORY, [b"one"]) == [Digest.of(b"one")]
    row = site.blob(b"one")
    assert row is not None and StoredBlob(Digest.of(b"one"), row.copy) in site.store.objects


def test_of_two_instances_with_the_same_small_file_one_keeps_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = small_files(site), small_files(site)
    original = second._announce

    def announce(*given: Any) -> Any:
        uploads = original(*given)
        first.take(CALLER, OTHER_REPOSITORY, [b"same"])
        return uploads

    monkeypatch.setattr(second, "_announce", announce)
    second.take(CALLER, REPOSITORY, [b"same"])
    row = site.blob(b"same")
    assert row is not None and list(site.store.objects) == [StoredBlob(Digest.of(b"same"), row.copy)]
    assert site.links(b"same") == 2


class Node:
    """One instance's side of chunked uploads."""

    def __init__(self, site: Site, path: Path) -> None:
        self.blocks = Blocks(Incoming(path), site.store)
        self.xorbs = Xorbs(site.catalogue, self.blocks, QuotaKeeper(site.catalogue), site.clock)
        self.rebuilding = Rebuilding(site.catalogue, site.store, self.blocks, self.xorbs, intake(site))

    def send(self, xorb: SampleXorb) -> bool:
        arriving = self.xorbs.begin(CALLER, REPOSITORY, xorb.name, len(xorb.packed))
        if arriving is None:
            return False
        with closing(arriving):
            arriving.write(xorb.packed)
            return self.xorbs.finish(CALLER, REPOSITORY, arriving)

    def make(self, *xorbs: SampleXorb) -> None:
        self.rebuilding.start(CALLER, REPOSITORY, sample_shard([whole(xorb) for xorb in xorbs])).result()


def test_blocks_sent_to_one_instance_are_files_at_another(site: Site, tmp_path: Path) -> None:
    first, second = Node(site, tmp_path / "a"), Node(site, tmp_path / "b")
    xorb, other = sample_xorb([os.urandom(90_000) for _ in range(40)]), sample_xorb([b"other"])
    assert first.send(xorb) and first.send(other)
    assert not second.send(xorb), "it is there"
    assert not list((tmp_path / "a").iterdir())
    stored = [blob for blob in site.store.objects if blob.digest == Digest.of(b"".join(xorb.chunks))]
    with site.catalogue.reading() as session:
        assert not unknown_blobs(session, stored), "gc leaves it alone"
    second.make(xorb)
    assert site.blob(b"".join(xorb.chunks)) is not None
    assert not [blob for blob in stored if blob in site.store.objects], "the block went with its last chunk"
    second.make(xorb)
    with site.catalogue.reading() as session:
        assert unknown_blobs(session, stored) == stored
    for node in (first, second):
        node.rebuilding.close()


def test_a_rebuilding_that_broke_is_tried_again(site: Site, tmp_path: Path) -> None:
    node = Node(site, tmp_path / "xorbs")
    xorb = sample_xorb([b"some chunk"])
    node.send(xorb)

    def trouble(what: str) -> None:
        if what == "open":
            raise StorageError("the store is away")

    site.store.trouble = trouble
    with pytest.raises(StorageError):
        node.make(xorb)
    site.store.trouble = lambda _: None
    node.make(xorb)
    assert site.blob(b"some chunk") is not None
    node.rebuilding.close()


def test_what_nobody_makes_a_file_of_goes_with_time(site: Site, tmp_path: Path) -> None:
    node = Node(site, tmp_path / "xorbs")
    xorb, used = sample_xorb([b"never used"]), sample_xorb([b"used", b"twice"])
    node.send(xorb)
    node.send(used)
    node.make(used)
    assert node.xorbs.sweep(starting=False) == 0
    site.clock.offset = timedelta(seconds=limits.XORB_SECONDS + 1)
    assert node.xorbs.sweep(starting=True) == 1
    assert not [blob for blob in site.store.objects if blob.digest == Digest.of(b"never used")]
    with pytest.raises(Conflict, match="not here any more"):
        node.make(xorb)
    assert node.send(xorb), "it can be sent again"
    (kept,) = node.xorbs.find(CALLER, used.name)
    assert kept.block is None and kept.sources
    site.clock.offset = timedelta(seconds=limits.XORB_MEMORY_SECONDS + limits.XORB_SECONDS)
    node.xorbs.sweep(starting=False)
    assert not node.xorbs.find(CALLER, used.name)
    node.rebuilding.close()


def test_a_block_that_was_not_whole_leaves_nothing(site: Site, tmp_path: Path) -> None:
    node = Node(site, tmp_path / "xorbs")
    xorb = sample_xorb([b"one", b"two"])
    for broken in (replace(xorb, packed=xorb.packed[:-1]), replace(xorb, name="0" * 64), replace(xorb, packed=b"")):
        with pytest.raises(FormatError):
            node.send(broken)
    assert not site.store.objects and not list((tmp_path / "xorbs").iterdir())
    abandoned = node.xorbs.begin(CALLER, REPOSITORY, xorb.name, 100)
    assert abandoned is not None
    abandoned.write(xorb.packed[:5])
    node.blocks.sweep(frozenset())
    abandoned.close()
    node.rebuilding.close()
