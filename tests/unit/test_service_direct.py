# SPDX-License-Identifier: Apache-2.0
"""Uploads into an object store: from the first request to the last part, and what goes wrong on the way."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.crypto.shards import shard_digests
from pq_registry.errors import Conflict, FileDigestMismatch, FormatError, NotFound, StorageError
from pq_registry.format.digest import Digest
from pq_registry.service.transfer import WantedPart
from pq_registry.service.uploads import UploadState
from pq_registry.storage.blobs import StoredBlob
from tests.samples import REPOSITORY
from tests.upload_instances import BIG, CALLER, PART, Site, begin, complete, relay, site, small_parts

__all__ = ["site", "small_parts"]  # fixtures


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


def test_small_bytes_of_another_blob_are_never_stored(site: Site) -> None:
    uploads = site.instance()
    state = begin(uploads, b"right")
    relay(uploads, state, b"wrong")
    assert not site.store.objects
    with pytest.raises(FileDigestMismatch):
        complete(uploads, state)
    assert "put" not in site.store.calls


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
