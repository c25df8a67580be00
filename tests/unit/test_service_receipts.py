# SPDX-License-Identifier: Apache-2.0
"""How the service makes receipts: one look-up for a batch, and the right checkpoint for every leaf all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pq_registry.errors import StorageError
from pq_registry.format.checkpoint import parse_checkpoint_note
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.tlogpolicy import LogPolicy
from pq_registry.format.tlogproof import TlogProof
from pq_registry.log.receipt import verify_receipt
from pq_registry.service.receipts import Receipts
from tests.local_log import IDENTITY, NAME, LocalLog, envelope, open_catalogue, record_statements
from tests.logsamples import compose_policy

BATCHES = (1, 40, 1, 1, 7, 50)


class Counting:
    """A lock that counts what it is asked."""

    def __init__(self, log: LocalLog) -> None:
        self._lock = log.lock
        self.asked = 0

    def published_covering(self, index: int) -> bytes | None:
        self.asked += 1
        return self._lock.published_covering(index)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    catalogue = open_catalogue(tmp_path)
    record_statements(catalogue, sum(BATCHES))
    catalogue.close()
    log = LocalLog.open(tmp_path)
    begun = 0
    for count in BATCHES:
        log.append(*range(begun, begun + count))
        begun += count
    yield log
    log.close()


def leaves(log: LocalLog) -> list[Leaf]:
    return [Leaf.parse(entry) for entry in log.entries()]


@pytest.mark.parametrize("order", [1, -1])
def test_every_leaf_gets_the_first_checkpoint_that_covers_it(log: LocalLog, order: int) -> None:
    lock = Counting(log)
    receipts = Receipts(lock, log.tiles, compose_policy())  # type: ignore[arg-type]  # the part of a lock it uses
    sizes = set()
    for index, leaf in list(enumerate(leaves(log)))[::order]:
        proof = receipts.of(leaf, index)
        assert proof is not None
        assert proof.quorum
        note = TlogProof.parse(proof.receipt).checkpoint
        assert note == log.lock.published_covering(index)
        sizes.add(parse_checkpoint_note(note)[0].size)
    assert max(sizes) == sum(BATCHES)
    if order == 1:  # as leaves of a batch come: at most two questions for each checkpoint
        assert lock.asked <= 2 * len(sizes)


def test_its_receipts_verify(log: LocalLog) -> None:
    receipts = Receipts(log.lock, log.tiles, compose_policy())
    for index, leaf in enumerate(leaves(log)):
        proof = receipts.of(leaf, index)
        assert proof is not None
        number = next(n for n in range(sum(BATCHES)) if envelope(n).payload_digest == leaf.payload)
        verified = verify_receipt(
            proof.receipt, envelope=envelope(number), kind=Kind.TAG, name=NAME, identity=IDENTITY,
            policies=[LogPolicy(compose_policy())],
        )  # fmt: skip
        assert verified.index == index


def test_nothing_for_a_leaf_that_is_not_published_yet(log: LocalLog) -> None:
    receipts = Receipts(log.lock, log.tiles, compose_policy())
    assert receipts.of(leaves(log)[0], sum(BATCHES)) is None


def test_no_receipt_for_another_leaf(log: LocalLog) -> None:
    """B7: a receipt that was looked up before is held against the leaf each time."""
    receipts = Receipts(log.lock, log.tiles, compose_policy())
    leaf = leaves(log)[3]
    assert receipts.of(leaf, 3) is not None
    for other, index in ((replace(leaf, time=leaf.time + 1), 3), (leaf, 4)):
        with pytest.raises(StorageError):
            receipts.of(other, index)
