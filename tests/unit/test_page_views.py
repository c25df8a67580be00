# SPDX-License-Identifier: Apache-2.0
"""What the pages say is what is so: halves, registration, revocations, grants, searches; and who gets to see it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from pq_registry.format.dsse import Envelope
from pq_registry.format.note import Note
from pq_registry.server.pages import charts, written
from pq_registry.service.overview import Activity
from pq_registry.service.tokens import host_caller
from pq_registry.storage.catalogue.tables import LogStateRow, NamespaceIdentityRow, StatementRow
from tests.logsamples import compose_policy, log_signers
from tests.logsetup import log_setup
from tests.page_site import LaggingWitnesses, Site, site
from tests.samples import NOW, publisher
from tests.server_harness import Api, RunningRegistry, running


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("shown") / "registry", public_read=True) as made:
        yield made


def body(api: Api, path: str) -> str:
    answer = api.with_token(None).get(path)
    assert answer.status == 200, answer
    return answer.body.decode()


def search(shown: Site, text: str, **options: object) -> list[int]:
    view = shown.registry.registry.views.log
    items, _ = view.search(host_caller(), text, **{"limit": 50, **options})  # type: ignore[arg-type]
    return [item.index for item in items]


def test_leaves_are_found_by_name_digest_key_and_number(shown: Site) -> None:
    everything = search(shown, "")
    assert everything == sorted(everything, reverse=True)
    acme, lab = search(shown, "ACME"), search(shown, "lab")
    assert sorted(acme + lab) == sorted(everything)
    assert search(shown, "ac") == acme
    assert search(shown, "acme/te") == search(shown, "acme/teuken-7b-instruct:v1@sha256:0") != []
    assert search(shown, shown.releases[2].hex) == search(shown, str(shown.releases[2])) == [2]
    assert set(search(shown, shown.sealed.hex)) == {10, 11, 12}, "a release and its grants"
    bob = publisher("bob", 3).identity.id
    assert set(search(shown, bob)) == {6, 7, 8}
    assert search(shown, "4") == [4]
    assert search(shown, "", kind="tag") == [5, 4]
    assert search(shown, "", before=2) == [1, 0]
    for nothing in ("%", "acme_minilm", "_", "nobody", "\x00", "ä", "acme/%", "a" * 97):
        assert search(shown, nothing) == [], nothing


def test_pages_of_leaves_lead_from_one_to_the_next(shown: Site) -> None:
    view = shown.registry.registry.views.log
    seen: list[int] = []
    before: int | None = None
    while True:
        items, before = view.search(host_caller(), "", before=before, limit=4)
        seen += [item.index for item in items]
        if before is None:
            break
    assert seen == search(shown, "")


def test_a_release_says_who_signed_it_and_that_it_was_revoked(shown: Site) -> None:
    path = "/models/acme/minilm/releases/"
    good, revoked = (
        body(shown.registry, path + shown.releases[3].hex),
        body(shown.registry, path + shown.releases[0].hex),
    )
    assert good.count("Valid") == 2
    assert publisher().identity.id in good
    assert "ML-DSA-87" in good and "ECDSA P-384/SHA-384" in good
    assert "Revoked" not in good
    assert "Revoked" in revoked


def test_a_sealed_release_shows_grants_by_recipient_ids_alone(shown: Site) -> None:
    page = body(shown.registry, f"/models/acme/secret/releases/{shown.sealed.hex}")
    assert page.count("In force") == 2
    assert "Sealed" in page
    items = shown.registry.get("/v1/repos/acme/secret/grants").json["items"]
    assert all(item["recipient"] in page for item in items)
    assert "sealed/00000" in page and "weights.bin" not in page


def test_a_tag_has_its_whole_history_with_leaves(shown: Site) -> None:
    page = body(shown.registry, "/models/acme/minilm/tags/v1")
    assert page.index(shown.releases[1].hex) < page.index(shown.releases[0].hex)
    assert "/audit/log/4" in page and "/audit/log/5" in page
    assert shown.registry.with_token(None).get("/models/acme/minilm/tags/v9").status == 404


def test_a_half_that_is_wrong_and_a_signer_who_is_not_registered_are_shown(registry: RunningRegistry) -> None:
    digest = registry.publish()
    path = f"/models/acme/minilm/releases/{digest.hex}"
    catalogue = registry.registry.catalogue
    with catalogue.writing() as session:
        row = session.get(StatementRow, digest.hex)
        assert row is not None
        envelope = Envelope.parse(row.envelope)
        bent = Envelope(envelope.payload, envelope.ec_signature, bytes(len(envelope.pq_signature)))
        row.envelope = bent.encode()
        session.execute(delete(NamespaceIdentityRow))
    page = registry.get(path).body.decode()
    assert (page.count("Valid"), page.count("Invalid")) == (1, 1)
    assert ">No<" in page


def test_a_private_registry_shows_its_public_log_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    with site(tmp_path_factory.mktemp("private") / "registry") as made:
        registry = made.registry
        front = body(registry, "/")
        assert "This registry is private" in front
        assert "by-week" not in front
        assert "/namespaces/acme" not in front
        leaf = body(registry, "/audit/log/3")
        assert 'data-envelope=""' in leaf
        assert "BEGIN PUBLIC KEY" not in leaf
        anonymous = registry.with_token(None)
        for path in ("/models", "/models/acme/minilm", "/namespaces/acme", f"/audit/envelopes/{made.sealed.hex}"):
            assert anonymous.get(path).status == 401, path
        listed = body(registry, "/audit/log?kind=grant")
        assert "/audit/log/11" in listed, "that there are grants is public, of which release they are is not"
        assert "/audit/log/11" not in body(registry, f"/audit/log?q={made.sealed.hex}")
        assert b"/audit/log/11" in registry.as_role("reader", "acme").get(f"/audit/log?q={made.sealed.hex}").body
        lab = registry.as_role("reader", "lab")
        assert lab.get("/models/acme/minilm").status == 403
        assert lab.get(f"/audit/envelopes/{made.sealed.hex}").status == 404
        assert b"acme" not in lab.get("/models").body
        assert b">acme<" not in lab.get("/").body.split(b'id="latest"')[0]


def test_a_private_log_is_shown_to_readers_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    with site(tmp_path_factory.mktemp("private") / "registry", private_log=True) as made:
        anonymous = made.registry.with_token(None)
        for path in ("/audit/log", "/audit/log/0", "/audit/checkpoint", "/log/checkpoint"):
            assert anonymous.get(path).status == 401, path
        front = body(made.registry, "/")
        assert "data-proof" not in front and "acme" not in front
        assert made.registry.as_role("reader", "lab").get("/audit/log").status == 200


def test_static_files_are_kept_for_ever_under_their_own_name(shown: Site) -> None:
    anonymous = shown.registry.with_token(None)
    build = shown.registry.app.state.pages.build
    for name, kind in (("page.css", "text/css"), ("proof.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = anonymous.get(f"/static/{build}/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "immutable" in answer.headers["cache-control"]
        assert anonymous.get(f"/static/{build}/{name}", {"If-None-Match": answer.headers["etag"]}).status == 304
        assert anonymous.get(f"/static/0/{name}").headers["cache-control"] == "no-cache"
    for name in ("..%2frender.py", "nothing.js", "%2e%2e", "page.css%00"):
        assert anonymous.get(f"/static/{build}/{name}").status == 404, name


def test_numbers_are_written_as_the_language_does() -> None:
    assert (written.number(1234567, "en"), written.number(1234567, "de")) == ("1,234,567", "1.234.567")
    assert written.size(1_234_000_000, "de") == "1,2\N{NO-BREAK SPACE}GB"
    sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 99_960: "100.0 kB", 2**50: "1126 TB"}
    for value, expected in sizes.items():
        assert written.size(value, "en").replace("\N{NO-BREAK SPACE}", " ") == expected
    spans = {0: "0 s", 59: "59 s", 60: "1 min", 7199: "1 h", 86400 * 1500: "1,500 d", -5: "\N{MINUS SIGN}5 s"}
    for seconds, expected in spans.items():
        assert written.duration(timedelta(seconds=seconds), "en").replace("\N{NO-BREAK SPACE}", " ") == expected
    assert written.digest("<b>") == '<code class="digest" title="&lt;b&gt;">&lt;b&gt;</code>'


def test_bars_have_one_scale_and_small_values_can_be_seen() -> None:
    starts = tuple(NOW + timedelta(weeks=number) for number in range(3))
    rows = charts.bars(Activity(starts, (("a", (0, 1000, 500)), ("b", (1, 0, 0)))))
    assert [[bar.height for bar in row.bars] for row in rows] == [[0, 48, 24], [2, 0, 0]]
    assert [row.total for row in rows] == [1500, 1]
    assert charts.bars(Activity(starts, ())) == ()


def test_an_idle_log_shows_its_renewed_checkpoint_and_one_without_quorum_says_so(tmp_path: Path) -> None:
    witnesses = LaggingWitnesses()
    policy = compose_policy(witnesses=2, quorum=2)
    setup = log_setup(policy=policy, witnesses=witnesses)
    with running(tmp_path / "registry", log=setup, public_read=True) as registry:
        registry.publish()
        view = registry.registry.views.log
        before = view.newest(policy)
        assert before is not None and before.quorum
        kept = [item.at for item in view.checkpoints(limit=5)]
        with registry.registry.catalogue.writing() as session:
            state = session.scalars(select(LogStateRow)).one()
            alone = Note(before.checkpoint.encode(), tuple(signer.sign(before.checkpoint, 1_900_000_000)
                                                           for signer in log_signers()))  # fmt: skip
            state.published = alone.encode()
        after = view.newest(policy)
        assert after is not None and not after.quorum
        assert after.at.year == 2030
        assert [item.at for item in view.checkpoints(limit=5)] == kept
        page = body(registry, "/audit/checkpoint")
        assert "Not met" in page and "Not cosigned" in page
