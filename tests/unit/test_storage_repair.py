# SPDX-License-Identifier: Apache-2.0
"""Repair: every kind of damage to a blob or to the log's files is mended, and nothing unverified takes their place."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text

from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.mending import mend_blobs, mend_log
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import AuditEventRow, BlobRow
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.logrepair import Repaired
from pq_registry.storage.stores import Stores
from pq_registry.storage.tiles import LocalTiles
from tests import stack
from tests.faults.publishing import FILES, publish
from tests.local_log import LocalLog, damage, open_catalogue, seeded
from tests.logsamples import ORIGIN
from tests.logsetup import log_setup
from tests.stored import change_blob

CONTENT = FILES["weights.json"]
DIGEST = Digest.of(CONTENT)
LEAVES = 520
"""Two full tiles, a partial one, and a partial tile above."""


class Source:
    """Answers what it is told to, in pieces."""

    def __init__(self, content: bytes | None) -> None:
        self.content = content

    def __str__(self) -> str:
        return "a mirror"

    def fetch(self, digest: Digest, size: int) -> Iterator[bytes]:
        if self.content is None:
            raise NotFound(f"no blob {digest}")
        for at in range(0, len(self.content), 1000):
            yield self.content[at : at + 1000]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(stack.store_config(tmp_path / "registry"), utc_now, log=log_setup())
    publish(registry)
    yield registry
    registry.close()


def stored(registry: Registry) -> StoredBlob:
    with registry.catalogue.reading() as session:
        row = session.get(BlobRow, DIGEST.hex)
        assert row is not None
        return StoredBlob(DIGEST, row.copy)


def harm(registry: Registry, content: bytes | None, tmp_path: Path) -> None:
    """Put other bytes, or none, in the place of the blob, behind the registry's back."""
    if content is None:
        registry.blobs.remove(stored(registry))
    else:
        change_blob(tmp_path / "registry", DIGEST, lambda _: content)


def findings(registry: Registry) -> list[str]:
    found = check_registry(registry.catalogue, registry.blobs)
    return [f"{item.subject}: {item.problem}" for item in found if not item.note]


def events(catalogue: Catalogue) -> list[tuple[str, str, dict[str, object]]]:
    with catalogue.reading() as session:
        rows = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id)).all()
        return [(row.action, row.subject, json.loads(row.detail)) for row in rows]


def mend(registry: Registry, *sources: Source) -> list[Repaired]:
    found = check_registry(registry.catalogue, registry.blobs)
    digests = sorted({item.blob for item in found if item.blob is not None}, key=str)
    return list(mend_blobs(registry.catalogue, registry.blobs, digests, sources, now=utc_now()))


HARM = {"flipped": b"{" + CONTENT[1:], "cut": CONTENT[:-1], "long": CONTENT + b" ", "gone": None}


@pytest.mark.parametrize("content", HARM.values(), ids=list(HARM))
def test_a_damaged_blob_is_fetched_again(registry: Registry, tmp_path: Path, content: bytes | None) -> None:
    harm(registry, content, tmp_path)
    assert findings(registry)
    before = events(registry.catalogue)
    done = mend(registry, Source(None), Source(CONTENT))
    assert events(registry.catalogue) == [*before, ("blob-repaired", str(DIGEST), {"what": "fetched from a mirror"})]
    assert [(one.subject, one.done) for one in done] == [(f"blob {DIGEST}", True)]
    assert findings(registry) == []
    reader = registry.resolving.open_blob(host_caller(), DIGEST)
    assert reader.read(0, reader.size) == CONTENT
    reader.close()
    assert not [item for item in check_registry(registry.catalogue, registry.blobs) if "no catalogue" in item.problem]


@pytest.mark.parametrize("offered", [*HARM.values(), b""], ids=[*HARM, "empty"])
def test_nothing_but_the_blob_takes_its_place(registry: Registry, tmp_path: Path, offered: bytes | None) -> None:
    harm(registry, HARM["cut"], tmp_path)
    before = findings(registry)
    done = mend(registry, Source(offered))
    assert [one.done for one in done] == [False]
    assert "a mirror: " in done[0].action
    assert "blob-repaired" not in [action for action, _, _ in events(registry.catalogue)]
    assert findings(registry) == before
    listed = list(registry.blobs.iterate())
    assert len(listed) == 2  # and nothing was left behind: the file and the manifest


def test_without_a_source_it_says_what_to_do(registry: Registry, tmp_path: Path) -> None:
    harm(registry, None, tmp_path)
    (one,) = mend(registry)
    assert "--repair-from" in one.action
    assert not one.done


@pytest.mark.parametrize("change", ["SET shards = :other", "SET size = size + 1"])
def test_a_damaged_row_is_made_again_from_the_bytes(registry: Registry, change: str) -> None:
    with registry.catalogue.writing() as session:
        values = {"digest": DIGEST.hex} | ({"other": bytes(32)} if ":other" in change else {})
        session.execute(text(f"UPDATE blobs {change} WHERE digest = :digest"), values)
    assert findings(registry)
    assert [one.done for one in mend(registry)] == [True]
    assert findings(registry) == []
    assert events(registry.catalogue)[-1] == ("blob-repaired", str(DIGEST), {"what": "row made again"})


# -- the log ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = seeded(tmp_path_factory.mktemp("repair") / "log", statements=600, leaves=500)
    log = LocalLog.open(root)
    log.append(*range(500, LEAVES))
    log.close()
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "log")


def rebuilt(root: Path) -> tuple[list[Repaired], list[str]]:
    catalogue = open_catalogue(root)
    try:
        done = list(mend_log(catalogue, LocalTiles(root / "log"), now=utc_now()))
        mended = [(subject, detail) for action, subject, detail in events(catalogue) if action == "log-repaired"]
        files = sum(one.done for one in done)
        assert mended == ([(ORIGIN, {"files": files})] if files else [])
        return done, damage(catalogue, LocalTiles(root / "log"))
    finally:
        catalogue.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


LOG_DAMAGE: dict[str, Callable[[Path], object]] = {
    "all tiles lost": lambda log: shutil.rmtree(log / "tile"),
    "a full tile": lambda log: flip(log / "tile/0/001"),
    "a full bundle": lambda log: flip(log / "tile/entries/000"),
    "the edge": lambda log: flip(log / f"tile/0/002.p/{LEAVES - 512}"),
    "the tile above": lambda log: flip(log / "tile/1/000.p/2"),
    "a tile too long": lambda log: (log / "tile/0/000").write_bytes(bytes(70_000_000)),
    "a left-over tile": lambda log: flip(min((log / "tile/0/002.p").iterdir())),
    "the checkpoint lost": lambda log: (log / "checkpoint").unlink(),
    "the checkpoint": lambda log: flip(log / "checkpoint"),
}


@pytest.mark.parametrize("harmed", LOG_DAMAGE.values(), ids=list(LOG_DAMAGE))
def test_the_log_is_made_again(root: Path, whole: Path, harmed: Callable[[Path], object]) -> None:
    harmed(root / "log")
    done, left = rebuilt(root)
    assert done
    assert all(one.done for one in done), done
    assert left == []
    for path in (root / "log").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (whole / "log" / path.relative_to(root / "log")).read_bytes(), path
    log = LocalLog.open(root)
    log.append(LEAVES)
    assert log.findings() == []
    log.close()


def test_nothing_is_done_to_a_log_that_is_whole(root: Path) -> None:
    assert rebuilt(root) == ([], [])


def test_an_altered_catalogue_makes_no_tiles(root: Path) -> None:
    """The rows no longer lead to the signed root: tiles made of them would be a lie."""
    shutil.rmtree(root / "log" / "tile")
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection, connection:
        connection.execute('UPDATE log_entries SET time = time + 1 WHERE "index" = 7')
    done, left = rebuilt(root)
    assert [one.done for one in done] == [False]
    assert "backup" in done[0].action
    assert left
    assert not (root / "log" / "tile").exists()


def test_a_leaf_without_a_row_comes_from_its_tile(root: Path) -> None:
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection, connection:
        connection.execute('DELETE FROM log_entries WHERE "index" = 300')
    flip(root / "log/tile/0/001")
    done, left = rebuilt(root)
    assert [one.subject for one in done] == ["log tile/0/001"]
    assert left == ["log leaf 300: no statement is recorded for it"]


def test_a_signed_checkpoint_of_another_tree_stays(root: Path, tmp_path: Path) -> None:
    other = seeded(tmp_path / "other", statements=600, leaves=3)
    shutil.copy(other / "log" / "checkpoint", root / "log" / "checkpoint")
    before = (root / "log" / "checkpoint").read_bytes()
    done, left = rebuilt(root)
    assert [(one.subject, one.done) for one in done] == [("log checkpoint in the tile store", False)]
    assert any("forked" in line for line in left)
    assert (root / "log" / "checkpoint").read_bytes() == before


def test_repair_beside_a_service_in_the_stores_of_its_own(registry: Registry, tmp_path: Path) -> None:
    harm(registry, None, tmp_path)
    stores = Stores.open(stack.store_config(tmp_path / "registry"), upgrade=False)
    try:
        done = list(mend_blobs(stores.catalogue, stores.blobs, [DIGEST], [Source(CONTENT)], now=utc_now()))
    finally:
        stores.close()
    assert [one.done for one in done] == [True]
    assert findings(registry) == []
