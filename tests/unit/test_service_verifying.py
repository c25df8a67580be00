# SPDX-License-Identifier: Apache-2.0
"""What becomes of an upload in an object store: verified by one of several instances, refused, or given up."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from pq_registry import limits
from pq_registry.errors import Conflict, FileDigestMismatch, NotFound
from pq_registry.format.digest import Digest
from pq_registry.service.completion import Verifying
from pq_registry.storage.blobs import StoredBlob
from pq_registry.storage.catalogue.tables import UploadRow
from tests.samples import REPOSITORY
from tests.upload_instances import BIG, CALLER, OTHER_REPOSITORY, Site, begin, complete, site, small_parts

__all__ = ["site", "small_parts"]  # fixtures


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


def test_two_instances_that_both_verified_a_later_copy_say_the_same(site: Site) -> None:
    """A blob of one part is verified in the request, by whoever is asked: a client that waited long asks another."""
    content = BIG[: limits.PART_BYTES]
    here, there = site.instance(), site.instance()
    first = begin(here, content, OTHER_REPOSITORY)
    site.send(first, content)
    assert complete(here, first, OTHER_REPOSITORY) == Digest.of(content)
    later = begin(here, content)
    site.send(later, content)
    answers: list[object] = []
    with site.held_up("read") as (begun, _):
        slow = threading.Thread(target=lambda: answers.append(complete(here, later)))
        slow.start()
        assert begun.wait(30)
        answers.append(complete(there, later))
    slow.join(30)
    assert answers == [Digest.of(content)] * 2
    assert list(site.store.objects) == [StoredBlob(Digest.of(content), first.id)]


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


def test_what_is_queued_when_the_service_stops_is_not_begun(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFYING_TASKS", 1)
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 0)
    uploads = site.instance()
    contents = [BIG + bytes([number]) for number in range(3)]
    with site.held_up("read") as (begun, _):
        for content in contents:
            state = begin(uploads, content)
            site.send(state, content)
            assert complete(uploads, state) == Verifying(0, len(content))
        assert begun.wait(30)
        closing = threading.Thread(target=uploads.close)
        closing.start()
        while not uploads._completion._verifications._stopping.is_set():
            pass
    closing.join(30)
    assert site.store.calls.count("finish") == 1
    assert site.blob(contents[1]) is None
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 30)
    other = site.instance()
    assert complete(other, begin(other, contents[1])) == Digest.of(contents[1])
