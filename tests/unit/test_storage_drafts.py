# SPDX-License-Identifier: Apache-2.0
"""Drafts as they are kept: gc leaves them what they have, fsck finds what was done to them, backups have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from pq_registry.errors import (
    PqregError,
)
from pq_registry.format.digest import Digest
from pq_registry.format.draft import encode_listing, parse_listing
from pq_registry.format.instant import utc_now
from pq_registry.service.collection import Collection, Stock
from pq_registry.service.hub.drafts import Drafts
from pq_registry.service.registry import Registry
from pq_registry.storage.backup import write_backup
from pq_registry.storage.catalogue.hubtables import DraftCommitRow, DraftRow
from pq_registry.storage.stores import Stores, opened
from tests import stack
from tests.drafting import (
    DAY,
    MAIN,
    PUBLISHER,
    A,
    B,
    begun,
    commit,
    problems,
    put,
)
from tests.logsetup import log_setup
from tests.samples import REPOSITORY


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(stack.store_config(tmp_path / "registry"), utc_now, log=log_setup())
    yield registry
    registry.close()


@pytest.fixture
def stores(registry: Registry, tmp_path: Path) -> Iterator[Stores]:
    with opened(stack.store_config(tmp_path / "registry")) as stores:
        yield stores


@pytest.fixture
def drafts(registry: Registry) -> Drafts:
    return begun(registry)


# -- gc, fsck ------------------------------------------------------------------------------------------------------


def collect(stores: Stores, days: int) -> list[str]:
    stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
    run = Collection(stock, now=utc_now() + days * DAY, grace=DAY, dry=False).run()
    return [item.subject for item in run if item.kind.value == "blob"]


def test_gc_keeps_what_a_draft_or_its_history_has(registry: Registry, drafts: Drafts, stores: Stores) -> None:
    commit(drafts, put(("a", A)))
    commit(drafts, put(("a", B)))
    assert collect(stores, 30) == []
    assert problems(registry) == []
    drafts.squash(PUBLISHER, REPOSITORY, MAIN, title="t", message="")
    assert collect(stores, 30) == [str(Digest.of(A))]
    drafts.drop(PUBLISHER, REPOSITORY, MAIN, head=None)
    assert collect(stores, 30) == [str(Digest.of(B))]
    assert problems(registry) == []


def test_gc_sees_a_commit_that_comes_while_it_runs(registry: Registry, drafts: Drafts, stores: Stores) -> None:
    """Between reading what is referred to and removing what is not."""
    stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
    collection = Collection(stock, now=utc_now() + 30 * DAY, grace=DAY, dry=False)
    writing, calls = stores.catalogue.writing, 0

    def late():
        nonlocal calls
        calls += 1
        if calls == 2:  # the first drops idle uploads
            commit(drafts, put(("a", A)))
        return writing()

    stores.catalogue.writing = late  # type: ignore[method-assign]
    gone = [item.subject for item in collection.run() if item.kind.value == "blob"]
    assert calls > 2
    assert gone == [str(Digest.of(B))]
    assert problems(registry) == []


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("UPDATE draft_commits SET title = 'x' WHERE files = 1", "its description is that of"),
        ("UPDATE draft_commits SET size = 1 WHERE files = 1", "number and size of files"),
        ("DELETE FROM repository_blobs", "does not refer to the blob of a"),
        ("UPDATE drafts SET head = '%s'" % ("0" * 40), "no commit 000"),
    ],
)
def test_fsck_finds_what_was_done_to_drafts(registry: Registry, drafts: Drafts, damage: str, found: str) -> None:
    commit(drafts, put(("a", A)))
    with registry.catalogue.writing() as session:
        session.connection().exec_driver_sql(damage)
    assert any(found in line for line in problems(registry))


def test_a_listing_that_cannot_be_read_stops_gc(registry: Registry, drafts: Drafts, stores: Stores) -> None:
    commit(drafts, put(("a", A)))
    with registry.catalogue.writing() as session:
        session.scalars(select(DraftCommitRow).where(DraftCommitRow.files == 1)).one().listing = b"[[]]"
    with pytest.raises(PqregError, match="cannot be read, so nothing is known to be unused"):
        collect(stores, 30)
    assert any("malformed" in line for line in problems(registry))
    drafts.drop(PUBLISHER, REPOSITORY, MAIN, head=None)  # as the hint says
    assert collect(stores, 30) != []


def test_a_backup_has_the_drafts(registry: Registry, drafts: Drafts, stores: Stores, tmp_path: Path) -> None:
    commit(drafts, put(("a", A)))
    write_backup(tmp_path / "backup", registry.catalogue, stores.tiles, now=utc_now(), settings={})
    assert len((tmp_path / "backup" / "tables" / "drafts.jsonl").read_bytes().splitlines()) == 2
    assert len((tmp_path / "backup" / "tables" / "draft_commits.jsonl").read_bytes().splitlines()) == 3


# -- listings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b'[["b","' + b"0" * 64 + b'",1],["a","' + b"0" * 64 + b'",1]]',
        b'[["a","' + b"0" * 64 + b'",1],["A","' + b"0" * 64 + b'",1]]',
        b'[["../a","' + b"0" * 64 + b'",1]]',
        b'[["a","sha256:' + b"0" * 64 + b'",1]]',
        b'[["a","' + b"0" * 64 + b'",-1]]',
        b'[["a","' + b"0" * 64 + b'",true]]',
        b'[ ["a","' + b"0" * 64 + b'",1]]',
        b'[["a","' + b"0" * 64 + b'"]]',
        b"{}",
        b"",
    ],
)
def test_a_listing_has_one_form(data: bytes) -> None:
    with pytest.raises(PqregError):
        parse_listing(data)


def test_a_listing_comes_back(drafts: Drafts, registry: Registry) -> None:
    commit(drafts, put(("b", A), ("ä/f", B)))
    with registry.catalogue.reading() as session:
        head = session.scalars(select(DraftRow.head)).one()
        listing = session.scalars(select(DraftCommitRow.listing).where(DraftCommitRow.id == head)).one()
    assert encode_listing(reversed(parse_listing(listing))) == listing
