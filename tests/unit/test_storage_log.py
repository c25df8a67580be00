# SPDX-License-Identifier: Apache-2.0
"""Tile store and lock by themselves: what is never overwritten, what never goes back, and whose commit counts."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from pq_registry import limits
from pq_registry.errors import FormatError, LogHalted, LogUnavailable, NotFound, StorageError
from pq_registry.format.checkpoint import Checkpoint, parse_checkpoint_note
from pq_registry.log.merkle import EMPTY_ROOT
from pq_registry.log.stores import Batch, Locked
from pq_registry.storage.catalogue.tables import LogCheckpointRow
from pq_registry.storage.loglock import CatalogueLock
from pq_registry.storage.tiles import LocalTiles
from tests.faults.injection import Fault, failing_database
from tests.local_log import envelope, open_catalogue, record_statements, signers
from tests.logsamples import ORIGIN, TIME

AT = datetime.fromtimestamp(TIME, UTC)


def note(size: int, origin: str = ORIGIN) -> bytes:
    return signers(origin).sign(Checkpoint(origin, size, b"r" * 32 if size else EMPTY_ROOT), TIME)


@pytest.fixture
def tiles(tmp_path: Path) -> LocalTiles:
    return LocalTiles(tmp_path / "log")


def test_tiles_are_written_where_readers_look(tiles: LocalTiles) -> None:
    assert not tiles.has_tiles()
    tiles.write([("tile/entries/000.p/2", b"ab"), ("tile/0/x001/x234/067", b"cd")])
    assert tiles.has_tiles()
    assert (tiles.root / "tile/0/x001/x234/067").read_bytes() == tiles.read("tile/0/x001/x234/067") == b"cd"
    assert sorted(tiles.names()) == ["tile/0/x001/x234/067", "tile/entries/000.p/2"]
    assert os.stat(tiles.root / "tile/entries/000.p/2").st_mode & 0o777 == 0o644 & ~_umask()
    with pytest.raises(NotFound):
        tiles.read("tile/0/000")
    with pytest.raises(NotFound):
        tiles.read("tile/0/x001/x234/067.p/3")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["../x", "tile/0/../../x", "/etc/passwd", "tile/64/000", "checkpoint/", "log.key", ""])
def test_nothing_but_files_of_a_log_has_a_name(tiles: LocalTiles, name: str) -> None:
    with pytest.raises(FormatError):
        tiles.read(name)
    with pytest.raises(FormatError):
        tiles.write([(name, b"")])
    assert list(tiles.names()) == []


def test_a_link_is_not_followed(tiles: LocalTiles, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tiles.root / "tile/0").mkdir(parents=True)
    (tiles.root / "tile/0/000").symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError):
        tiles.read("tile/0/000")


def test_a_file_that_is_too_large_is_not_read(tiles: LocalTiles) -> None:
    (tiles.root / "tile/0").mkdir(parents=True)
    with (tiles.root / "tile/0/000").open("wb") as file:
        file.truncate(limits.ENTRY_BUNDLE_BYTES + 1)
    with pytest.raises(StorageError, match="larger than any"):
        tiles.read("tile/0/000")


def test_e5_a_tile_is_never_overwritten(tiles: LocalTiles) -> None:
    tiles.write([("tile/0/000", b"a")])
    before = (tiles.root / "tile/0/000").stat().st_ino
    tiles.write([("tile/0/000", b"a")])
    assert (tiles.root / "tile/0/000").stat().st_ino != before, "written again, durably this time"
    for other in (b"b", b"ab", b""):
        with pytest.raises(LogHalted, match="other bytes"):
            tiles.write([("tile/0/001", b"fine"), ("tile/0/000", other)])
    assert (tiles.root / "tile/0/000").read_bytes() == b"a"
    assert list(tiles.names()) == ["tile/0/000"], "and nothing of the same batch"


def test_the_checkpoint_never_shows_less(tiles: LocalTiles) -> None:
    for size in (0, 5, 5, 9):
        shown = note(size)
        tiles.write_checkpoint(shown)
    for wrong in (note(8), note(10, "other.example")):
        with pytest.raises(LogHalted, match="larger tree, or another log"):
            tiles.write_checkpoint(wrong)
    assert tiles.read("checkpoint") == shown
    (tiles.root / "checkpoint").write_bytes(b"junk")
    with pytest.raises(LogHalted, match="damaged"):
        tiles.write_checkpoint(note(10))


def test_what_an_interrupted_write_left_is_swept(tiles: LocalTiles) -> None:
    names = [f"tile/0/{group}" for group in ("000", "001", "x001/000", "x001/001.p/3")]
    tiles.write([(name, name.encode()) for name in names])
    tiles.write([("tile/entries/x001/001.p/3", b"e")])
    leftovers = ["tile/0/x001/.001.0.tmp", "tile/0/x001/001.p/.3.0.tmp", "tile/entries/x001/001.p/.3.0.tmp", ".c.0.tmp"]
    for name in leftovers:
        (tiles.root / name).write_bytes(b"")
    tiles.sweep()
    assert sorted(tiles.names()) == sorted([*names, "tile/entries/x001/001.p/3"])


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[CatalogueLock]:
    catalogue = open_catalogue(tmp_path)
    record_statements(catalogue, 10)
    yield CatalogueLock(catalogue)
    catalogue.close()


def batch(start: int, count: int) -> Batch:
    entries = tuple(b"entry %d" % number for number in range(start, start + count))
    return Batch(start, TIME, entries, tuple(envelope(start + n).payload_digest for n in range(count)))


def test_only_one_commit_on_the_same_note_counts(lock: CatalogueLock) -> None:
    assert lock.load() is None
    lock.commit(None, b"zero", Batch(0, TIME))
    with pytest.raises(LogHalted, match="another sequencer"):
        lock.commit(None, b"zero again", Batch(0, TIME))
    lock.commit(b"zero", b"one", batch(0, 2))
    for expected in (b"zero", b"two", None):
        with pytest.raises(LogHalted, match="another sequencer"):
            lock.commit(expected, b"other", batch(2, 2))
    assert lock.load() == Locked(b"one", b"zero", None)
    assert lock.staged() == [(0, b"entry 0"), (1, b"entry 1")]
    lock.commit(b"one", b"two", batch(2, 1))
    assert lock.staged() == [(2, b"entry 2")]
    lock.commit(b"two", b"two, signed again", Batch(3, TIME))
    assert lock.staged() == []
    assert lock.load() == Locked(b"two, signed again", b"two", None)


def test_which_checkpoint_a_receipt_is_made_from(lock: CatalogueLock) -> None:
    lock.commit(None, note(0), Batch(0, TIME))
    assert lock.published_covering(0) is None
    kept = {size: note(size) for size in (2, 4, 6)}
    lock.keep_published(2, kept[2], False, AT)
    assert lock.published_covering(1) == kept[2], "the best there is"
    assert lock.published_covering(2) is None
    lock.keep_published(4, kept[4], True, AT)
    lock.keep_published(6, kept[6], True, AT)
    assert lock.published_covering(1) == kept[4]
    assert lock.published_covering(1, quorum_first=False) == kept[2]
    assert lock.published_covering(4) == kept[6]
    newer = note(6)
    lock.keep_published(6, newer, True, AT)
    assert lock.published_covering(5) == kept[6], "the first with a quorum stays: receipts do not change"
    found = lock.load()
    assert found is not None
    assert found.published == newer
    with pytest.raises(LogHalted, match="larger tree"):
        lock.keep_published(5, note(5), True, AT)


def test_a_quorum_that_comes_later_replaces_the_note_without(lock: CatalogueLock) -> None:
    lock.commit(None, note(0), Batch(0, TIME))
    lock.keep_published(2, note(2), False, AT)
    better = note(2)
    lock.keep_published(2, better, True, AT)
    assert lock.published_covering(0) == better


def test_checkpoints_are_thinned_out_and_every_leaf_is_attested_in_time(
    lock: CatalogueLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_RECENT_CHECKPOINTS", 3)
    lock.commit(None, note(0), Batch(0, TIME))
    step = 100
    for size in range(1, 61):
        lock.keep_published(size, note(size), size % 10 != 0, AT + timedelta(seconds=step * size))
    with lock._catalogue.reading() as session:
        query = select(LogCheckpointRow.size, LogCheckpointRow.quorum).order_by(LogCheckpointRow.size)
        rows = session.execute(query).all()
    assert len(rows) < 20
    assert sum(not quorum for _, quorum in rows) <= 1, "those without a quorum go once others cover their leaves"
    for index in range(59):
        covering = lock.published_covering(index)
        assert covering is not None
        size = parse_checkpoint_note(covering)[0].size
        assert index < size
        assert (size - index) * step <= limits.LOG_CHECKPOINT_SPACING_SECONDS + 2 * step
    assert [size for size, _ in rows][-3:] == [58, 59, 60], "the newest stay"


@pytest.mark.parametrize("persisted", [False, True], ids=["not-persisted", "persisted"])
def test_only_a_failing_commit_leaves_it_open(lock: CatalogueLock, persisted: bool) -> None:
    lock.commit(None, b"zero", Batch(0, TIME))
    outcomes = []
    for number in range(1, 20):
        before = lock.load()
        assert before is not None
        fault = Fault(number, persisted, OperationalError("", {}, sqlite3.OperationalError("disk I/O error")))
        with failing_database(fault, lock._catalogue._engine):
            try:
                lock.commit(before.note, b"note %d" % number, batch(0, 1) if number == 1 else Batch(1, TIME))
            except StorageError as error:
                outcomes.append((fault.hit, type(error)))
        after = lock.load()
        assert after is not None
        if fault.hit is None:
            break
        expected = before.note if fault.hit != "do_commit" or not persisted else b"note %d" % number
        assert after.note == expected
    assert {hit for hit, error in outcomes if error is LogHalted} == {"do_commit"}
    assert {hit for hit, error in outcomes if error is LogUnavailable} == {"do_execute"}


def test_a_full_disk_is_known_to_have_changed_nothing(lock: CatalogueLock) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"  # set by the driver itself where the error is real
    fault = Fault(4, False, OperationalError("COMMIT", {}, full))
    with failing_database(fault, lock._catalogue._engine), pytest.raises(LogUnavailable):
        lock.commit(None, b"zero", Batch(0, TIME))
    assert fault.hit == "do_commit"
    assert lock.load() is None


def test_staged_leaves_that_were_damaged(lock: CatalogueLock) -> None:
    lock.commit(None, b"zero", Batch(0, TIME))
    lock.commit(b"zero", b"one", batch(0, 2))
    with lock._catalogue.writing() as session:
        session.execute(text("UPDATE log_staged SET entries = x'ffff00'"))
    with pytest.raises(LogHalted, match="staged leaves are damaged"):
        lock.staged()
