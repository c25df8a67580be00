# SPDX-License-Identifier: Apache-2.0
"""One round of a mirror, against a Hub in memory: it ends where it should, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pq_registry.errors import Conflict, ConnectionFailed
from pq_registry.format.digest import Digest
from pq_registry.format.name import Reference, Tag
from pq_registry.mirror.config import Form
from pq_registry.mirror.content import is_evidence
from pq_registry.mirror.outcome import State
from pq_registry.mirror.target import There
from tests.hub_site import FILES, HubSite, hub_site, repository
from tests.mirror_site import ATTRIBUTES, CHANGES, Killed, MemoryHub, Mirroring, a_mirror, states
from tests.sealing_samples import seal
from tests.sealing_service import publish_sealed

NEWER: dict[str, bytes] = {
    **{path: data for path, data in FILES.items() if path != "empty.txt"},
    "config.json": b'{"hidden_size": 16}\n',
    "renamed/weights.bin": FILES["weights.bin"],
    "more.bin": bytes(range(200)) * 10,
}
del NEWER["weights.bin"]
"""A later release: one file gone, one renamed, one changed, one new."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    with hub_site(tmp_path_factory.mktemp("source")) as site:
        site.publish("acme/minilm:v1")
        yield site


@pytest.fixture
def mirroring(shared: HubSite, tmp_path: Path) -> Mirroring:
    return Mirroring(shared, tmp_path)


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Mirroring]:
    """A registry of the test's own, whose tags it may move."""
    with hub_site(tmp_path / "source") as site:
        yield Mirroring(site, tmp_path)


def test_a_release_arrives_whole_and_verifies_offline(mirroring: Mirroring, tmp_path: Path) -> None:
    report = mirroring.round()
    hub = mirroring.hub
    assert states(report) == {"main": State.MIRRORED, "v1": State.MIRRORED}
    assert set(hub.branches) == {"main"}
    assert set(hub.tags) == {"v1"}
    digest = mirroring.site.releases["acme/minilm:main"]
    for name in ("main", "v1"):
        assert {path: hub.at(name)[path] for path in FILES} == FILES
        assert set(hub.at(name)) == {*FILES, "pqreg.json", "model.sig", "model.pq.sig", "model.tlog-proof"}
        mirroring.verify(name, tmp_path / "out" / name, digest)
    message = hub.commits[hub.branches["main"]].message
    assert str(digest) in message
    assert "pqreg verify" in message
    assert hub.commits[hub.branches["main"]].files[".gitattributes"] == ATTRIBUTES
    assert hub.private is False
    assert not list((tmp_path / "staging").iterdir())


def test_where_nothing_is_to_be_done_one_request_is_made(mirroring: Mirroring) -> None:
    mirroring.round()
    before = dict(mirroring.hub.branches), dict(mirroring.hub.tags)
    mirroring.hub.calls.clear()
    assert set(states(mirroring.round()).values()) == {State.IN_STEP}
    assert mirroring.hub.calls == ["references"]
    # Without its memory a machine finds out by reading.
    for path in (mirroring.home / "state" / "mirrors").iterdir():
        path.write_bytes(b"{damaged")
    assert set(states(mirroring.round()).values()) == {State.IN_STEP}
    assert not mirroring.hub.changes
    assert before == (mirroring.hub.branches, mirroring.hub.tags)


def test_a_dry_run_and_what_it_says(mirroring: Mirroring) -> None:
    assert set(states(mirroring.round(dry_run=True)).values()) == {State.BEHIND}
    assert not mirroring.hub.changes
    mirroring.round()
    mirroring.hub.calls.clear()
    assert set(states(mirroring.round(dry_run=True)).values()) == {State.IN_STEP}
    mirroring.hub.push("main", {"note.txt": b"by hand"})
    assert states(mirroring.round(dry_run=True))["main"] is State.BEHIND
    assert not mirroring.hub.changes


def whole(hub: MemoryHub, name: str, releases: list[dict[str, bytes]]) -> int:
    """Which of these releases a branch or tag holds, with all its evidence and nothing else."""
    found = hub.at(name)
    assert {path for path in found if is_evidence(path)} == {"model.sig", "model.pq.sig", "model.tlog-proof"}
    content = {path: data for path, data in found.items() if not is_evidence(path) and path != "pqreg.json"}
    assert content in releases, sorted(content)
    return releases.index(content)


def test_killed_after_any_change_the_next_run_ends_where_it_should(moving: Mirroring, tmp_path: Path) -> None:
    """What a Hub sees of a run that ends is how many of its changes were made, from none to all."""
    site = moving.site
    site.publish("acme/minilm:v1")
    moving.round()
    start = moving.hub
    newer = site.publish("acme/minilm:main", NEWER)
    site.tag("acme/minilm:v1", newer)
    survived = -1
    while True:
        survived += 1
        hub = MemoryHub(commits=dict(start.commits), branches=dict(start.branches), tags=dict(start.tags))
        moving.hub, moving.home = hub, tmp_path / f"home{survived}"

        def strike(name: str, _number: int, hub: MemoryHub = hub, most: int = survived) -> None:
            if name in CHANGES and len(hub.changes) > most:
                raise Killed

        hub.before = strike
        try:
            moving.round()
            break
        except Killed:
            pass
        assert whole(hub, "main", [FILES, NEWER]) in (0, 1)
        assert "v1" not in hub.tags or whole(hub, "v1", [FILES, NEWER]) in (0, 1)
        hub.before = lambda _name, _number: None
        assert State.REFUSED not in states(moving.round()).values()
        assert whole(hub, "main", [NEWER]) == 0
        assert whole(hub, "v1", [NEWER]) == 0
        assert set(hub.branches) == {"main"}
    assert survived == 7, "branch, two commits to it, main, v1 removed and set, the branch removed"
    moving.verify("v1", tmp_path / "out", newer)


def test_an_answer_that_is_lost_is_no_conflict(mirroring: Mirroring) -> None:
    """A commit that was made, but whose sender was told that it was not, is found to be there."""
    hub = mirroring.hub
    lost: list[int] = []

    def lose(name: str, number: int) -> None:
        if name == "commit":
            lost.append(number)
            raise Conflict("the branch moved")

    hub.after = lose
    assert set(states(mirroring.round()).values()) == {State.MIRRORED}
    assert whole(hub, "main", [FILES]) == 0
    assert len(lost) == 2


def test_somebody_who_commits_in_between_is_replaced_and_main_is_one_commit(mirroring: Mirroring) -> None:
    mirroring.round()
    hub = mirroring.hub
    hub.push("main", {"note.txt": b"by hand"}, deletes=["config.json"])
    foreign: list[str] = []

    def push_first(name: str, _number: int) -> None:
        if name == "commit" and len(foreign) < 2:
            foreign.append(hub.push("main", {f"again{len(foreign)}.txt": b"by hand"}))

    hub.before = push_first
    assert states(mirroring.round())["main"] is State.MIRRORED
    assert len(foreign) == 2
    assert whole(hub, "main", [FILES]) == 0
    assert hub.commits[hub.branches["main"]].parent == foreign[-1]


def test_somebody_who_never_stops_is_reported(mirroring: Mirroring) -> None:
    mirroring.round()
    hub = mirroring.hub
    tag = hub.tags["v1"]
    hub.push("main", {"note.txt": b"by hand"})

    def always(name: str, number: int) -> None:
        if name == "commit":
            hub.push("main", {f"{number}.txt": b"by hand"})

    hub.before = always
    report = mirroring.round()
    assert [(one.state, one.problem) for one in report.bad] == [(State.REFUSED, "conflict")] * 2
    assert "all the time" in str(report.bad[0].reason)
    assert hub.tags["v1"] == tag


def test_a_repository_of_somebody_else_is_left_alone(mirroring: Mirroring) -> None:
    hub = mirroring.hub
    hub.ensure(private=False)
    theirs = hub.push("main", {"model.bin": b"theirs" * 100})
    hub.calls.clear()
    report = mirroring.round()
    assert [one.problem for one in report.bad] == ["conflict"]
    assert "adopt" in str(report.bad[0].reason)
    assert not hub.changes
    assert hub.branches == {"main": theirs}
    mirroring.mirror = a_mirror(adopt=True)
    assert set(states(mirroring.round()).values()) == {State.MIRRORED}
    assert whole(hub, "main", [FILES]) == 0


def test_a_tag_of_somebody_else_is_left_alone(mirroring: Mirroring) -> None:
    hub = mirroring.hub
    hub.ensure(private=False)
    hub.tags["v1"] = theirs = hub.push("theirs", {"model.bin": b"theirs" * 100})
    assert {one.problem for one in mirroring.round().bad} == {"conflict"}
    assert hub.tags["v1"] == theirs


def test_a_tag_that_moves_and_one_that_is_withdrawn(moving: Mirroring, tmp_path: Path) -> None:
    site, hub = moving.site, moving.hub
    site.publish("acme/minilm:v1")
    moving.round()
    hub.tags["theirs"] = theirs = hub.push("theirs", {"model.bin": b"theirs"}, message="not by a mirror")
    newer = site.publish("acme/minilm:v2", NEWER)
    assert states(moving.round())["v2"] is State.MIRRORED
    assert whole(hub, "main", [FILES]) == 0, "main goes with the tag main, which has not moved"
    moving.verify("v2", tmp_path / "v2", newer)
    site.tag("acme/minilm:v1", newer)
    site.tag("acme/minilm:v2", None)
    site.tag("acme/minilm:theirs", newer)
    site.tag("acme/minilm:theirs", None)
    hub.calls.clear()
    found = states(moving.round())
    assert (found["v1"], found["v2"]) == (State.MIRRORED, State.WITHDRAWN)
    assert whole(hub, "v1", [NEWER]) == 0
    assert "v2" not in hub.tags
    assert hub.calls.count("commit") == 0, "a commit that holds it is there"
    assert hub.tags["theirs"] == theirs


def test_without_its_tag_main_is_the_newest(moving: Mirroring) -> None:
    moving.mirror = a_mirror(tags=("v*",))
    moving.site.publish("acme/minilm:v1")
    moving.round()
    assert whole(moving.hub, "main", [FILES]) == 0
    moving.mirror = a_mirror(tags=("v*",), main=Tag("v1"))
    assert set(states(moving.round()).values()) == {State.IN_STEP}


def test_a_hub_that_loses_or_changes_something_is_found_out(mirroring: Mirroring) -> None:
    """Main and tags stay as they were until everything was read again."""
    hub = mirroring.hub
    other = Digest.of(b"something else")

    def lies(commit: str, files: dict[str, There]) -> dict[str, There]:
        if "weights.bin" in files:
            files["weights.bin"] = replace(files["weights.bin"], sha256=other)
        return files

    hub.listed = lies
    report = mirroring.round()
    assert {one.problem for one in report.bad} == {"file-digest-mismatch"}
    assert "weights.bin" in str(report.bad[0].reason)
    assert not hub.tags
    assert hub.at("main") == {}

    def silent(commit: str, files: dict[str, There]) -> dict[str, There]:
        files.pop("model.sig", None)
        return files

    hub.listed = silent
    assert {one.problem for one in mirroring.round().bad} == {"file-digest-mismatch"}
    assert not hub.tags
    assert hub.at("main") == {}


def test_evidence_that_proves_the_same_release_is_not_replaced(moving: Mirroring, tmp_path: Path) -> None:
    """A receipt under a later checkpoint is as good."""
    digest = moving.site.releases["acme/minilm:main"]
    moving.round()
    first = moving.hub.at("main")["model.tlog-proof"]
    moving.site.publish("acme/other:main")  # the log grows
    for path in (moving.home / "state" / "mirrors").iterdir():
        path.unlink()
    moving.hub.calls.clear()
    assert states(moving.round()) == {"main": State.IN_STEP}
    assert not moving.hub.changes
    assert moving.hub.at("main")["model.tlog-proof"] == first
    # One that proves nothing is replaced.
    moving.hub.push("main", {"model.tlog-proof": b"c2sp.org/tlog-proof@v1\n"})
    assert states(moving.round()) == {"main": State.MIRRORED}
    moving.verify("main", tmp_path / "out", digest)


def test_what_does_not_verify_never_gets_there(moving: Mirroring) -> None:
    moving.site.publish("acme/minilm:v1", NEWER, who="mallory")
    report = moving.round()
    found = states(report)
    assert (found["main"], found["v1"]) == (State.MIRRORED, State.REFUSED)
    assert next(one for one in report.bad).problem == "untrusted-signer"
    assert not moving.hub.tags
    assert whole(moving.hub, "main", [FILES]) == 0


def test_a_hub_that_cannot_be_reached_ends_the_round(mirroring: Mirroring) -> None:
    def gone(_name: str, _number: int) -> None:
        raise ConnectionFailed("the Hub is gone")

    mirroring.hub.before = gone
    report = mirroring.round("acme/minilm", "acme/other")
    assert [one.state for one in report.outcomes] == [State.FAILED]
    assert any("next round" in note for note in report.notes)


def test_one_tag_alone(moving: Mirroring) -> None:
    moving.site.publish("acme/minilm:v1", NEWER)
    assert set(states(moving.round(only=Reference.parse("acme/minilm:v1")))) == {"v1"}
    assert whole(moving.hub, "v1", [NEWER]) == 0
    assert moving.hub.at("main") == {}
    moving.site.publish("acme/minilm:forged", {**NEWER, "more.txt": b"x"}, who="mallory")
    assert states(moving.round(only=Reference.parse("acme/minilm:v1"))) == {"v1": State.IN_STEP}
    assert states(moving.round(only=Reference.parse("acme/minilm:forged"))) == {"forged": State.REFUSED}
    (missing,) = moving.round(only=Reference.parse("acme/minilm:v9")).outcomes
    assert (missing.state, missing.problem) == (State.REFUSED, "not-found")
    assert "v9" in str(missing.reason)


def sealed_site(site: HubSite) -> tuple[Digest, dict[str, bytes]]:
    """acme/minilm:main is a sealed release now; its digest and stored files."""
    model = seal({"config.json": b"{}", "secret.bin": b"secret" * 1000}, name=repository())
    publish_sealed(site.registry, model)
    site.tag("acme/minilm:main", model.release)
    return model.release, dict(model.stored)


@pytest.mark.parametrize("form", [Form.SKIP, Form.CIPHERTEXT, Form.CARD_ONLY])
def test_a_sealed_release_is_mirrored_as_the_mirror_says(moving: Mirroring, tmp_path: Path, form: Form) -> None:
    digest, stored = sealed_site(moving.site)
    moving.mirror = a_mirror(sealed=form)
    expected = State.SKIPPED if form is Form.SKIP else State.MIRRORED
    assert states(moving.round())["main"] is expected
    if form is Form.SKIP:
        assert not moving.hub.changes
        return
    found = moving.hub.at("main")
    evidence = {"pqreg.json", "model.sig", "model.pq.sig", "model.tlog-proof"}
    if form is Form.CIPHERTEXT:
        assert set(found) == {*stored, *evidence}
        moving.verify("main", tmp_path / "out", digest)
    else:
        assert set(found) == {"README.md", *evidence}
        assert str(digest).encode() in found["README.md"]
    assert not [data for data in found.values() if b"secretsecret" in data]
    moving.hub.calls.clear()
    assert states(moving.round())["main"] is State.IN_STEP
    assert not moving.hub.changes


def test_an_open_release_as_a_card_shows_its_own(mirroring: Mirroring, tmp_path: Path) -> None:
    mirroring.mirror = a_mirror(open=Form.CARD_ONLY)
    mirroring.round()
    assert mirroring.hub.at("main")["README.md"] == FILES["README.md"]
    assert "weights.bin" not in mirroring.hub.at("main")


def test_a_card_of_the_operator(moving: Mirroring, tmp_path: Path) -> None:
    sealed_site(moving.site)
    card = tmp_path / "card.md"
    card.write_bytes(b"# Ask us for access\n")
    fields: dict[str, Any] = {"sealed": Form.CARD_ONLY, "card": card}
    moving.mirror = a_mirror(**fields)
    moving.round()
    assert moving.hub.at("main")["README.md"] == card.read_bytes()
    card.write_bytes(b"# Ask somebody else\n")
    assert states(moving.round())["main"] is State.MIRRORED
    assert moving.hub.at("main")["README.md"] == card.read_bytes()


def test_two_repositories_that_would_be_one_are_refused(mirroring: Mirroring) -> None:
    mirroring.mirror = a_mirror(rename={"acme/other": "MiniLM"})
    report = mirroring.round("acme/minilm", "acme/other")
    assert [one.problem for one in report.bad] == ["usage-error"]
    assert report.bad[0].repository == "acme/other"
