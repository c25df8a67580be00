# SPDX-License-Identifier: Apache-2.0
"""The arithmetic behind docs/operations/log-scale.md, against real trees."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pq_registry.format.tile import TilePath
from pq_registry.log.tree import Edge
from tests.benchmarks import logscale
from tests.benchmarks.logscale import NONE, Files
from tests.logsamples import MemoryLog

ENTRY = b"x" * 40


@pytest.mark.parametrize(
    ("size", "batch"), [(1, 1), (255, 1), (256, 1), (600, 7), (1000, 300), (65536, 1000), (70000, 999), (70000, 70000)]
)
def test_files_are_those_a_tree_really_writes(size, batch):
    edge, full, partial = Edge(), NONE, NONE
    for start in range(0, size, batch):
        growth = edge.grow([ENTRY] * min(batch, size - start))
        for path, data in growth.tiles:
            if TilePath.parse(path).width == 256:
                full += Files(1, len(data))
            else:
                partial += Files(1, len(data))
        edge = growth.edge
    assert logscale.written(size, len(ENTRY) + 2, batch) == (full, partial)
    kept, at_edge = logscale.stored(size, len(ENTRY) + 2)
    assert kept == full
    assert at_edge.bytes == sum(map(len, edge.rows)) + len(edge.bundle)
    assert at_edge.files == sum(map(bool, [*edge.rows, edge.bundle]))


def test_counting_in_chunks_changes_nothing(monkeypatch):
    whole = logscale.written(70000, 42, 7)
    monkeypatch.setattr(logscale, "CHUNK", 999)
    assert logscale.written(70000, 42, 7) == whole


@pytest.mark.parametrize("witnesses", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 300, 5000])
def test_receipts_are_as_large_as_they_really_are(size, witnesses):
    log = MemoryLog(witnesses=witnesses)
    log.append_raw(*[b"x" * 374] * size)
    log.publish()
    for index in {0, size // 2, size - 1}:
        assert logscale.proof_length(index, size) == len(log.tree().inclusion_proof(index))
        assert abs(logscale.receipt_bytes(index, size, 374, witnesses) - len(log.receipt(index))) < 100


def test_a_hundred_million_leaves_have_proofs_of_27_hashes():
    size = 100_000_000
    assert logscale.proof_length(0, size) == 27
    assert max(logscale.proof_length(index, size) for index in range(0, size, 99_991)) == 27


def test_the_sequencer_is_bound_by_its_batches():
    """One publisher: batch, leaf and publication one after another. Many: nearly the rate of the leaves alone."""
    one = logscale.sequencing(1, batch_ms=8, leaf_ms=0.2, publish_ms=6)
    assert one["p50_ms"] == pytest.approx(14.2)
    assert one["appends_per_s"] == pytest.approx(1000 / 14.2, rel=0.01)
    many = logscale.sequencing(1000, batch_ms=8, leaf_ms=0.2, publish_ms=6)
    assert 0.8 * 5000 < many["appends_per_s"] <= 5000
    assert many["p99_ms"] < 1000


def test_the_command():
    words = [sys.executable, "-m", "tests.benchmarks.logscale", "--leaves", "1000", "--batch", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    plan = json.loads(done.stdout)
    assert plan["leaves"] == plan["written"]["checkpoints"] == 1000
    assert plan["kept"]["full"]["files"] == 6
    assert plan["sequencer"]["100 publishers"]["alone"]["appends_per_s"] > 0
