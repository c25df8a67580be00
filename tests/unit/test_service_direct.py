# SPDX-License-Identifier: Apache-2.0
"""Uploads into an object store, without HTTP: two instances on one catalogue and one store, and what goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import Conflict, FileDigestMismatch, FormatError, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.completion import Verifying
from pq_registry.service.direct import ObjectTransfer
from pq_registry.service.tokens import host_caller
from pq_registry.service.transfer import WantedPart
from pq_registry.service.uploads import Uploads, UploadState
from pq_registry.storage.blobs import StoredBlob
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


def test_an_upload_begun_at_one_instance_goes_on_and_ends_at_others(site: Site) -> None:
    state = begin(site.instance(), BIG)
    assert (state.transfer, state.part_size, state.parts) == ("direct", PART, ())
    site.send(state, BIG, 2, 0)
    assert begin(site.instance(), BIG) == replace(state, parts=(0, 2))
    site.send(state, BIG, 1)
    assert site.instance().show(CALLER, REPOSITORY, state.id).parts == (0, 1, 2)
    assert complete(site.instance(), state) == Digest.of(BIG)
    assert complete(site.instance(), state) == Digest.of(BIG)  # an answer that was lost
    row = site.blob(BIG)
    assert row is not None
    assert (row.copy, row.size, row.shards) == (state.id, len(BIG), shard_digests(BIG))
    assert site.store.objects == {StoredBlob(Digest.of(BIG), state.id): BIG}
    assert not site.store.multiparts
    assert site.row(state.id) is None


def test_sealed_slices_are_hashed_as_such(site: Site) -> None:
    slice_size = limits.SHARD_BYTES + limits.SEAL_TAG_BYTES
    uploads = site.instance()
    state = begin(uploads, BIG, slice_size=slice_size)
    site.send(state, BIG)
    assert complete(uploads, state) == Digest.of(BIG)
    row = site.blob(BIG)
    assert row is not None
    assert row.shards == shard_digests(BIG, slice_size)


@pytest.mark.parametrize("content", [b"", b"small", bytes(limits.SHARD_BYTES)])
def test_what_is_one_slice_comes_through_the_service(site: Site, content: bytes) -> None:
    uploads = site.instance()
    state = begin(uploads, content)
    assert state.transfer == "relay"
    if content:
        relay(uploads, state, content)
        assert site.instance().show(CALLER, REPOSITORY, state.id).parts == (0,)
    assert complete(site.instance(), state) == Digest.of(content)
    assert site.store.objects == {StoredBlob(Digest.of(content), state.id): content}
    assert "begin" not in site.store.calls
    row = site.blob(content)
    assert row is not None
    assert (row.copy, row.shards) == (state.id, shard_digests(content))


def test_the_two_ways_do_not_mix(site: Site) -> None:
    uploads = site.instance()
    direct, relayed = begin(uploads, BIG), begin(uploads, b"small")
    part = BIG[:PART]
    with pytest.raises(Conflict, match="straight to the storage"):
        uploads.begin_part(CALLER, REPOSITORY, direct.id, number=0, length=PART, shards=shard_digests(part))
    with pytest.raises(Conflict, match="through the registry"):
        uploads.sign(CALLER, REPOSITORY, relayed.id, [WantedPart(0, Digest.of(b"small"))])


def test_a_request_is_signed_for_one_part_of_one_length_and_digest(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    wanted = [WantedPart(number, Digest.of(bytes([number]))) for number in (2, 0)]
    last, first = uploads.sign(CALLER, REPOSITORY, state.id, wanted)
    assert (first.headers["content-length"], last.headers["content-length"]) == (str(PART), str(len(BIG) - 2 * PART))
    assert first.headers["x-amz-checksum-sha256"] == wanted[1].sha256.hex
    assert "uploadId" not in repr(first)
    for number in (-1, 3):
        with pytest.raises(FormatError, match="no such part"):
            uploads.sign(CALLER, REPOSITORY, state.id, [WantedPart(number, Digest.of(b""))])
    stranger = replace(CALLER, token_id="0123456789abcdef")
    for call in (uploads.sign, uploads.complete, uploads.show, uploads.abort):
        arguments = ([wanted[0]],) if call == uploads.sign else ()
        with pytest.raises(NotFound):
            call(stranger, REPOSITORY, state.id, *arguments)


def test_parts_of_another_length_are_not_there(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    site.send(state, BIG)
    row = site.row(state.id)
    assert row is not None
    site.store.send(row.storage_id, 1, BIG[: PART - 1])
    site.store.send(row.storage_id, 7, b"nobody asked for this")
    assert uploads.show(CALLER, REPOSITORY, state.id).parts == (0, 2)
    with pytest.raises(Conflict, match="missing"):
        complete(uploads, state)
    assert "finish" not in site.store.calls


def test_other_bytes_are_refused_wherever_that_is_asked(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    site.send(state, bytes(len(BIG)))
    with pytest.raises(FileDigestMismatch) as caught:
        complete(uploads, state)
    assert str(Digest.of(bytes(len(BIG)))) in str(caught.value)
    assert not site.store.objects
    assert site.row(state.id) is None
    assert site.blob(BIG) is None


def test_a_refusal_waits_for_whoever_asks_next(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 0)
    first, second = site.instance(), site.instance()
    state = begin(first, BIG)
    site.send(state, bytes(len(BIG)))
    with site.held_up("read") as (begun, _):
        assert complete(first, state) == Verifying(0, len(BIG))
        assert begun.wait(30)
    while (row := site.row(state.id)) is not None and not row.refused:
        pass  # nobody waits for the job
    with pytest.raises(Conflict, match="another file's"):
        second.show(CALLER, REPOSITORY, state.id)
    with pytest.raises(FileDigestMismatch):
        complete(second, state)
    with pytest.raises(NotFound):
        complete(second, state)
    assert begin(second, BIG).id != state.id


def test_an_upload_that_was_refused_can_be_opened_again_at_once(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    with site.catalogue.writing() as session:
        row = session.get(UploadRow, state.id)
        assert row is not None
        row.refused = "other bytes"
    again = begin(uploads, BIG)
    assert again.id != state.id
    assert site.row(state.id) is None


def test_small_bytes_of_another_blob_are_never_stored(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, b"right")
    relay(uploads, state, b"wrong")
    assert not site.store.objects
    with pytest.raises(FileDigestMismatch):
        complete(uploads, state)
    assert "put" not in site.store.calls


def test_the_first_verified_copy_stays_and_later_ones_are_removed(site: Site) -> None:
    uploads = site.instance()
    first = begin(uploads, BIG)
    site.send(first, BIG)
    assert complete(uploads, first) == Digest.of(BIG)
    second = begin(uploads, BIG, OTHER_REPOSITORY)
    site.send(second, BIG)
    assert complete(uploads, second, OTHER_REPOSITORY) == Digest.of(BIG)
    assert list(site.store.objects) == [StoredBlob(Digest.of(BIG), first.id)]
    assert site.links(BIG) == 2


def test_two_instances_that_both_verified_keep_the_object(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks that differ make two instances verify one upload; the second to commit must not remove what the first
    one recorded."""
    monkeypatch.setattr(limits, "VERIFYING_RENEWAL_SECONDS", 10**6)  # so that it does not find out before
    slow, quick = site.instance(), site.instance()
    state = begin(slow, BIG)
    site.send(state, BIG)
    outcome: list[object] = []
    with site.held_up("read") as (begun, may):
        thread = threading.Thread(target=lambda: outcome.append(complete(slow, state)))
        thread.start()
        assert begun.wait(30)
        site.clock.offset += timedelta(seconds=limits.VERIFYING_SECONDS + 1)
        assert complete(quick, state) == Digest.of(BIG)
        may.set()
        thread.join(30)
    assert outcome == [Digest.of(BIG)]
    assert list(site.store.objects) == [StoredBlob(Digest.of(BIG), state.id)]


def test_one_instance_verifies_and_the_others_wait_until_it_has_died(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 0)
    dying, other = site.instance(), site.instance()
    state = begin(dying, BIG)
    site.send(state, BIG)
    with site.held_up("read") as (begun, _):
        assert complete(dying, state) == Verifying(0, len(BIG))
        assert begun.wait(30)
        assert complete(other, state) == Verifying(0, len(BIG))
        assert other._completion._verifications.find(state.id) is None
        assert site.store.calls.count("open") == 1
        site.clock.offset += timedelta(seconds=limits.VERIFYING_SECONDS + 1)
        monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 30)
        assert complete(other, state) == Digest.of(BIG)
        assert site.store.calls.count("open") == 2


def test_how_far_it_is_can_be_seen_from_every_instance(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 0)
    monkeypatch.setattr(limits, "VERIFYING_RENEWAL_SECONDS", 0)
    content = BIG * 3
    worker, other = site.instance(), site.instance()
    state = begin(worker, content)
    site.send(state, content)
    read, fourth, may = 0, threading.Event(), threading.Event()

    def trouble(what: str) -> None:
        nonlocal read
        read += what == "read"
        if read == 5:
            fourth.set()
            assert may.wait(30)

    site.store.trouble = trouble
    try:
        assert isinstance(complete(worker, state), Verifying)
        assert fourth.wait(30)
        row = site.row(state.id)
        while row is None or not row.verified:  # written by the job, which is ahead of nobody else here
            row = site.row(state.id)
        assert complete(other, state) == Verifying(row.verified, len(content))
        assert 0 < row.verified < len(content)
    finally:
        may.set()
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 30)
    assert complete(other, state) == Digest.of(content)


def test_a_store_that_fails_leaves_everything_for_the_next_try(site: Site) -> None:
    uploads, other = site.instance(), site.instance()
    state = begin(uploads, BIG)
    site.send(state, BIG)

    def trouble(what: str) -> None:
        if what == "read":
            raise StorageError("the store failed")

    site.store.trouble = trouble
    with pytest.raises(StorageError, match="the store failed"):
        complete(uploads, state)
    row = site.row(state.id)
    assert row is not None
    assert row.verifier == ""  # so that no instance has to wait until the claim lapses
    site.store.trouble = lambda _: None
    assert complete(other, state) == Digest.of(BIG)
    assert site.store.calls.count("finish") == 1


def test_a_stopping_service_gives_the_verification_to_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 0)
    stopping, other = site.instance(), site.instance()
    state = begin(stopping, BIG)
    site.send(state, BIG)
    with site.held_up("read") as (begun, may):
        assert complete(stopping, state) == Verifying(0, len(BIG))
        assert begun.wait(30)
        closing = threading.Thread(target=stopping.close)
        closing.start()
        while not stopping._completion._verifications._stopping.is_set():
            pass
        may.set()
        closing.join(30)
    row = site.row(state.id)
    assert row is not None
    assert row.verifier == ""
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 30)
    assert complete(other, state) == Digest.of(BIG)


def test_an_upload_aborted_while_it_is_verified_leaves_nothing(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    site.send(state, BIG)
    outcome: list[object] = []

    def ask() -> None:
        with pytest.raises(NotFound):
            complete(uploads, state)
        outcome.append("refused")

    with site.held_up("read") as (begun, _):
        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(30)
        site.instance().abort(CALLER, REPOSITORY, state.id)
    thread.join(30)
    assert outcome == ["refused"]
    assert not site.store.objects
    assert not site.store.multiparts
    assert site.blob(BIG) is None


def test_what_the_store_has_lost_is_begun_again(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    site.send(state, BIG, 0)
    site.store.multiparts.clear()  # a lifecycle rule of the bucket
    with pytest.raises(StorageError, match="lost an upload"):
        complete(uploads, state)
    assert uploads.show(CALLER, REPOSITORY, state.id).parts == ()
    site.send(state, BIG)
    assert complete(uploads, state) == Digest.of(BIG)


def test_no_row_without_the_stores_upload_and_none_of_those_without_a_row(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = site.instance()

    def trouble(what: str) -> None:
        if what == "begin":
            raise StorageError("the store failed")

    site.store.trouble = trouble
    with pytest.raises(StorageError):
        begin(uploads, BIG)
    site.store.trouble = lambda _: None
    assert begin(uploads, BIG + b"1").parts == ()
    monkeypatch.setattr(limits, "OPEN_UPLOADS", 1)
    with pytest.raises(Conflict, match="too many"):
        begin(uploads, BIG + b"2")
    assert len(site.store.multiparts) == 1


def test_of_two_requests_that_open_one_upload_one_is_new(site: Site) -> None:
    first, second = site.instance(), site.instance()
    states: list[UploadState] = []
    with site.held_up("begin") as (begun, may):
        thread = threading.Thread(target=lambda: states.append(begin(first, BIG)))
        thread.start()
        assert begun.wait(30)
        states.append(begin(second, BIG))
        may.set()
        thread.join(30)
    assert states[0] == states[1]
    assert len(site.store.multiparts) == 1


def test_idle_uploads_and_those_nobody_knows_are_swept(site: Site) -> None:
    uploads = site.instance()
    idle, small = begin(uploads, BIG), begin(uploads, b"small")
    relay(uploads, small, b"small")
    site.store.now = site.clock()
    orphan = StoredBlob(Digest.of(b"orphan"), "0" * 32)
    site.store.begin(orphan)
    assert uploads.sweep(CALLER, starting=True) == 0
    site.clock.offset = timedelta(seconds=limits.ORPHAN_UPLOAD_SECONDS - 60)
    assert uploads.sweep(CALLER, starting=False) == 0
    site.clock.offset = timedelta(seconds=limits.ORPHAN_UPLOAD_SECONDS + 60)
    fresh = begin(uploads, BIG + b"fresh")
    assert uploads.sweep(CALLER, starting=False) == 1
    assert {blob.copy for blob, _, _ in site.store.multiparts.values()} == {idle.id, fresh.id}
    site.clock.offset = timedelta(seconds=limits.UPLOAD_IDLE_SECONDS + 60)
    assert uploads.sweep(CALLER, starting=False) == 2
    assert {blob.copy for blob, _, _ in site.store.multiparts.values()} == {fresh.id}
    assert not site.store.objects
    assert site.row(idle.id) is None


def test_asking_for_urls_keeps_an_upload_from_being_swept(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, BIG)
    for _ in range(3):
        site.clock.offset += timedelta(seconds=limits.UPLOAD_IDLE_SECONDS * 0.9)
        uploads.sign(CALLER, REPOSITORY, state.id, [WantedPart(0, Digest.of(b""))])
        assert uploads.sweep(CALLER, starting=False) == 0
