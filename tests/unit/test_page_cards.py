# SPDX-License-Identifier: Apache-2.0
"""Model cards on pages: what becomes of Markdown and links, files that cards refer to, the search, the lineage."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import quote

import pytest

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.format.name import RepositoryName
from pq_registry.server.pages.cardhtml import CardTexts, lay_out
from pq_registry.server.pages.cardlinks import CardLinks, found_type, slug
from pq_registry.server.pages.lineagegraph import draw
from pq_registry.service.cards import Edge, Graph, Node
from tests.card_site import PNG, CardSite, card_site, publish_card
from tests.samples import manifest
from tests.server_harness import Answer, RunningRegistry
from tests.unit.test_page_markup import Document

LINKS = CardLinks(manifest({"config.json": b"{}", "a b/ü.png": PNG, "x.svg": b"<svg/>", "README.md": b""}), "/here")
TEXTS = CardTexts(picture=lambda about: f"[{about}]", table="Table")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardSite]:
    with card_site(tmp_path_factory.mktemp("cards") / "registry", public_read=True) as made:
        yield made


def laid_out(body: str) -> str:
    return str(lay_out(body, LINKS, TEXTS))


def page(site: CardSite, path: str, language: str = "en") -> tuple[Answer, Document]:
    answer = site.registry.with_token(None).get(path, {"Accept-Language": language, "Accept": "text/html"})
    return answer, Document(answer.body.decode())


def paths(site: CardSite) -> dict[str, str]:
    teuken = site.releases["acme/teuken"].hex
    return {
        "models": "/models",
        "search": "/models?q=teuken&language=de&act=stated",
        "nothing found": "/models?q=nothing-at-all",
        "card": "/models/acme/teuken",
        "card of a release": f"/models/acme/teuken/releases/{teuken}",
        "adapter": "/models/acme/teuken-legal",
        "hostile": "/models/acme/hostile",
        "no card": "/models/acme/bare",
        "sealed": "/models/acme/secret",
    }


# -- laying out ------------------------------------------------------------------------------------------------------


def test_headings_fit_below_the_pages_own_and_have_their_names() -> None:
    document = Document(laid_out("###### A\n\n# B c!\n\n#### D\n\n<h1 id='x' class='y'>B c!</h1>"))
    found = [(element["tag"], element["id"]) for element in document.elements]
    assert found == [("h3", "card-a"), ("h3", "card-b-c"), ("h4", "card-d"), ("h3", "card-b-c-1")]
    assert slug("Über ÄÖ_x-y (z)") == "card-über-äö_x-y-z"


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("https://example.org/a?b=c#d", "https://example.org/a?b=c#d"),
        ("HTTP://example.org", "HTTP://example.org"),
        ("mailto:a@b.example", "mailto:a@b.example"),
        ("config.json", "/here/files/config.json"),
        ("./x/../config.json#L3", "/here/files/config.json"),
        ("a%20b/%C3%BC.png", "/here/files/a%20b/%C3%BC.png"),
        ("#Some%20Heading", "#card-some-heading"),
        *((href, None) for href in (
            "", "#", "javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "vbscript:x", "//evil.example/x",
            "/session", "/config.json", "../config.json", "../../../etc/passwd", "missing", "https://", "https://a@evil.example/",
            "http://[::1", "\\\\evil", "/\\evil", "java\tscript:x", "config.json\x00", "https://a b",
            "file:///etc/passwd", "mailto:x", "blob:x", "config.json\u202e", "https://ex\u200bample.org",
            "ftp://example.org", "x" * 2000,
        )),
    ],
)  # fmt: skip
def test_links_lead_to_files_of_the_release_or_openly_elsewhere(href: str, url: str | None) -> None:
    target = LINKS.target(href)
    assert (None if target is None else target.url) == url
    assert target is None or target.outside == (not href.startswith(("config", ".", "a%", "#")))


def test_pictures_are_those_of_the_release() -> None:
    html = laid_out(
        "![ü](a%20b/%C3%BC.png) ![e](https://evil.example/x.png) ![v](x.svg) [![in](https://e.example/b)](config.json)"
    )
    document = Document(html)
    (shown,) = document.all("img")
    assert (shown["src"], shown["alt"]) == ("/here/files/a%20b/%C3%BC.png", "ü")
    assert "[e]" in html and "[v]" in html and "[in]" in html
    assert [element["href"] for element in document.all("a")] == [
        "https://evil.example/x.png", "/here/files/x.svg", "/here/files/config.json",
    ]  # fmt: skip


def test_tables_lists_and_code_stay_what_they_are() -> None:
    html = laid_out("| a |\n|---|\n| b |\n\n3. x\n4. y\n\n`<b>`\n\n~~old~~")
    assert '<th scope="col" dir="auto">a</th>' in html
    assert '<ol start="3">' in html and "<code>&lt;b&gt;</code>" in html and "<s>old</s>" in html
    assert '<div class="scroll" role="region" tabindex="0" aria-label="Table"><table>' in html


def test_a_card_that_is_cut_is_whole() -> None:
    html = laid_out("<details><summary>x</summary>" + "word " * limits.CARD_SHOWN_BYTES)
    Document(html)
    assert len(html) < 2 * limits.CARD_SHOWN_BYTES


def test_what_is_a_picture_says_its_beginning() -> None:
    assert found_type(PNG) == "image/png"
    assert found_type(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert found_type(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "image/webp"
    assert found_type(b"GIF89a") == "image/gif"
    for data in (b"", b"<svg", b"<html>GIF89a", b"RIFF1234WAVE"):
        assert found_type(data) is None


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "de"])
def test_pages_with_cards_are_whole(site: CardSite, language: str) -> None:
    for name, path in paths(site).items():
        answer, document = page(site, path, language)
        assert answer.status == 200, name
        ids = [element["id"] for element in document.elements if "id" in element]
        assert len(set(ids)) == len(ids), f"{name}: an id twice"
        levels = [int(element["tag"][1]) for element in document.all("h1", "h2", "h3", "h4", "h5", "h6")]
        assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels)), (name, levels)
        assert len(document.all("h1")) == len(document.all("main")) == 1, name
        labelled = {element["for"] for element in document.all("label")}
        assert all(
            element.get("type") == "hidden" or element["id"] in labelled for element in document.all("input", "select")
        )
        for element in document.all("section", "nav", "svg"):
            named = element.get("aria-label") or element.get("aria-labelledby") in ids
            assert named, (name, element)


def test_a_card_says_what_it_says(site: CardSite) -> None:
    _, document = page(site, "/models/acme/teuken", "de")
    text = document.all("main")[0]["text"]
    for words in (
        "Vom Herausgeber geschrieben", "apache-2.0", "4.2e22 FLOP", "Art. 51 Abs. 2", "Fraunhofer", "24 Amtssprachen",
        "Bild nicht geladen: Zähler",
    ):  # fmt: skip
        assert words in text
    links = {element["href"]: element for element in document.all("a")}
    assert "noopener" in links["https://example.org/summary"]["rel"]
    assert "/models?license=apache-2.0" in links and "/models?language=de" in links


def test_models_are_listed_with_what_their_cards_say(site: CardSite) -> None:
    answer, document = page(site, "/models?q=teuken&lang=de")
    rows = [element["text"] for element in document.all("tr")[1:]]
    assert len(rows) == 2 and "europäisches Sprachmodell mit 24" in rows[0] and "text-generation" in rows[0]
    assert b'value="teuken"' in answer.body
    for query, expected in (
        ("base=acme/teuken", {"acme/merged", "acme/teuken-legal", "lab/hidden"}),
        ("license=MIT&library=peft", {"acme/teuken-legal"}),
        ("act=general", {"acme/teuken"}),
        ("act=x", set()),
        ("namespace=lab", {"lab/hidden"}),
        ("tag=europ%C3%A4isch", {"acme/teuken"}),
        ("pipeline=text-generation&namespace=acme", {"acme/teuken"}),
    ):
        _, document = page(site, f"/models?{query}")
        found = {element["text"] for element in document.all("a") if element["href"].startswith("/models/")}
        assert found == expected, query


def test_hostile_questions_are_text(site: CardSite) -> None:
    for value in ('"><script>alert(1)</script>', "{{1111*1111}}", "\x00", "'", "%", "a" * 200):
        for field in ("q", "license", "language", "tag", "base", "act"):
            answer, document = page(site, f"/models?{field}={quote(value)}")
            assert answer.status == 200, (field, value)
            assert not document.all("script") and b"1234321" not in answer.body
    assert page(site, f"/models?q={'w+' * 60}")[0].status == 200, "one word, however often"
    many = "+".join(f"w{number}" for number in range(limits.SEARCH_WORDS + 1))
    for query in (f"q={many}", f"q={'a' * 300}", "after=x"):
        assert 400 <= page(site, f"/models?{query}")[0].status < 500, query


def test_pages_of_a_search_lead_from_one_to_the_next(site: CardSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_ROWS", 1)
    path: str | None = "/models?q=teuken&lang=de"
    seen = []
    while path is not None:
        _, document = page(site, path)
        seen += [element["text"] for element in document.all("a") if element["href"].startswith("/models/")]
        path = next((element["href"] for element in document.all("a") if element.get("rel") == "next"), None)
    assert seen == ["acme/teuken", "acme/teuken-legal"]


def test_a_release_shows_its_own_card_and_a_model_that_of_main(registry: RunningRegistry) -> None:
    first = publish_card(registry, "acme/a", {"README.md": b"# Alpha"})
    second = publish_card(registry, "acme/a", {"README.md": b"# Beta"})
    for path, word in (("", b"Beta"), (f"/releases/{first.hex}", b"Alpha"), (f"/releases/{second.hex}", b"Beta")):
        assert word in registry.get(f"/models/acme/a{path}").body, path


def test_a_card_that_cannot_be_read_does_not_take_the_page_with_it(registry: RunningRegistry) -> None:
    publish_card(registry, "acme/a", {"README.md": b"---\na: &x b\nc: *x\n---\n# Alpha\n"})
    publish_card(registry, "acme/b", {"README.md": b"\xff\xfe"})
    publish_card(registry, "acme/c", {"README.md": b"x" * (limits.CARD_BYTES + 1)})
    for name, words in (("a", b"alias"), ("b", b"no text"), ("c", b"too long")):
        answer = registry.get(f"/models/acme/{name}")
        assert answer.status == 200 and b"Unreadable header" in answer.body and words in answer.body, name


def test_bytes_that_cannot_be_read_do_not_take_the_page_with_them(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish_card(registry, "acme/a", {"README.md": b"---\nlicense: mit\n---\n# Alpha\n"})

    def fail(*_: object) -> bytes:
        raise StorageError("the disk is on fire")

    reader = registry.registry.cards.reader
    with monkeypatch.context() as patch:
        patch.setattr(reader, "text", fail)
        body = registry.get("/models/acme/a").body
        assert b"the disk is on fire" in body and b"mit" in body and b"Alpha" not in body
        patch.setattr(reader, "manifest", fail)
        assert b"Model card" not in registry.get("/models/acme/a").body
    for _ in range(2):
        assert b"Alpha" in registry.get(f"/models/acme/a/releases/{release.hex}").body
    monkeypatch.setattr(reader, "text", fail)
    assert b"Alpha" in registry.get("/models/acme/a").body, "it was kept, laid out"


# -- files -----------------------------------------------------------------------------------------------------------


def test_files_of_a_card_come_as_pictures_or_to_be_saved(site: CardSite) -> None:
    place = f"/models/acme/teuken/releases/{site.releases['acme/teuken'].hex}/files"
    anonymous = site.registry.with_token(None)
    picture = anonymous.get(f"{place}/bilder/plot.png")
    assert (picture.status, picture.headers["content-type"], picture.body) == (200, "image/png", PNG)
    config = anonymous.get(f"{place}/config.json")
    assert (config.status, config.headers["content-type"], config.body) == (200, "application/octet-stream", b"{}")
    assert config.headers["content-disposition"] == "attachment; filename*=UTF-8''config.json"
    for answer in (picture, config):
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    for path in ("missing", "../config.json", "%2e%2e/config.json", "config.json/"):
        assert anonymous.get(f"{place}/{path}").status == 404, path


def test_files_are_for_whoever_may_read_the_model(registry: RunningRegistry) -> None:
    release = publish_card(registry, "acme/a", {"README.md": b"# A", "x.png": b"<script>alert(1)</script>"})
    path = f"/models/acme/a/releases/{release.hex}/files/x.png"
    assert registry.with_token(None).get(path).status == 401
    assert registry.as_role("reader", "lab").get(path).status == 403
    answer = registry.as_role("reader", "acme").get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/octet-stream"), (
        "a picture by its name only"
    )
    assert registry.get(f"/models/acme/a/releases/{'0' * 64}/files/x.png").status == 404


# -- lineage ---------------------------------------------------------------------------------------------------------


def test_a_graph_shows_bases_and_descendants(site: CardSite) -> None:
    _, document = page(site, "/models/acme/teuken-legal")
    (svg,) = document.all("svg")
    assert svg["role"] == "group" and "acme/teuken-legal" in svg["aria-label"]
    assert [(element["class"], element["href"]) for element in document.all("a") if element.get("class") == "node"] == [
        ("node", "/models/acme/teuken")
    ]
    _, document = page(site, "/models/acme/merged")
    kinds = {
        element["aria-label"]: element["class"]
        for element in document.elements
        if element.get("class", "").startswith("node")
    }
    assert kinds == {"acme/merged": "node self", "acme/teuken": "node", "mistralai/Mistral-7B-v0.1": "node away"}
    text = document.all("table")[-1]["text"]
    assert "mistralai/Mistral-7B-v0.1" in text and "Merged" in text
    assert not page(site, "/models/acme/bare")[1].all("svg")


def test_what_a_manifest_names_is_signed_and_what_a_card_names_is_not(site: CardSite) -> None:
    graph = graph_of(site, "acme/teuken")
    found = {edge.derived: (edge.relation, edge.release) for edge in graph.edges}
    assert found == {
        "acme/teuken-legal": ("adapter", site.releases["acme/teuken"].hex),
        "acme/merged": ("merge", None),
        "lab/hidden": ("finetune", None),
    }
    assert [node.level for node in graph.nodes] == [0, 1, 1, 1]


def test_nobody_sees_in_a_graph_what_they_may_not_read(registry: RunningRegistry) -> None:
    publish_card(registry, "acme/base", {"README.md": b"# Base"})
    publish_card(registry, "acme/merged", {"README.md": b"---\nbase_model: acme/base\n---\n"})
    publish_card(registry, "lab/hidden", {"README.md": b"---\nbase_model: acme/base\n---\n"}, signer="bob")
    body = registry.as_role("reader", "acme").get("/models/acme/base").body
    assert b"acme/merged" in body and b"lab/hidden" not in body
    lab = registry.as_role("reader", "lab").get("/models/lab/hidden").body
    assert b"acme/base" in lab, "the card says so"
    assert b"/models/acme/base" not in lab and b"merged" not in lab


def graph_of(site: CardSite, name: str) -> Graph:
    registry = site.registry.registry
    from pq_registry.service.tokens import host_caller

    return registry.lineage.graph(host_caller(), registry.cards.shown([name])[name])


def test_a_graph_has_bounds_and_survives_circles(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINEAGE_NODES", 6)
    for name, base in (("a", "acme/b"), ("b", "acme/c"), ("c", "acme/a"), ("d", "acme/D")):
        publish_card(registry, f"acme/{name}", {"README.md": f"---\nbase_model: {base}\n---\n".encode()})
    graph = graph_of(CardSite(registry, {}), "acme/a")
    assert {(edge.base, edge.derived) for edge in graph.edges} == {
        ("acme/b", "acme/a"), ("acme/c", "acme/b"), ("acme/a", "acme/c"),
    }  # fmt: skip
    assert not graph.more
    assert graph_of(CardSite(registry, {}), "acme/d").edges == (), "itself is no base"
    many = "".join(f"  - x/y{number}\n" for number in range(20))
    publish_card(registry, "acme/many", {"README.md": f"---\nbase_model:\n{many}---\n".encode()})
    graph = graph_of(CardSite(registry, {}), "acme/many")
    assert (len(graph.nodes), graph.more) == (6, True)
    assert registry.get("/models/acme/many").status == 200


def test_models_are_drawn_apart_from_one_another() -> None:
    nodes = tuple(Node(name=f"a/{'n' * 40}{at}", level=at % 3 - 1, here=True) for at in range(9))
    edge = Edge(base=nodes[0].name, derived=nodes[2].name, relation="merge", release=None)
    drawing = draw(Graph(nodes=tuple(sorted(nodes, key=lambda node: node.level)), edges=(edge,), more=False))
    places = {(box.x, box.y) for box in drawing.boxes}
    assert len(places) == 9
    assert all(
        0 <= x <= drawing.width - drawing.box_width and 0 <= y <= drawing.height - drawing.box_height for x, y in places
    )
    assert {box.second[-1] for box in drawing.boxes} == {"\N{HORIZONTAL ELLIPSIS}"}
    assert len(drawing.lines) == 1


def test_the_card_of_another_repository_is_not_shown(site: CardSite) -> None:
    with pytest.raises(Exception, match="no release"):
        site.registry.registry.cards.manifest(RepositoryName.parse("acme/bare"), site.releases["acme/teuken"])
