# SPDX-License-Identifier: Apache-2.0
"""E6: gc beside pushes, and crashes of both. Nothing a release refers to is ever lost, and no promise is broken.

A state machine uploads, asks what is missing, commits, lets time pass, collects and restarts. At every transaction of
a push the other side may run a whole collection, at every transaction of a collection a whole push, and either may
die there or in the middle of removing a file. gc works on stores it opened itself, as another process does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pq_registry import limits
from pq_registry.errors import Conflict, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import Envelope
from pq_registry.format.instant import utc_now
from pq_registry.format.name import RepositoryName
from pq_registry.service.collection import Collected, Collection, Stock
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller
from pq_registry.storage.blobs import DirectUploads
from pq_registry.storage.fsck import check_registry
from pq_registry.storage.incoming import Incoming
from pq_registry.storage.stores import Stores
from tests import stack
from tests.faults.depth import THOROUGH
from tests.faults.publishing import upload
from tests.logsetup import log_setup
from tests.samples import publisher, release

CONTENTS = tuple(b"%d" % number * 700 for number in range(4))
REPOSITORIES = (RepositoryName.parse("acme/minilm"), RepositoryName.parse("acme/other"))
GRACE = timedelta(days=1)
SURE = GRACE - timedelta(seconds=limits.GC_PROMISE_SECONDS)
"""For so long after an upload or a promise a blob must be there."""
STEPS = 14
"""At least as many transactions as one push or collection of these has."""


class Killed(BaseException):
    """The process ended here."""


@cache
def signed(repository: RepositoryName, chosen: tuple[int, ...]) -> tuple[Envelope, bytes]:
    return release({f"{number}.bin": CONTENTS[number] for number in chosen}, name=repository)


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@contextmanager
def at_call(target: Any, names: tuple[str, ...], number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do ``action`` before call ``number`` of one of the methods, once."""
    count = 0

    def hooked(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                action()
            return method(*arguments, **named)

        return call

    saved = {name: getattr(target, name) for name in names}
    try:
        for name, method in saved.items():
            setattr(target, name, hooked(method))
        yield
    finally:
        for name in names:
            delattr(target, name)


TRANSACTIONS = ("reading", "writing")
CHOICES = st.lists(st.sampled_from(range(len(CONTENTS))), min_size=1, max_size=3, unique=True).map(
    lambda chosen: tuple(sorted(chosen))
)
PLACES = st.integers(1, STEPS)
WHERE = st.sampled_from(REPOSITORIES)


class PushAndCollect(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="e6-"))
        self.clock = Clock()
        self.committed: dict[Digest, tuple[Digest, ...]] = {}
        self.promised: dict[Digest, datetime] = {}
        self.seen: dict[str, datetime] = {}

    @initialize()
    def begin(self) -> None:
        self.registry = self._open()
        self.registry.identities.register(host_caller(), REPOSITORIES[0].namespace, publisher().identity)

    def teardown(self) -> None:
        try:
            found = check_registry(self.registry.catalogue, self.registry.blobs)
            assert [item for item in found if not item.note] == []
            self.time_passes(24 * 30)
            self._collect()
            self.everything_committed_is_there()
            left = check_registry(self.registry.catalogue, self.registry.blobs)
            assert [f"{item.subject}: {item.problem}" for item in left if "in the log" not in item.problem] == []
        finally:
            self.registry.close()
            stack.forget_below(self.root)
            shutil.rmtree(self.root)

    # -- a push ------------------------------------------------------------------------------------------------------

    @rule(number=st.sampled_from(range(len(CONTENTS))))
    def upload_a_file(self, number: int) -> None:
        self._upload(CONTENTS[number])

    @rule(number=st.sampled_from(range(len(CONTENTS))), place=PLACES)
    def upload_and_die(self, number: int, place: int) -> None:
        with self._dying(self.registry.catalogue, TRANSACTIONS, place):
            self._upload(CONTENTS[number])
        self._restart()

    @rule(number=st.sampled_from(range(len(CONTENTS))), place=PLACES)
    def upload_and_be_collected(self, number: int, place: int) -> None:
        with at_call(self.registry.catalogue, TRANSACTIONS, place, self._collect):
            self._upload(CONTENTS[number])

    @rule(chosen=CHOICES)
    def ask(self, chosen: tuple[int, ...]) -> None:
        digests = [Digest.of(CONTENTS[number]) for number in chosen]
        missing = self.registry.resolving.missing(host_caller(), digests)
        for digest in digests:
            if digest not in missing:
                self.promised[digest] = self.clock()

    @rule(chosen=CHOICES, where=WHERE)
    def push(self, chosen: tuple[int, ...], where: RepositoryName) -> None:
        self._push(chosen, where)

    @rule(chosen=CHOICES, where=WHERE, place=PLACES)
    def push_and_be_collected(self, chosen: tuple[int, ...], where: RepositoryName, place: int) -> None:
        with at_call(self.registry.catalogue, TRANSACTIONS, place, self._collect):
            self._push(chosen, where)

    @rule(chosen=CHOICES, where=WHERE)
    def commit_only(self, chosen: tuple[int, ...], where: RepositoryName) -> None:
        self._commit(chosen, where)

    @rule(chosen=CHOICES, where=WHERE, place=PLACES)
    def commit_and_be_collected(self, chosen: tuple[int, ...], where: RepositoryName, place: int) -> None:
        with at_call(self.registry.catalogue, TRANSACTIONS, place, self._collect):
            self._commit(chosen, where)

    # -- a collection --------------------------------------------------------------------------------------------------

    @rule()
    def collect(self) -> None:
        self._collect()

    @rule(chosen=CHOICES, where=WHERE, place=PLACES)
    def collect_and_be_pushed_to(self, chosen: tuple[int, ...], where: RepositoryName, place: int) -> None:
        with (
            self._stores() as stores,
            at_call(stores.catalogue, TRANSACTIONS, place, lambda: self._push(chosen, where)),
        ):
            self._run(stores)

    @rule(chosen=CHOICES, where=WHERE, place=PLACES)
    def collect_and_be_committed_to(self, chosen: tuple[int, ...], where: RepositoryName, place: int) -> None:
        commit = lambda: self._commit(chosen, where)
        with self._stores() as stores, at_call(stores.catalogue, TRANSACTIONS, place, commit):
            self._run(stores)

    @rule(place=PLACES, inside=st.sampled_from((TRANSACTIONS, ("remove",), ("stored_at",))))
    def collect_and_die(self, place: int, inside: tuple[str, ...]) -> None:
        with self._stores() as stores:
            target = stores.catalogue if inside == TRANSACTIONS else stores.blobs
            with self._dying(target, inside, place if inside == TRANSACTIONS else place % 3 + 1):
                self._run(stores)

    # -- the world -----------------------------------------------------------------------------------------------------

    @rule(hours=st.sampled_from((6, 18, 25)))
    def time_passes(self, hours: int) -> None:
        with self._stores() as stores:  # what is there now is as old as now, whatever the disk's clock says
            self._see_all(stores)
        self.clock.ahead += timedelta(hours=hours)

    @precondition(lambda self: self.committed)
    @rule()
    def restart(self) -> None:
        self._restart()

    @invariant()
    def everything_committed_is_there(self) -> None:
        for digest in {digest for digests in self.committed.values() for digest in digests}:
            reader = self.registry.resolving.open_blob(host_caller(), digest)
            assert Digest.of(reader.read(0, reader.size)) == digest
            reader.close()

    @invariant()
    def promises_are_kept(self) -> None:
        for digest, at in self.promised.items():
            if self.clock() < at + SURE:
                reader = self.registry.resolving.open_blob(host_caller(), digest)
                assert Digest.of(reader.read(0, reader.size)) == digest
                reader.close()

    # ------------------------------------------------------------------------------------------------------------------

    def _open(self) -> Registry:
        return Registry.open(stack.store_config(self.root), self.clock, log=log_setup())

    def _restart(self) -> None:
        self.registry.close()
        self.registry = self._open()

    def _upload(self, content: bytes) -> None:
        try:
            upload(self.registry, content)
        except (
            NotFound,
            Conflict,
            StorageError,
        ):  # collected in the middle of it: a client begins again
            upload(self.registry, content)
        self.promised[Digest.of(content)] = self.clock()

    def _push(self, chosen: tuple[int, ...], where: RepositoryName) -> None:
        for number in chosen:
            self._upload(CONTENTS[number])
        self._upload(signed(where, chosen)[1])
        assert self._commit(chosen, where), "a push within the grace time failed"

    def _commit(self, chosen: tuple[int, ...], where: RepositoryName) -> bool:
        envelope, manifest = signed(where, chosen)
        try:
            digest, _ = self.registry.publishing.commit(host_caller(), where, envelope.encode())
        except Conflict:
            return False
        self.committed[digest] = (Digest.of(manifest), *(Digest.of(CONTENTS[number]) for number in chosen))
        return True

    @contextmanager
    def _stores(self) -> Iterator[Stores]:
        stores = Stores.open(stack.store_config(self.root), upgrade=False)
        try:
            yield stores
        finally:
            stores.close()

    def _collect(self) -> None:
        with self._stores() as stores:
            self._run(stores)

    def _run(self, stores: Stores) -> list[Collected]:
        incoming = Incoming(stores.config.directory.incoming) if stores.config.s3 is None else None
        stock = Stock(catalogue=stores.catalogue, blobs=stores.blobs, tiles=stores.tiles, incoming=incoming)
        with self._own_time(stock):
            return list(Collection(stock, now=self.clock(), grace=GRACE, dry=False).run())

    def _see_all(self, stores: Stores) -> None:
        for blob in stores.blobs.iterate():
            self._seen(f"{blob} {blob.copy}")
        if isinstance(stores.blobs, DirectUploads):
            for upload in stores.blobs.unfinished():
                self._seen(upload.storage_id)
        else:
            for upload_id, _, _ in Incoming(stores.config.directory.incoming).files():
                self._seen(upload_id)

    def _seen(self, name: str) -> datetime:
        return self.seen.setdefault(name, self.clock())

    @contextmanager
    def _own_time(self, stock: Stock) -> Iterator[None]:
        """Files and objects are as old as the machine's clock says, not as the disk's."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                stock.blobs, "stored_at", lambda blob, real=stock.blobs.stored_at:
                None if real(blob) is None else self._seen(f"{blob} {blob.copy}"),
            )  # fmt: skip
            if stock.incoming is not None:
                files = [(name, self._seen(name), size) for name, _, size in stock.incoming.files()]
                patch.setattr(stock.incoming, "files", lambda: files)
            if isinstance(stock.blobs, DirectUploads):
                unfinished = stock.blobs.unfinished
                patch.setattr(
                    stock.blobs, "unfinished",
                    lambda: [replace(one, started=self._seen(one.storage_id)) for one in unfinished()],
                )  # fmt: skip
            yield

    @contextmanager
    def _dying(self, target: Any, names: tuple[str, ...], place: int) -> Iterator[None]:
        def die() -> None:
            raise Killed

        try:
            with at_call(target, names, place, die):
                yield
        except Killed:
            pass


TestPushAndCollect = PushAndCollect.TestCase
TestPushAndCollect.settings = settings(
    max_examples=200 if THOROUGH else 4 if stack.SHARED else 20,
    stateful_step_count=30 if THOROUGH else 20,
    deadline=None,
    phases=(Phase.reuse, Phase.generate, Phase.shrink) if THOROUGH else (Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
