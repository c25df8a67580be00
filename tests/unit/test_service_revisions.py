# SPDX-License-Identifier: Apache-2.0
"""What a revision is: the order of names, and who sees what nobody signed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pq_registry import limits
from pq_registry.errors import EntryNotFound, NotFound, RevisionNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.listings import Listings
from pq_registry.service.hub.model import Branch, Commit, Revision
from pq_registry.service.hub.models import Order, Search
from pq_registry.service.hub.policy import DraftPolicy
from tests.hub_site import EVIDENCE, FILES, HubSite, hub_site

MINILM = RepositoryName.parse("acme/minilm")
DRAFTED = RepositoryName.parse("acme/drafted")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubSite]:
    """Two releases of acme/minilm: main and old are the first, v2 is the second; drafts on main and dev/x."""
    with hub_site(tmp_path_factory.mktemp("revisions") / "registry") as site:
        site.tag("acme/minilm:old", site.releases["acme/minilm:main"])
        site.publish("acme/minilm:v2", {**FILES, "config.json": b'{"hidden_size": 16}\n'})
        site.tag("acme/minilm:gone", site.releases["acme/minilm:main"])
        site.tag("acme/minilm:gone", None)
        put(site, MINILM, "main", {"config.json": b"drafted"})
        put(site, MINILM, "dev/x", {"new.txt": b"new"})
        site.registry.registry.drafts.create(caller_of(site, "publisher"), DRAFTED, exist_ok=False)
        yield site


def caller_of(site: HubSite, role: str, *namespaces: str) -> Caller:
    token = site.token_of(role, *namespaces)
    return site.registry.registry.tokens.authenticate(token, public_read=False, request_id="test")


def put(site: HubSite, name: RepositoryName, branch: str, files: dict[str, bytes]) -> Commit:
    """A commit to a draft, of bytes that were uploaded."""
    blobs = {path: (site.registry.upload(data, name), len(data)) for path, data in files.items()}
    return site.registry.registry.drafts.commit(
        caller_of(site, "publisher"), name, Branch.parse(branch), Changes(put=blobs), title="a push", message="",
        parent=None,
    )  # fmt: skip


def find(site: HubSite, revision: str, role: str = "publisher") -> Revision:
    return site.registry.registry.revisions.find(caller_of(site, role), MINILM, revision)


def paths(revision: Revision) -> dict[str, Digest]:
    return {file.path: file.sha256 for file in revision.files}


def test_a_release_has_its_files_its_manifest_and_its_evidence(site: HubSite) -> None:
    found = find(site, "main", "reader")
    assert found.release == site.releases["acme/minilm:main"]
    assert found.commit.value == found.release.hex[:40]
    assert found.name == "main"
    assert [file.path for file in found.files] == sorted([*FILES, "pqreg.json", *EVIDENCE])
    assert {path: paths(found)[path] for path in FILES} == {path: Digest.of(data) for path, data in FILES.items()}
    for file in found.files:
        assert (file.inline is not None) == (file.path in EVIDENCE)
        assert file.inline is None or (len(file.inline), Digest.of(file.inline)) == (file.size, file.sha256)


def test_what_is_signed_comes_first(site: HubSite) -> None:
    signed, draft = find(site, "main"), find(site, "draft")
    assert signed.is_signed
    assert not draft.is_signed
    assert paths(draft)["config.json"] == Digest.of(b"drafted")
    assert set(paths(draft)) == set(FILES), "a draft begins with the release's files and without its evidence"
    assert draft.parent == signed.commit
    assert find(site, "draft/main").commit == draft.commit
    for name in ("dev/x", "draft/dev/x", "refs/heads/dev/x"):
        assert list(paths(find(site, name))) == ["new.txt"], name
    assert find(site, str(draft.commit)).name is None


@pytest.mark.parametrize("prefix", ["", "sha256:", "refs/tags/"])
def test_a_release_is_found_by_its_digest_and_its_names(site: HubSite, prefix: str) -> None:
    release = site.releases["acme/minilm:v2"]
    given = "v2" if prefix == "refs/tags/" else release.hex
    found = find(site, prefix + given, "reader")
    assert found.release == release
    assert find(site, release.hex[:40], "reader").release == release


@pytest.mark.parametrize(
    "revision",
    [
        "gone",
        "nope",
        "",
        "HEAD",
        "f" * 40,
        "f" * 64,
        "sha256:",
        "../main",
        "a" * 300,
        "main\x00",
        "draft/",
        "MAIN",
        "draft/draft/main",
        "refs/heads/",
        "\ufb00",
    ],
)
def test_what_is_no_revision(site: HubSite, revision: str) -> None:
    for role in ("reader", "publisher"):
        with pytest.raises(RevisionNotFound):
            find(site, revision, role)


def test_a_commit_of_fewer_digits_is_none(site: HubSite) -> None:
    release = site.releases["acme/minilm:main"]
    for digits in (7, 39, 41, 63):
        with pytest.raises(RevisionNotFound):
            find(site, release.hex[:digits], "reader")


def test_drafts_are_not_there_for_readers(site: HubSite) -> None:
    draft = find(site, "draft").commit
    for revision in ("draft", "draft/dev/x", "dev/x", str(draft)):
        with pytest.raises(RevisionNotFound):
            find(site, revision, "reader")
    revisions = site.registry.registry.revisions
    reader, publisher = caller_of(site, "reader"), caller_of(site, "publisher")
    with pytest.raises(NotFound):
        revisions.require(reader, DRAFTED)
    revisions.require(publisher, DRAFTED)
    assert {ref.name for ref in revisions.refs(reader, MINILM).branches} == {"main"}
    assert [ref.name for ref in revisions.refs(publisher, MINILM).branches] == ["dev/x", "draft", "main"]
    history, _ = revisions.history(publisher, MINILM, "draft", after=None, limit=10)
    assert history[0].id == str(draft)
    with pytest.raises(RevisionNotFound):
        revisions.history(reader, MINILM, "draft", after=None, limit=10)
    with pytest.raises(RevisionNotFound):
        revisions.history(reader, MINILM, "main", after=draft, limit=10)


def test_a_publisher_elsewhere_sees_nothing(site: HubSite) -> None:
    stranger = caller_of(site, "publisher", "lab")
    for name in (MINILM, DRAFTED):
        with pytest.raises(NotFound) as caught:
            site.registry.registry.revisions.find(stranger, name, "main")
        assert type(caught.value) is NotFound
    assert site.registry.registry.models.page(stranger, Search(), after=None, limit=10) == ([], None)


def test_readers_may_be_let_in(site: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions = site.registry.registry.revisions
    monkeypatch.setattr(revisions, "policy", DraftPolicy.READERS)
    assert not find(site, "draft", "reader").is_signed
    listed, _ = site.registry.registry.models.page(caller_of(site, "reader"), Search(), after=None, limit=10)
    assert [str(view.name) for view in listed] == ["acme/drafted", "acme/minilm"]
    monkeypatch.setattr(revisions, "policy", DraftPolicy.OFF)
    assert not find(site, "draft", "publisher").is_signed
    with pytest.raises(RevisionNotFound):
        find(site, "draft", "reader")


def test_names(site: HubSite) -> None:
    refs = site.registry.registry.revisions.refs(caller_of(site, "reader"), MINILM)
    main, second = (site.releases[f"acme/minilm:{tag}"].hex[:40] for tag in ("main", "v2"))
    assert [(ref.name, ref.commit.value, ref.signed) for ref in refs.branches] == [("main", main, True)]
    assert [(ref.name, ref.commit.value) for ref in refs.tags] == [("old", main), ("v2", second)]


def test_history_is_paged(site: HubSite) -> None:
    revisions, caller = site.registry.registry.revisions, caller_of(site, "publisher")
    whole, following = revisions.history(caller, MINILM, "draft", after=None, limit=10)
    assert following is None
    releases = [site.releases["acme/minilm:main"].hex[:40]]
    assert [commit.id for commit in whole][1:] == releases
    assert whole[0].title == "a push"
    assert whole[1].title == f"Release {site.releases['acme/minilm:main']}"
    pages, after = [], None
    while True:
        page, after = revisions.history(caller, MINILM, "draft", after=after, limit=1)
        pages += page
        if after is None:
            break
    assert pages == whole
    second, _ = revisions.history(caller, MINILM, "v2", after=None, limit=10)
    assert [commit.id for commit in second] == [site.releases["acme/minilm:v2"].hex[:40], *releases]


def test_a_file_that_is_not_there_says_where(site: HubSite) -> None:
    revisions, caller = site.registry.registry.revisions, caller_of(site, "reader")
    with pytest.raises(EntryNotFound) as caught:
        revisions.obtain(caller, MINILM, "main", "nope.txt")
    assert caught.value.commit == site.releases["acme/minilm:main"].hex[:40]
    for path in ("1_Pooling", "CONFIG.json", "./config.json", "config.json/", ""):
        with pytest.raises(EntryNotFound):
            revisions.obtain(caller, MINILM, "main", path)


def test_models_are_paged_in_every_order(site: HubSite) -> None:
    models, caller = site.registry.registry.models, caller_of(site, "publisher")
    for order in Order:
        names: list[str] = []
        after = None
        while True:
            page, after = models.page(caller, Search(order=order), after=after, limit=1)
            names += [str(view.name) for view in page]
            if after is None:
                break
        assert sorted(names) == ["acme/drafted", "acme/minilm"], order
    listed, _ = models.page(caller_of(site, "reader"), Search(), after=None, limit=10)
    assert [(str(view.name), view.release) for view in listed] == [("acme/minilm", site.releases["acme/minilm:main"])]


def test_listings_are_kept_within_a_bound(site: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = site.registry.registry
    listings = Listings(registry.catalogue, registry.blobs, registry.ledger)
    caller = caller_of(site, "reader")
    first, second = site.releases["acme/minilm:main"], site.releases["acme/minilm:v2"]
    kept = listings.of(caller, first)
    assert listings.of(caller, first) is kept
    monkeypatch.setattr(limits, "HUB_LISTING_BYTES", 1)
    assert listings.of(caller, second) is listings.of(caller, second), "the newest is kept whatever it takes"
    assert listings.of(caller, first) is not kept


def test_an_unsettled_receipt_is_asked_for_again(site: HubSite) -> None:
    from dataclasses import replace

    class Later:
        """Witnesses that were away, then there."""

        asked = 0

        def found(self, statement: Digest) -> object:
            self.asked += 1
            found = site.registry.registry.ledger.found(statement)
            assert found is not None
            if self.asked == 1:
                return None
            return replace(found, quorum=self.asked > 2)

    registry, source = site.registry.registry, Later()
    listings = Listings(registry.catalogue, registry.blobs, source)  # type: ignore[arg-type]
    caller, release = caller_of(site, "reader"), site.releases["acme/minilm:main"]
    assert "model.tlog-proof" not in {file.path for file in listings.of(caller, release)}
    for _ in range(3):
        assert [file.path for file in listings.of(caller, release)].count("model.tlog-proof") == 1
    assert source.asked == 3, "once it meets the policy it is settled"
