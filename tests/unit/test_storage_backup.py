# SPDX-License-Identifier: Apache-2.0
"""Backup and restore: all of it comes back, into either database; what is damaged, full or too old is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pq_registry.crypto.signing import sign_envelope
from pq_registry.errors import AlreadyExists, FormatError, LogHalted, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Tag
from pq_registry.log.stores import CHECKPOINT_PATH
from pq_registry.service.registry import Registry
from pq_registry.service.restoring import LogOutcome, Restored, Shown, restore
from pq_registry.service.tokens import host_caller
from pq_registry.storage.backup import INDEX, LEFT_OUT, read_index, verify_files, write_backup
from pq_registry.storage.backupdir import backup_directory
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import AuditEventRow, Base
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.stores import StoreConfig, Stores
from pq_registry.storage.tiles import LocalTiles
from tests.faults.publishing import FILES, documents, publish
from tests.logsetup import log_setup
from tests.samples import REPOSITORY, YEAR, publisher, tag_statement


def opened(data: Path, **stores: object) -> Registry:
    return Registry.open(StoreConfig(data=data, **stores), utc_now, log=log_setup())  # type: ignore[arg-type]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = opened(tmp_path / "registry")
    publish(registry)
    log_all(registry)
    yield registry
    registry.close()


def backed_up(registry: Registry, target: Path) -> Path:
    write_backup(target, registry.catalogue, registry.ledger.tiles, now=utc_now(), settings={"listen": "::1:1"})  # type: ignore[arg-type]
    return target


def rows(catalogue: Catalogue) -> dict[str, list[tuple[object, ...]]]:
    with catalogue.reading() as session:
        return {
            table.name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
            for table in Base.metadata.sorted_tables
            if table.name not in LEFT_OUT
        }


def restored(backup: Path, config: StoreConfig, *shown: Shown) -> tuple[Restored, Stores]:
    stores = Stores.open(config, upgrade=True)
    return restore(backup, stores, shown=shown, now=utc_now()), stores


def damage(stores: Stores) -> list[str]:
    found = check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles)
    return [f"{item.subject}: {item.problem}" for item in found if not item.note]


def renew(registry: Registry) -> Digest:
    """One more statement: the tag renewed. It is recorded and not logged."""
    envelope, _, _ = documents()
    before = registry.resolving.tag_envelope(REPOSITORY, tag_statement(envelope.payload_digest).tag)[0]
    now = utc_now()
    tag = tag_statement(envelope.payload_digest, sequence=2, previous=before, issued=now, expires=now + YEAR)
    signed = sign_envelope(tag.encode(), publisher())
    registry.tagging.put(host_caller(), REPOSITORY, tag.tag, signed.encode())
    return signed.payload_digest


def log_all(registry: Registry) -> None:
    """Everything recorded is in the log, and its checkpoint is in the tile store."""
    registry.ledger.catch_up()
    registry.ledger.log(registry.resolving.tag_envelope(REPOSITORY, Tag("v1"))[0])


def log_further(registry: Registry) -> Digest:
    """One more statement in the log."""
    statement = renew(registry)
    log_all(registry)
    return statement


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_everything_comes_back(registry: Registry, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    backup, before = backed_up(registry, tmp_path / "backup"), rows(registry.catalogue)
    checkpoint = registry.ledger.tiles.read(CHECKPOINT_PATH)
    registry.close()
    database = request.getfixturevalue("postgres_url") if kind == "PostgreSQL" else None
    config = StoreConfig(data=tmp_path / "other", database=database)
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "other" / "blobs")
    found, stores = restored(backup, config)
    try:
        assert (found.outcome, found.leaves, found.lost) == (LogOutcome.WHOLE, 2, ())
        assert rows(stores.catalogue) == before
        assert damage(stores) == []
        assert stores.tiles.read(CHECKPOINT_PATH) == checkpoint
    finally:
        stores.close()
    again = opened(tmp_path / "other", database=database)
    try:
        log_further(again)  # ids and leaves go on counting
        assert not [item for item in check_registry(again.catalogue, again.blobs) if not item.note]
        reader = again.resolving.open_blob(host_caller(), Digest.of(next(iter(FILES.values()))))
        assert reader.read(0, reader.size) == next(iter(FILES.values()))
        reader.close()
    finally:
        again.close()


def test_every_table_is_copied_or_left_out_on_purpose(registry: Registry, tmp_path: Path) -> None:
    index = read_index(backed_up(registry, tmp_path / "backup"))
    copied = {Path(file.path).stem for file in index.files if file.path.startswith("tables/")}
    assert copied | LEFT_OUT == {table.name for table in Base.metadata.sorted_tables}
    assert copied & LEFT_OUT == set()
    assert index.settings == {"listen": "::1:1"}


def test_a_backup_is_private_and_never_written_over(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    assert backup.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in backup.rglob("*") if path.is_file()} == {0}
    with pytest.raises(AlreadyExists, match="there already"):
        backed_up(registry, backup)
    assert read_index(backup)


def test_only_an_empty_catalogue_takes_it(registry: Registry, tmp_path: Path) -> None:
    backup, before = backed_up(registry, tmp_path / "backup"), rows(registry.catalogue)
    registry.close()
    with pytest.raises(UsageError, match="not empty") as refused:
        restored(backup, StoreConfig(data=tmp_path / "registry"))
    assert "interrupted" in str(refused.value.hint)
    again = opened(tmp_path / "registry")
    assert rows(again.catalogue) == before
    again.close()


def test_an_interrupted_restore_is_begun_again_as_the_guide_says(registry: Registry, tmp_path: Path) -> None:
    backup, before = backed_up(registry, tmp_path / "backup"), rows(registry.catalogue)
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "other" / "blobs")
    restored(backup, StoreConfig(data=tmp_path / "other"))[1].close()
    for path in (tmp_path / "other").glob("catalogue.sqlite3*"):
        path.unlink()
    found, stores = restored(backup, StoreConfig(data=tmp_path / "other"))
    assert (found.outcome, rows(stores.catalogue), damage(stores)) == (LogOutcome.WHOLE, before, [])
    stores.close()


@pytest.mark.parametrize("name", [INDEX, "tables/statements.jsonl", "tables/tokens.jsonl", "log/checkpoint"])
def test_a_damaged_backup_restores_nothing(registry: Registry, tmp_path: Path, name: str) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    data = bytearray((backup / name).read_bytes())
    data[len(data) // 2] ^= 1
    (backup / name).write_bytes(bytes(data))
    with pytest.raises(FormatError):
        restored(backup, StoreConfig(data=tmp_path / "other"))
    stores = Stores.open(StoreConfig(data=tmp_path / "other"), upgrade=True)
    assert not any(rows(stores.catalogue).values())
    stores.close()


def test_an_interrupted_backup_is_none(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    (backup / INDEX).unlink()
    with pytest.raises(UsageError, match="not a backup"):
        read_index(backup)
    (backup / ".backup.json.0123456789abcdef.tmp").write_bytes(b"{")
    (backup / "tables" / "tokens.jsonl").write_bytes(b"cut o")
    index = read_index(backed_up(registry, backup))  # the same command again
    verify_files(backup, index)
    assert sorted(path.name for path in backup.iterdir()) == [INDEX, "log", "tables"]


@pytest.mark.parametrize("name", ["notes.txt", "tables/notes.txt", "tables/tokens.jsonl/one", "log.key", "/"])
def test_a_backup_takes_no_directory_that_is_none_of_its_own(registry: Registry, tmp_path: Path, name: str) -> None:
    target = tmp_path / "backup"
    if name == "log.key":
        target.mkdir()
        (tmp_path / "elsewhere").touch()
        (target / name).symlink_to(tmp_path / "elsewhere")
    elif name == "/":
        target.write_bytes(b"a file")
    else:
        (target / name).parent.mkdir(parents=True)
        (target / name).touch()

    def there() -> list[Path]:
        # The registry's own directory is none of this: its log publishes when it likes.
        return sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "registry"))

    before = there()
    with pytest.raises(AlreadyExists, match="there already"):
        backed_up(registry, target)
    assert there() == before


def test_two_backups_do_not_share_a_directory(registry: Registry, tmp_path: Path) -> None:
    with backup_directory(tmp_path / "backup", parts=()), pytest.raises(AlreadyExists) as refused:
        backed_up(registry, tmp_path / "backup")
    assert "being written" in str(refused.value.found)


def test_another_schema_is_refused(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    index = json.loads((backup / INDEX).read_bytes())
    index["revision"] = "0001"
    (backup / INDEX).write_text(json.dumps(index, sort_keys=True, separators=(",", ":")))
    with pytest.raises(FormatError, match="schema of another version"):
        restored(backup, StoreConfig(data=tmp_path / "other"))


# -- a backup that is behind the log -----------------------------------------------------------------------------------


def test_the_log_goes_on_where_the_tile_store_was(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    lost = log_further(registry)
    registry.close()
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "other" / "blobs")
    shutil.copytree(tmp_path / "registry" / "log", tmp_path / "other" / "log")
    found, stores = restored(backup, StoreConfig(data=tmp_path / "other"))
    assert (found.outcome, found.leaves) == (LogOutcome.MOVED, 3)
    assert [leaf.payload for leaf in found.lost] == [lost]
    assert damage(stores) == []
    with stores.catalogue.reading() as session:
        moved = session.scalars(select(AuditEventRow).where(AuditEventRow.action == "log-moved")).one()
    assert json.loads(moved.detail) == {"start": 2, "end": 3, "lost": 1}
    notes = [item.problem for item in check_registry(stores.catalogue, stores.blobs, tiles=stores.tiles) if item.note]
    assert any("lost by the restore" in problem for problem in notes)
    stores.close()
    again = opened(tmp_path / "other")  # its log starts, and what is pushed again gets a leaf behind the others
    log_further(again)
    assert again.ledger.health().size == 4
    again.close()


def test_a_statement_the_backup_has_keeps_its_leaf(registry: Registry, tmp_path: Path) -> None:
    """Recorded when the backup was made, and logged after it."""
    renew(registry)
    backup = backed_up(registry, tmp_path / "backup")
    registry.ledger.catch_up()
    registry.close()
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "other" / "blobs")
    shutil.copytree(tmp_path / "registry" / "log", tmp_path / "other" / "log")
    found, stores = restored(backup, StoreConfig(data=tmp_path / "other"))
    assert (found.outcome, found.leaves, found.lost) == (LogOutcome.MOVED, 3, ())
    assert damage(stores) == []
    stores.close()


def test_without_the_leaves_the_log_stays_stopped(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    log_further(registry)
    witnessed = Shown("a witness", registry.ledger.tiles.read(CHECKPOINT_PATH))
    registry.close()
    shutil.copytree(tmp_path / "registry" / "blobs", tmp_path / "other" / "blobs")
    found, stores = restored(backup, StoreConfig(data=tmp_path / "other"), witnessed)
    assert (found.outcome, found.leaves, found.newest) == (LogOutcome.STOPPED, 3, "a witness")
    assert damage(stores)
    stores.close()
    for _ in range(2):
        with pytest.raises(LogHalted):
            opened(tmp_path / "other")


def test_a_crash_before_the_log_was_looked_at_stops_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    log_further(registry)
    witnessed = Shown("a witness", registry.ledger.tiles.read(CHECKPOINT_PATH))
    registry.close()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pq_registry.service.restoring._settle", killed)
    with pytest.raises(KeyboardInterrupt):
        restored(backup, StoreConfig(data=tmp_path / "other"), witnessed)
    with pytest.raises(LogHalted):
        opened(tmp_path / "other")


def forked_checkpoint(data: Path) -> bytes:
    """Of a log with the same keys and statements, a minute earlier each."""
    other = Registry.open(StoreConfig(data=data), lambda: utc_now() - timedelta(minutes=1), log=log_setup())
    publish(other)
    log_all(other)
    note = other.ledger.tiles.read(CHECKPOINT_PATH)
    other.close()
    return note


def test_a_fork_is_not_restored(registry: Registry, tmp_path: Path) -> None:
    """Another history under the same keys: whoever shows it, the backup's is not silently gone on with."""
    backup = backed_up(registry, tmp_path / "backup")
    forked = Shown("a mirror", forked_checkpoint(tmp_path / "fork"))
    with pytest.raises(LogHalted, match="fork"):
        restored(backup, StoreConfig(data=tmp_path / "other"), forked)
    stores = Stores.open(StoreConfig(data=tmp_path / "other"), upgrade=True)
    assert not any(rows(stores.catalogue).values())
    stores.close()


def test_a_fork_behind_the_newest_checkpoint_is_not_gone_on_with(registry: Registry, tmp_path: Path) -> None:
    """The tile store is ahead of the backup and follows it; what somebody else was shown before is another tree."""
    backup = backed_up(registry, tmp_path / "backup")
    log_further(registry)
    registry.close()
    forked = Shown("a witness", forked_checkpoint(tmp_path / "fork"))
    shutil.copytree(tmp_path / "registry" / "log", tmp_path / "other" / "log")
    with pytest.raises(LogHalted, match="a witness shows another tree"):
        restored(backup, StoreConfig(data=tmp_path / "other"), forked)
    stores = Stores.open(StoreConfig(data=tmp_path / "other"), upgrade=True)
    assert not any(rows(stores.catalogue).values())
    stores.close()


@pytest.mark.parametrize("left", [{"vkey", "checkpoint"}, {"vkey"}, {"checkpoint"}])
def test_another_log_in_the_tile_store_is_left_alone(registry: Registry, tmp_path: Path, left: set[str]) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    Registry.open(StoreConfig(data=tmp_path / "x"), utc_now, log=log_setup("other.example/log")).close()
    log = tmp_path / "x" / "log"
    for name in {"vkey", "checkpoint"} - left:
        (log / name).unlink()
    shutil.copytree(log, tmp_path / "other" / "log")
    before = {name: (log / name).read_bytes() for name in left}
    with pytest.raises(UsageError, match="another log"):
        restored(backup, StoreConfig(data=tmp_path / "other"))
    assert {name: (tmp_path / "other" / "log" / name).read_bytes() for name in left} == before


def test_a_checkpoint_of_another_log_is_refused(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    other = Registry.open(StoreConfig(data=tmp_path / "x"), utc_now, log=log_setup("other.example/log"))
    publish(other)
    other.ledger.catch_up()
    foreign = Shown("a stranger", other.ledger.tiles.read(CHECKPOINT_PATH))
    other.close()
    with pytest.raises(FormatError, match="a stranger shows no checkpoint of this log"):
        restored(backup, StoreConfig(data=tmp_path / "other"), foreign)


def test_tiles_are_made_again_to_the_last_byte(registry: Registry, tmp_path: Path) -> None:
    backup = backed_up(registry, tmp_path / "backup")
    registry.close()
    found, stores = restored(backup, StoreConfig(data=tmp_path / "other"))
    stores.close()
    assert found.outcome is LogOutcome.WHOLE

    def content(root: Path) -> dict[str, bytes]:
        tiles = LocalTiles(root / "log")
        return {name: tiles.read(name) for name in tiles.names() if ".p/1" not in name}

    assert content(tmp_path / "other") == content(tmp_path / "registry")
