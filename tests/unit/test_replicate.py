# SPDX-License-Identifier: Apache-2.0
"""Replication between two real registries: complete, verified, resumable, and honest about what it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pq_registry import limits
from pq_registry.client.replicate.report import Action, Report
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.tagging import move_tag
from pq_registry.client.transport import RegistryClient
from pq_registry.errors import ConnectionFailed, NotAuthenticated, NotFound, TagExpired, TagRollback, TagWithdrawn
from pq_registry.format.digest import Digest
from pq_registry.format.instant import utc_now
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import Namespace, Reference, RepositoryName
from pq_registry.format.trustlog import EXEMPT
from tests.moving import Move, recipient, two_registries
from tests.publishing import make_model, observed, publisher_at, push_as, tag_of


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Move]:
    with two_registries(tmp_path_factory.mktemp("registries")) as move:
        yield move


@pytest.fixture
def move(registries: Move, tmp_path: Path) -> Move:
    """The two registries, and a namespace and a home of the test's own."""
    return replace(registries, home=tmp_path, acme=Namespace(f"acme{len(list(tmp_path.parent.iterdir()))}"))


def sent(report: Report) -> dict[str, int]:
    """Statements per kind."""
    kinds = {one.kind for one in report.outcomes if one.action is Action.SENT}
    return {
        kind: sum(one.count for one in report.outcomes if one.kind == kind and one.action is Action.SENT)
        for kind in kinds
    }


def test_everything_arrives_and_a_second_run_sends_nothing(move: Move) -> None:
    move.revoke()
    node = recipient()
    move.certify(node)
    first = move.push(f"{move.acme}/minilm:v1", 1)
    second = move.push(f"{move.acme}/minilm:v1", 2)
    move.tag(f"{move.acme}/minilm:old", first)
    move.tag(f"{move.acme}/minilm:old", None)
    secret = move.push_sealed(f"{move.acme}/secret:v1", node)
    move.grant(f"{move.acme}/secret:v1", node, withdraw=True)
    report = move.replicate()
    assert not report.refused
    # v1 was set twice, old set and withdrawn; secret has v1, a grant of its publisher and one given and withdrawn.
    assert sent(report) == {"status": 1, "key": 1, "release": 3, "tag": 5, "grant": 3}
    assert report.sent_bytes > 300_000
    assert move.destination.releases(f"{move.acme}/minilm") == [second, first]
    for reference in (f"{move.acme}/minilm:v1", f"{move.acme}/minilm:old", f"{move.acme}/secret:v1"):
        assert move.destination.tag_chain(reference) == move.source.tag_chain(reference)
    assert move.resolve_at(move.destination, f"{move.acme}/minilm:v1").verified.release.digest == second
    assert move.resolve_at(move.destination, f"{move.acme}/secret:v1").verified.release.digest == secret
    with pytest.raises(TagWithdrawn):
        move.resolve_at(move.destination, f"{move.acme}/minilm:old")
    with move.destination.client() as client:
        (withdrawn,) = [item for item in client.grants(RepositoryName.parse(f"{move.acme}/secret")) if item.withdrawn]
        assert (withdrawn.recipient, withdrawn.sequence) == (node.public.id, 2)
        assert [item.recipient for item in client.certificates(move.acme)] == [node.public.id]
    again = move.replicate()
    assert (again.outcomes, again.sent_bytes) == ([], 0)
    assert again.present >= 9
    # A node that knows the source takes the destination for the same registry.
    move.resolve_at(move.source, f"{move.acme}/minilm:v1", state="both")
    assert move.resolve_at(move.destination, f"{move.acme}/minilm:v1", state="both").verified.release.digest == second


def test_it_follows_and_never_leads(move: Move) -> None:
    move.revoke()
    first = move.push(f"{move.acme}/minilm:v1", 1)
    move.replicate()
    second = move.push(f"{move.acme}/minilm:v1", 2)
    move.revoke(first)
    report = move.replicate()
    assert sent(report) == {"status": 1, "release": 1, "tag": 1}
    assert move.resolve_at(move.destination, f"{move.acme}/minilm:v1").verified.release.digest == second
    # Whoever turns source and destination around changes nothing: the destination is behind or alike.
    third = move.push(f"{move.acme}/minilm:v1", 3)
    with move.source.client() as there, move.destination.client() as here:
        report = move.replicate(source=here, destination=there, state="backwards")
    assert sent(report) == {}
    assert any("ahead" in note for note in report.notes)
    assert move.source.releases(f"{move.acme}/minilm")[0] == third


def test_a_revoked_release_is_refused_and_what_it_was_replaced_by_is_not(move: Move) -> None:
    bad = move.push(f"{move.acme}/minilm:v1", 1)
    good = move.push(f"{move.acme}/minilm:v1", 2)
    move.tag(f"{move.acme}/minilm:bad", bad)
    move.revoke(bad)
    report = move.replicate()
    assert {(one.kind, one.problem) for one in report.refused} == {("release", "revoked"), ("tag", "not-found")}
    assert move.destination.releases(f"{move.acme}/minilm") == [good]
    # The history is whole all the same, and at no time was the tag at the revoked release.
    assert [one.target for one in move.destination.tag_chain(f"{move.acme}/minilm:v1")] == [bad, good]
    assert move.resolve_at(move.destination, f"{move.acme}/minilm:v1").verified.release.digest == good


def test_nothing_of_a_namespace_goes_without_its_status(move: Move) -> None:
    move.push(f"{move.acme}/minilm:v1", 1)
    report = move.replicate()  # the trust file names a revoker, and the source has no status
    assert {one.problem for one in report.refused} == {"status-unavailable"}
    assert move.destination.releases(f"{move.acme}/minilm") == []


def test_what_the_trust_file_does_not_know_stays_behind(move: Move) -> None:
    move.revoke()
    mallory = publisher_at(move.source, move.home / "mallory", "mallory")
    move.push(f"{move.acme}/minilm:v1", 1)
    push_as(mallory, make_model(move.home / "evil", 9), f"{move.acme}/minilm:evil")
    push_as(mallory, make_model(move.home / "evil2", 10), "evil/minilm:v1")
    report = move.replicate(namespaces=())
    assert {(one.kind, one.problem) for one in report.refused} == {
        ("namespace", "trust-missing"),
        ("release", "untrusted-signer"),
        ("tag", "untrusted-signer"),
    }
    assert move.destination.releases("evil/minilm") == []
    assert len(move.destination.releases(f"{move.acme}/minilm")) == 1
    with move.destination.client() as client:  # and nobody was registered on a registry's word
        assert mallory.signer.identity.id not in {item.id for item in client.identities(move.acme)}


def test_namespaces_are_chosen_and_a_dry_run_sends_nothing(move: Move) -> None:
    move.revoke()
    move.push(f"{move.acme}/minilm:v1", 1)
    report = move.replicate(dry_run=True)
    assert {one.action for one in report.outcomes} == {Action.WOULD_SEND}
    assert move.destination.releases(f"{move.acme}/minilm") == []
    with move.destination.client() as client:
        assert client.status_envelope(move.acme) is None
        assert client.identities(move.acme) == ()
    report = move.replicate(namespaces=["lab"])
    assert [(one.kind, one.problem) for one in report.refused] == [("namespace", "trust-missing")]


def test_a_statement_that_has_expired_is_copied_as_what_it_is(move: Move) -> None:
    move.revoker, move.options = False, {"log": EXEMPT}
    first = move.push(f"{move.acme}/minilm:v1", 1)
    repository, tag = tag_of(f"{move.acme}/minilm:short")
    move_tag(move.publisher(), repository, tag, first, lifetime=timedelta(days=1))
    later = move.verifier(now=utc_now() + timedelta(days=2))
    report = move.replicate(verifier=later)
    assert not report.refused
    assert sent(report) == {"release": 1, "tag": 2}
    with move.destination.client() as client, pytest.raises(TagExpired):
        resolve(Reference.parse(f"{move.acme}/minilm:short"), client, later, SeenTags(move.home / "late"))


def test_a_run_cut_off_anywhere_is_continued(move: Move) -> None:
    move.revoke()
    move.push(f"{move.acme}/minilm:v1", 1, size=5_000_000)
    move.push(f"{move.acme}/minilm:v1", 2)
    for allowed in range(0, 40, 5):
        count = 0

        def cut(_method: str, _path: str, allowed: int = allowed) -> None:
            nonlocal count
            count += 1
            if count > allowed:
                raise ConnectionFailed("cut off")

        client = observed(move.destination.client(sleep=lambda _seconds: None), before=cut)
        try:
            move.replicate(destination=client)
            break
        except ConnectionFailed:
            pass
        # Whatever stands at the destination is whole: a tag leads to a release, and no release came before its status.
        if move.destination.releases(f"{move.acme}/minilm"):
            with move.destination.client() as there:
                assert there.status_envelope(move.acme) is not None
        with move.destination.client() as there:
            try:
                tags = there.repository(RepositoryName(move.acme, "minilm")).tags
            except NotFound:
                tags = ()
        assert all(item.target in move.destination.releases(f"{move.acme}/minilm") for item in tags)
    assert not move.replicate().refused
    assert move.destination.tag_chain(f"{move.acme}/minilm:v1") == move.source.tag_chain(f"{move.acme}/minilm:v1")
    acknowledged = move.destination.acknowledged_parts()
    assert max(acknowledged.values()) == 1  # no part was sent twice


def test_a_source_that_lies_about_bytes_stores_nothing_and_the_rest_goes_on(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    move.revoke()
    first = move.push(f"{move.acme}/minilm:v1", 1)
    second = move.push(f"{move.acme}/minilm:v2", 2)
    with move.source.client() as client:
        place = client.release(RepositoryName(move.acme, "minilm"), first)
        manifest = Manifest.parse(client.blob_bytes(place.manifest, limits.MANIFEST_BYTES))
    damaged = {entry.sha256 for entry in manifest.files}
    original = RemoteSource.read_into

    def lie(self: RemoteSource, file: Any, offset: int, view: memoryview, **options: Any) -> None:
        original(self, file, offset, view, **options)
        if file.sha256 in damaged and len(view):
            view[0] ^= 1

    monkeypatch.setattr(RemoteSource, "read_into", lie)
    report = move.replicate()
    assert {(one.kind, one.problem) for one in report.refused} == {("release", "shard-mismatch"), ("tag", "not-found")}
    assert move.destination.releases(f"{move.acme}/minilm") == [second]
    monkeypatch.undo()
    assert not move.replicate().refused
    assert set(move.destination.releases(f"{move.acme}/minilm")) == {first, second}


def test_a_source_does_not_move_a_tag_back(move: Move) -> None:
    move.revoke()
    move.push(f"{move.acme}/minilm:v1", 1)
    move.replicate()
    move.push(f"{move.acme}/minilm:v1", 2)
    move.replicate()

    # A stale copy of the source: the destination itself, as it was. The replicator has seen more.
    class Stale(RegistryClient):
        def present_tag_envelope(self, name: Any, tag: Any) -> bytes:
            with move.source.client() as client:
                return client.statement(Digest.of(move.source.tag_chain(f"{move.acme}/minilm:v1")[0].encode()))[0]

    with Stale(move.source.url, move.source.token) as stale:
        report = move.replicate(source=stale)
    assert [(one.kind, one.problem) for one in report.refused] == [("tag", TagRollback.code())]


def test_a_wrong_token_says_which_registry_refused_it(move: Move) -> None:
    move.push(f"{move.acme}/minilm:v1", 1)
    source, destination = (RegistryClient(site.url, f"{site.token}0") for site in (move.source, move.destination))
    with source, pytest.raises(NotAuthenticated, match=f"the registry at {re.escape(move.source.url)} refused"):
        move.replicate(source=source)
    with destination, pytest.raises(NotAuthenticated, match=f"the registry at {re.escape(move.destination.url)} "):
        move.replicate(destination=destination)


def test_two_histories_of_one_tag_are_named(move: Move) -> None:
    move.revoke()
    move.replicate()
    first = move.push(f"{move.acme}/minilm:v1", 1)
    elsewhere = replace(move.publisher(registry=move.destination), state_dir=move.home / "elsewhere")
    push_as(elsewhere, make_model(move.home / "other", 7), f"{move.acme}/minilm:v1")
    report = move.replicate()
    assert [(one.kind, one.problem) for one in report.refused] == [("tag", "chain-diverged")]
    assert first in move.destination.releases(f"{move.acme}/minilm")
