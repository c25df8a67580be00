# SPDX-License-Identifier: Apache-2.0
"""E6: a draft is committed, or dropped, between any two transactions of a collection; what it has is never lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import Conflict
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.service.collection import Collection, Stock
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.stores import Stores, opened
from tests import stack
from tests.drafting import DEV, MAIN, PUBLISHER, begun, commit, put
from tests.faults.publishing import upload
from tests.logsetup import log_setup
from tests.samples import REPOSITORY

DAY = timedelta(days=1)
Transaction = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry.open(stack.store_config(tmp_path / "registry"), utc_now, log=log_setup())
    begun(registry)
    yield registry
    registry.close()


@pytest.fixture
def stores(registry: Registry, tmp_path: Path) -> Iterator[Stores]:
    with opened(stack.store_config(tmp_path / "registry")) as stores:
        yield stores


def collect(stores: Stores, at: int, action: Callable[[], None]) -> int:
    """A collection long after everything, with ``action`` before its transaction ``at``; how many it had."""
    catalogue, count = stores.catalogue, 0

    def hooked(begin: Transaction) -> Transaction:
        def transaction(*arguments: Any, **named: Any) -> AbstractContextManager[Any]:
            nonlocal count
            count += 1
            if count == at:
                action()
            return begin(*arguments, **named)

        return transaction

    saved = catalogue.reading, catalogue.writing
    catalogue.reading, catalogue.writing = map(hooked, saved)  # type: ignore[method-assign, assignment]
    try:
        stock = Stock(catalogue=catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=None)
        list(Collection(stock, now=utc_now() + 30 * DAY, grace=DAY, dry=False).run())
    finally:
        catalogue.reading, catalogue.writing = saved  # type: ignore[method-assign]
    return count


def test_what_a_draft_has_is_there_whenever_it_came(registry: Registry, stores: Stores) -> None:
    drafts, kept, at, more = registry.drafts, 0, 1, True
    while more:
        content = b"the file of try %d" % at
        upload(registry, content)
        done: list[bool] = []

        def push(content: bytes = content, done: list[bool] = done) -> None:
            try:
                commit(drafts, put(("a", content)))
            except Conflict:
                done.append(False)
            else:
                done.append(True)

        collect(stores, at, push)
        more = bool(done)
        found = [item for item in check_registry(registry.catalogue, registry.blobs) if not item.note]
        assert found == [], f"before transaction {at}"
        if done == [True]:
            kept += 1
            reader = registry.resolving.open_blob(host_caller(), Digest.of(content))
            assert reader.read(0, reader.size) == content
            reader.close()
        at += 1
    assert kept >= 3, "the early transactions are before anything is removed"
    assert kept < at - 2, "and the late ones after"


def test_a_draft_may_go_at_any_moment(registry: Registry, stores: Stores) -> None:
    drafts, at, more = registry.drafts, 1, True
    while more:
        content = b"the file of try %d" % at
        upload(registry, content)
        commit(drafts, put(("a", content)), DEV)
        done: list[bool] = []

        def drop(done: list[bool] = done) -> None:
            drafts.drop(PUBLISHER, REPOSITORY, DEV, head=None)
            done.append(True)

        collect(stores, at, drop)
        more = bool(done)
        assert [item for item in check_registry(registry.catalogue, registry.blobs) if not item.note] == []
        at += 1
    assert at > 4
    assert drafts.head(PUBLISHER, REPOSITORY, MAIN) is not None
