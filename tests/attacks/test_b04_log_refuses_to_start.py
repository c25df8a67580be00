# SPDX-License-Identifier: Apache-2.0
"""B4 (the log's side): nothing is signed over a lock and a tile store that contradict each other, or of other keys.

Each case puts parts of two states of a log together, as a restored backup or an attacker would. The log refuses to
start, and what readers see and what the lock holds stay as they were.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pq_registry.errors import LogHalted
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.instant import utc_now
from pq_registry.log.merkle import EMPTY_ROOT
from tests.local_log import LocalLog, seeded, signers
from tests.logsamples import ORIGIN

CATALOGUE = "catalogue.sqlite3"


@pytest.fixture
def states(tmp_path: Path) -> tuple[Path, Path]:
    """A log with 3 leaves, and the same log later with 300."""
    early = seeded(tmp_path / "early", statements=400, leaves=3)
    late = shutil.copytree(early, tmp_path / "late")
    log = LocalLog.open(late)
    log.append(*range(3, 300))
    log.close()
    return early, late


def state(root: Path) -> tuple[object, bytes | None]:
    with closing(sqlite3.connect(root / CATALOGUE)) as connection:
        row = connection.execute("SELECT note, previous, published FROM log_state").fetchone()
    shown = root / "log" / "checkpoint"
    return row, shown.read_bytes() if shown.exists() else None


def refuses(root: Path, words: str, origin: str = ORIGIN) -> None:
    before = state(root)
    with pytest.raises(LogHalted, match=words):
        LocalLog.open(root, origin=origin)
    assert state(root) == before


def test_an_old_catalogue_under_new_tiles(states: tuple[Path, Path]) -> None:
    early, late = states
    shutil.copy(early / CATALOGUE, late / CATALOGUE)
    refuses(late, "ahead of the catalogue")


def test_old_tiles_under_a_new_catalogue(states: tuple[Path, Path]) -> None:
    early, late = states
    shutil.rmtree(late / "log")
    shutil.copytree(early / "log", late / "log")
    refuses(late, "shows less than was published")


def test_no_tiles_under_a_catalogue(states: tuple[Path, Path]) -> None:
    _, late = states
    shutil.rmtree(late / "log")
    refuses(late, "shows less than was published")


def test_tiles_without_a_catalogue(states: tuple[Path, Path]) -> None:
    _, late = states
    with closing(sqlite3.connect(late / CATALOGUE)) as connection, connection:
        connection.execute("DELETE FROM log_state")
    refuses(late, "the catalogue knows of none")


def test_a_fork_of_the_same_size(states: tuple[Path, Path], tmp_path: Path) -> None:
    early, _ = states
    other = seeded(tmp_path / "other", statements=400, leaves=0)
    log = LocalLog.open(other)
    log.append(5, 6, 7)
    log.close()
    shutil.copy(other / "log" / "checkpoint", early / "log" / "checkpoint")
    refuses(early, "a fork")


def test_a_fork_of_a_smaller_size(states: tuple[Path, Path]) -> None:
    early, _ = states
    with closing(sqlite3.connect(early / CATALOGUE)) as connection, connection:
        connection.execute("UPDATE log_state SET published = NULL")
    forged = signers().sign(Checkpoint(ORIGIN, 2, b"f" * 32), int(utc_now().timestamp()))
    (early / "log" / "checkpoint").write_bytes(forged)
    refuses(early, "a fork")


@pytest.mark.parametrize("what", ["catalogue", "tiles"])
def test_the_checkpoint_of_another_log(states: tuple[Path, Path], what: str) -> None:
    early, _ = states
    other = signers("other.example").sign(Checkpoint("other.example", 3, b"f" * 32), 1)
    if what == "tiles":
        (early / "log" / "checkpoint").write_bytes(other)
    else:
        with closing(sqlite3.connect(early / CATALOGUE)) as connection, connection:
            connection.execute("UPDATE log_state SET note = ?", (other,))
    refuses(early, "not signed by this log's keys")


def test_other_keys(states: tuple[Path, Path]) -> None:
    early, _ = states
    refuses(early, "not signed by this log's keys", origin="other.example")


def _swap_signature(note: bytes) -> bytes:
    lines = signers().sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT), 1).split(b"\n\n")[1]
    return note.split(b"\n\n")[0] + b"\n\n" + lines


def _drop_mldsa(note: bytes) -> bytes:
    return b"".join(note.splitlines(keepends=True)[:5])


@pytest.mark.parametrize("change", [_swap_signature, _drop_mldsa])
def test_a_signature_that_is_not_of_this_checkpoint(
    states: tuple[Path, Path], change: Callable[[bytes], bytes]
) -> None:
    early, _ = states
    path = early / "log" / "checkpoint"
    path.write_bytes(change(path.read_bytes()))
    refuses(early, "not signed by this log's keys")


def test_what_was_not_tampered_with_starts(states: tuple[Path, Path]) -> None:
    for root, size in zip(states, (3, 300), strict=True):
        log = LocalLog.open(root)
        assert log.sequencer.health().size == size
        assert log.findings() == []
        log.close()
