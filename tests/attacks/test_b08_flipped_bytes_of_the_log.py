# SPDX-License-Identifier: Apache-2.0
"""B8: one flipped bit in any stored kind of the log. fsck names the object; the log does not sign over what it needs.

What a start needs is the right edge, the staged leaves and the checkpoints. A flip elsewhere (a full tile, an old
partial one, an old receipt's checkpoint) does not keep the log from going on, since nothing it signs depends on it;
fsck and every reader notice.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pq_registry.errors import LogHalted
from pq_registry.storage.tiles import LocalTiles
from tests.local_log import LocalLog, damage, open_catalogue, seeded

LEAVES = 520
"""Two full tiles, a partial one, and a partial tile above."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = seeded(tmp_path_factory.mktemp("b08") / "log", statements=600, leaves=500)
    log = LocalLog.open(root)
    log.append(*range(500, LEAVES))
    log.close()
    # As after a heartbeat: nothing is staged, so each tile counts by itself.
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection, connection:
        connection.execute("DELETE FROM log_staged")
    assert findings(root) == []
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "log")


def findings(root: Path) -> list[str]:
    catalogue = open_catalogue(root)
    try:
        return damage(catalogue, LocalTiles(root / "log"))
    finally:
        catalogue.close()


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * at)] ^= 1
    path.write_bytes(data)


EDGE = [f"tile/0/002.p/{LEAVES - 512}", f"tile/entries/002.p/{LEAVES - 512}", "tile/1/000.p/2"]
ELSEWHERE = ["tile/0/000", "tile/0/001", "tile/entries/000", "tile/entries/001"]
PLACES = [0.0, 0.37, 1.0]


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("name", EDGE)
def test_the_right_edge(root: Path, name: str, at: float) -> None:
    flip(root / "log" / name, at)
    before = (root / "log" / "checkpoint").read_bytes()
    with pytest.raises(LogHalted, match="right edge"):
        LocalLog.open(root)
    assert (root / "log" / "checkpoint").read_bytes() == before
    assert any(name in finding.split(":")[0] for finding in findings(root)), findings(root)


@pytest.mark.parametrize("name", EDGE)
def test_an_edge_that_is_gone_or_cut(root: Path, name: str) -> None:
    path = root / "log" / name
    data = path.read_bytes()
    for other in (None, data[:-1], data + b"\0", b""):
        path.unlink() if other is None else path.write_bytes(other)
        with pytest.raises(LogHalted, match="right edge"):
            LocalLog.open(root)
        assert any(name in finding for finding in findings(root))


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_tile_elsewhere(root: Path, name: str, at: float) -> None:
    flip(root / "log" / name, at)
    found = findings(root)
    assert any(finding.startswith(f"log {name}: ") for finding in found), found


@pytest.mark.parametrize("at", PLACES)
def test_the_checkpoint_readers_see(root: Path, at: float) -> None:
    flip(root / "log" / "checkpoint", at)
    with pytest.raises(LogHalted, match="in the tile store"):
        LocalLog.open(root)
    assert any(finding.startswith("log checkpoint in the tile store: ") for finding in findings(root))


@pytest.mark.parametrize(
    ("column", "subject"),
    [
        ("note", "log checkpoint in the catalogue"),
        ("published", "log checkpoint published last"),
    ],
)
@pytest.mark.parametrize("at", PLACES)
def test_the_checkpoints_in_the_catalogue(root: Path, column: str, subject: str, at: float) -> None:
    flip_in_catalogue(root, f"SELECT {column} FROM log_state", f"UPDATE log_state SET {column} = ?", at)
    with pytest.raises(LogHalted):
        LocalLog.open(root)
    assert any(finding.startswith(f"{subject}: ") for finding in findings(root))


def flip_in_catalogue(root: Path, query: str, change: str, at: float) -> None:
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection, connection:
        data = bytearray(connection.execute(query).fetchone()[0])
        data[int((len(data) - 1) * at)] ^= 1
        connection.execute(change, (bytes(data),))


@pytest.mark.parametrize("at", PLACES)
def test_a_checkpoint_kept_for_receipts(root: Path, at: float) -> None:
    one = "FROM log_checkpoints WHERE size = (SELECT min(size) FROM log_checkpoints WHERE size > 0)"
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection:
        [size] = connection.execute(f"SELECT size {one}").fetchone()
    change = f"UPDATE log_checkpoints SET note = ? WHERE size = {size}"
    flip_in_catalogue(root, f"SELECT note {one}", change, at)
    assert any(finding.startswith(f"log checkpoint of {size} leaves: ") for finding in findings(root))


@pytest.mark.parametrize("at", PLACES)
def test_the_staged_leaves(tmp_path: Path, at: float) -> None:
    root = seeded(tmp_path / "log", statements=10, leaves=5)
    log = LocalLog.open(root)
    log.append(5, 6)
    log.close()
    flip_in_catalogue(root, "SELECT entries FROM log_staged", "UPDATE log_staged SET entries = ?", at)
    assert any(finding.startswith("log leaves staged from") for finding in findings(root))
    with pytest.raises(LogHalted, match="staged leaves"):
        LocalLog.open(root)


def test_a_tile_of_the_staged_batch(tmp_path: Path) -> None:
    """It is written again at the start, and other bytes under its name are not taken for it."""
    root = seeded(tmp_path / "log", statements=10, leaves=5)
    flip(root / "log" / "tile/0/000.p/5", 0.5)
    with pytest.raises(LogHalted, match="other bytes"):
        LocalLog.open(root)
    assert any("tile/0/000.p/5" in finding for finding in findings(root))
    (root / "log" / "tile/0/000.p/5").unlink()
    log = LocalLog.open(root)
    assert log.findings() == []
    assert log.append(5)[0].index == 5
    log.close()


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ('UPDATE log_entries SET time = time + 1 WHERE "index" = 77', "log leaf 77: its time is not"),
        ('DELETE FROM log_entries WHERE "index" = 77', "log leaf 77: no statement is recorded"),
        ('UPDATE log_entries SET "index" = 900 WHERE "index" = 77', "log leaf 900: a statement is recorded"),
        ("UPDATE statements SET kind = 'key'", "log leaf 0: "),
        (
            "UPDATE namespaces SET name = 'x'; UPDATE repositories SET name = 'other/name'",
            "log leaf 0: its name is not",
        ),
        (
            'UPDATE log_entries SET statement = (SELECT max(statement) FROM log_entries) WHERE "index" = 77',
            "log leaf 77: its payload, ec, pq is not",
        ),
        ("DELETE FROM log_state", "log: there are tiles"),
    ],
)
def test_the_catalogue_against_the_tree(root: Path, change: str, subject: str) -> None:
    with closing(sqlite3.connect(root / "catalogue.sqlite3")) as connection, connection:
        connection.executescript(change)
    found = findings(root)
    assert any(finding.startswith(subject) for finding in found), found


def test_the_verifier_keys(root: Path) -> None:
    flip(root / "log" / "vkey", 0.5)
    assert any("log vkey: " in finding for finding in findings(root))
    log = LocalLog.open(root)  # it is written anew by each start
    assert log.findings() == []
    log.close()
