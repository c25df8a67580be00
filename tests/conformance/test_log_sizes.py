# SPDX-License-Identifier: Apache-2.0
"""A log on disk as the service grows it, at the sizes where tiles begin and end: 1, 255, 256, 257, 65 536, 70 000.

At each of them the files are exactly those of c2sp.org/tlog-tiles, every leaf is read back, empty ones and the longest
possible among them, and proofs are accepted by PyPI's ``scitt-cose``, which shares no code with us.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.format.checkpoint import Checkpoint
from pq_registry.format.tile import TilePath, tiles_of
from pq_registry.log.merkle import CompactRange, leaf_row
from pq_registry.log.tree import Tree
from tests.local_log import TIMEOUT, LocalLog

SIZES = (1, 255, 256, 257, 65_536, 70_000)
SPECIAL = {0: b"x" * 65_535, 100: b"", 255: b"y" * 65_535, 256: b"", 65_535: b"z" * 65_535, 69_999: b""}
SPECIFICATION = {
    "tile/0/273.p/112",
    "tile/1/000",
    "tile/1/001.p/17",
    "tile/2/000.p/1",
    "tile/entries/273.p/112",
}
"""What tlog-tiles says about 70 000 leaves, besides 273 full tiles at level 0."""

pytestmark = pytest.mark.slow


def entry(index: int) -> bytes:
    return SPECIAL.get(index, b"leaf %d" % index)


def entry_at(index: int, _time: int) -> bytes:
    return entry(index)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalLog, list[Checkpoint]]]:
    """A log that was stopped and started between sizes, and its checkpoint at each of them."""
    root: Path = tmp_path_factory.mktemp("log")
    checkpoints: list[Checkpoint] = []
    for start, size in zip((0, *SIZES), SIZES, strict=False):
        log = LocalLog.open(root)
        for first in range(start, size, limits.LOG_BATCH_ENTRIES):
            some = range(first, min(first + limits.LOG_BATCH_ENTRIES, size))
            last = [log.sequencer.append(partial(entry_at, index)) for index in some][-1].result(TIMEOUT)
        log.sequencer.wait_published(last.index, TIMEOUT)
        checkpoints.append(log.shown)
        log.close()
    log = LocalLog.open(root)
    yield log, checkpoints
    log.close()


def test_the_checkpoints_are_those_of_the_leaves(grown) -> None:
    log, checkpoints = grown
    assert tuple(checkpoint.size for checkpoint in checkpoints) == SIZES
    tree = CompactRange()
    for checkpoint in checkpoints:
        tree.extend(leaf_row(map(entry, range(tree.size, checkpoint.size))))
        assert checkpoint.root == tree.root
    assert list(Tree(log.tiles, SIZES[-1], tree.root).entries(0, SIZES[-1])) == [entry(i) for i in range(SIZES[-1])]


@pytest.mark.parametrize("position", range(len(SIZES)), ids=map(str, SIZES))
def test_every_tile_of_every_checkpoint_is_there_or_the_full_one(grown, position: int) -> None:
    log, checkpoints = grown
    checkpoint = checkpoints[position]
    for tile in tiles_of(checkpoint.size):
        path, full = (log.tiles.root / each.path for each in (tile, TilePath(tile.level, tile.index)))
        assert path.exists() != (full.exists() and path != full)
        data = (path if path.exists() else full).read_bytes()
        assert tile.level < 0 or len(data) in {32 * tile.width, 32 * 256}
    tree = Tree(log.tiles, checkpoint.size, checkpoint.root)
    for index in {*SPECIAL, 1, checkpoint.size - 1}:
        if index < checkpoint.size:
            assert list(tree.entries(index, index + 1)) == [entry(index)]


def test_there_is_nothing_else(grown) -> None:
    log, _ = grown
    paths = {name for name in log.tiles.names() if name not in {"checkpoint", "vkey"}}
    assert {TilePath.parse(path).path for path in paths} == paths
    assert paths >= SPECIFICATION
    full = [path for path in paths if path.startswith("tile/0/") and ".p/" not in path]
    assert len(full) == 273
    assert not any((log.tiles.root / f"tile/{level}").exists() for level in range(3, 64))


@pytest.mark.skipif(importlib.util.find_spec("scitt_cose") is None, reason="PyPI's scitt-cose is not installed")
def test_an_independent_checker_accepts_its_proofs(grown) -> None:
    from scitt_cose.merkle import verify_consistency, verify_inclusion

    log, checkpoints = grown
    for checkpoint in checkpoints:
        tree = Tree(log.tiles, checkpoint.size, checkpoint.root)
        for index in {index for index in (*SPECIAL, checkpoint.size - 1) if index < checkpoint.size}:
            proof = [value.hex() for value in tree.inclusion_proof(index)]
            assert verify_inclusion(entry(index).hex(), index, checkpoint.size, proof, checkpoint.root.hex()) is True
        for old in checkpoints:
            if old.size < checkpoint.size:
                proof = [value.hex() for value in tree.consistency_proof(old.size)]
                roots = old.root.hex(), checkpoint.root.hex()
                assert verify_consistency(*roots, old.size, checkpoint.size, proof) is True


def test_partial_tiles_are_removed_once_the_full_one_is_there(grown) -> None:
    """The last test here, as it lets the log go on."""
    log, checkpoints = grown
    partial = [name for name in log.tiles.names() if ".p/" in name]
    assert partial
    assert not [name for name in partial if (log.tiles.root / name.partition(".p/")[0]).exists()]
    for checkpoint in checkpoints:
        tree = Tree(log.tiles, checkpoint.size, checkpoint.root)
        last = checkpoint.size - 1
        assert list(tree.entries(last, checkpoint.size)) == [entry(last)]
        assert tree.inclusion_proof(last) is not None
    done = log.sequencer.append(lambda _time: b"goes on").result(TIMEOUT)
    assert done.index == SIZES[-1]
