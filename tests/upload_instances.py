# SPDX-License-Identifier: Apache-2.0
"""Instances of the upload use cases on one catalogue and one object store in memory, without HTTP."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.completion import Verifying
from pq_registry.service.direct import ObjectTransfer
from pq_registry.service.tokens import host_caller
from pq_registry.service.uploads import Uploads, UploadState
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.tables import BlobRow, RepositoryBlobRow, UploadRow
from tests.memorystore import MemoryStore
from tests.samples import REPOSITORY
from tests.server_harness import MovableClock

CALLER = host_caller()
OTHER_REPOSITORY = RepositoryName.parse("acme/other")
PART = 2 * limits.SHARD_BYTES
BIG = os.urandom(2 * PART + 12345)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES", PART)


class Site:
    """One catalogue, one store, and as many instances as a test wants."""

    def __init__(self, path: Path) -> None:
        self.catalogue = Catalogue.open_sqlite(path / "catalogue.sqlite3", upgrade=True)
        self.store = MemoryStore()
        self.clock = MovableClock()
        self.instances: list[Uploads] = []

    def instance(self) -> Uploads:
        self.instances.append(Uploads(self.catalogue, ObjectTransfer(self.store), self.clock))
        return self.instances[-1]

    def row(self, upload: str) -> UploadRow | None:
        with self.catalogue.reading() as session:
            return session.get(UploadRow, upload)

    def blob(self, content: bytes) -> BlobRow | None:
        with self.catalogue.reading() as session:
            return session.get(BlobRow, Digest.of(content).hex)

    def links(self, content: bytes) -> int:
        with self.catalogue.reading() as session:
            return session.query(RepositoryBlobRow).filter_by(digest=Digest.of(content).hex).count()

    def send(self, state: UploadState, content: bytes, *numbers: int) -> None:
        """What a client does with the requests it got signed."""
        row = self.row(state.id)
        assert row is not None
        for number in numbers or range(-(-len(content) // state.part_size)):
            self.store.send(row.storage_id, number, content[number * state.part_size : (number + 1) * state.part_size])

    @contextmanager
    def held_up(self, what: str) -> Iterator[tuple[threading.Event, threading.Event]]:
        """The store's next ``what`` says that it begins, and waits until it may."""
        begun, may = threading.Event(), threading.Event()

        def trouble(happens: str) -> None:
            if happens == what and not begun.is_set():
                begun.set()
                assert may.wait(30)

        self.store.trouble = trouble
        try:
            yield begun, may
        finally:
            may.set()
            self.store.trouble = lambda _: None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    for uploads in found.instances:
        uploads.close()
    found.catalogue.close()


def begin(
    uploads: Uploads, content: bytes, repository: RepositoryName = REPOSITORY, caller: Caller = CALLER, **changes: int
) -> UploadState:
    options = {"size": len(content), "slice_size": limits.SHARD_BYTES, **changes}
    return uploads.open(caller, repository, digest=Digest.of(content), **options)[0]


def relay(uploads: Uploads, state: UploadState, data: bytes) -> None:
    writer = uploads.begin_part(CALLER, REPOSITORY, state.id, number=0, length=len(data), shards=shard_digests(data))
    if writer is not None:
        writer.write(data)
        writer.finish()
        writer.close()


def complete(uploads: Uploads, state: UploadState, repository: RepositoryName = REPOSITORY) -> Digest | Verifying:
    return uploads.complete(CALLER, repository, state.id)
