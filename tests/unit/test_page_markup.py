# SPDX-License-Identifier: Apache-2.0
"""Every page as a browser and a screen reader meet it: policy, languages, landmarks, headings, names, labels."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from pq_registry.server.pages.render import SECURITY
from tests.page_site import HOSTILE, Site, paths, site
from tests.server_harness import Answer

VOID = {"meta", "link", "img", "input", "br", "rect", "line"}
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
    "connect-src": "'self'", "form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'",
}  # fmt: skip


class Document(HTMLParser):
    """A page's elements in order, each with its attributes, its ancestors and its text. Refuses unclosed elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {[item['tag'] for item in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, **{name: value or "" for name, value in attrs}, "text": "",
                   "inside": [item["tag"] for item in self._open]}  # fmt: skip
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice: {element}"
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open[-1]["tag"] == tag, f"</{tag}> closes <{self._open[-1]['tag']}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element["text"] += data

    def all(self, *tags: str) -> list[dict[str, Any]]:
        return [element for element in self.elements if element["tag"] in tags]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("shown") / "registry", public_read=True) as made:
        yield made


def page(shown: Site, path: str, language: str = "en") -> tuple[Answer, Document]:
    answer = shown.registry.with_token(None).get(path, {"Accept-Language": language, "Accept": "text/html"})
    return answer, Document(answer.body.decode())


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_page_is_whole(shown: Site, language: str) -> None:
    for name, path in paths(shown).items():
        answer, document = page(shown, path, language)
        assert answer.status == 200, name
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        (html,) = document.all("html")
        assert html["lang"] == answer.headers["content-language"] == language, name
        assert len(document.all("main")) == len(document.all("title")) == len(document.all("h1")) == 1, name
        ids = [element["id"] for element in document.elements if "id" in element]
        assert len(set(ids)) == len(ids), f"{name}: an id twice"


def test_every_page_brings_its_policy_and_nothing_the_policy_would_stop(shown: Site) -> None:
    for name, path in paths(shown).items():
        answer, document = page(shown, path)
        policy = dict(item.strip().split(" ", 1) for item in answer.headers["content-security-policy"].split(";"))
        assert policy == POLICY, name
        assert all(answer.headers[header.lower()] == value for header, value in SECURITY.items())
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for element in document.elements:
            assert "style" not in element, element
            assert not [attribute for attribute in element if attribute.startswith("on")], element
        assert not document.all("style", "iframe", "object", "embed", "base")
        for script in document.all("script"):
            assert script["src"].startswith("/static/") and not script["text"].strip()
        for element in document.elements:
            for attribute in ("src", "href", "action"):
                assert element.get(attribute, "/").startswith(("/", "#")), element


def test_whatever_is_no_page_may_load_nothing(shown: Site) -> None:
    for path in ("/livez", "/v1/repos", "/log/checkpoint", f"/audit/envelopes/{shown.hostile.hex}", "/v1/nothing"):
        answer = shown.registry.get(path)
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'", path


def test_headings_descend_by_one_and_sections_are_named(shown: Site) -> None:
    for name, path in paths(shown).items():
        _, document = page(shown, path)
        levels = [int(element["tag"][1]) for element in document.all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), (name, levels)
        known = {element["id"] for element in document.elements if "id" in element}
        for element in document.all("section", "nav"):
            assert element.get("aria-label") or element.get("aria-labelledby") in known, (name, element)
        for element in document.elements:
            for attribute in ("aria-describedby", "aria-labelledby", "for"):
                assert element.get(attribute) is None or element[attribute] in known, (name, element)


def test_everything_one_can_use_has_a_name(shown: Site) -> None:
    for name, path in paths(shown).items():
        _, document = page(shown, path)
        labelled = {element["for"] for element in document.all("label")}
        for element in document.all("input", "select"):
            assert element.get("type") == "hidden" or element["id"] in labelled, (name, element)
        for element in document.all("a", "button", "summary", "th", "caption", "option"):
            assert element["text"].strip(), (name, element)
        for element in document.all("img"):
            assert "alt" in element
        for element in document.all("svg"):
            assert (element["role"], bool(element["aria-label"])) == ("img", True)
        headed = [element for element in document.all("th") if element.get("scope")]
        assert len(headed) == len(document.all("th")), f"{name}: a heading of neither row nor column"
        assert not document.all("table") or headed
        (skip,) = [element for element in document.all("a") if element.get("class") == "skip"]
        assert skip["href"] == "#main"


def test_a_proof_speaks_and_says_without_a_script_that_nothing_was_checked(shown: Site) -> None:
    for name in ("overview", "release", "leaf", "checkpoint"):
        _, document = page(shown, paths(shown)[name])
        (verdict,) = [element for element in document.elements if element.get("role") == "status"]
        assert verdict["aria-live"] == "polite"
        assert "checked nothing" in verdict["text"]
        signs = [element for element in document.elements if element.get("class") == "sign"]
        assert signs and all(element["aria-hidden"] == "true" for element in signs)


def test_a_hostile_licence_and_a_hostile_question_are_text(shown: Site) -> None:
    answer, document = page(shown, paths(shown)["hostile release"])
    assert HOSTILE not in answer.body.decode()
    assert "&lt;script&gt;alert(&#39;licence&#39;)&lt;/script&gt;" in answer.body.decode()
    assert [element for element in document.all("dd") if element["text"] == HOSTILE]
    for value in ("%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "{{1111*1111}}", "%00", "'\"%3C"):
        for path in (f"/audit/log?q={value}", f"/audit/log?lang={value}", f"/?lang=de&x={value}"):
            answer, document = page(shown, path)
            assert answer.status == 200, path
            assert b"<script>" not in answer.body
            assert b"1234321" not in answer.body
    for path in ("/models?namespace=%3Cb%3E", "/models/%3Cb%3E/x", "/audit/log/abc", "/audit/log?kind=%3Cb%3E"):
        answer, document = page(shown, path)
        assert 400 <= answer.status < 500, path
        assert not document.all("b")


def test_the_language_chosen_stays_and_can_be_changed_on_every_page(shown: Site) -> None:
    for name, path in paths(shown).items():
        chosen = path + ("&" if "?" in path else "?") + "lang=de"
        answer, document = page(shown, chosen, "en")
        assert answer.headers["content-language"] == "de", name
        links = [element["href"] for element in document.all("a") if element["href"].startswith("/")]
        assert all("lang=" in href for href in links), (name, [href for href in links if "lang=" not in href])
        switch = [element for element in document.all("a") if element.get("hreflang") == "en"]
        (other,) = switch
        assert page(shown, other["href"], "de")[0].headers["content-language"] == "en", name


def test_refusals_are_pages_for_browsers_and_problems_for_programs(shown: Site) -> None:
    for path, status in (
        ("/models/acme/none", 404), ("/nowhere", 404), ("/audit/log/999", 404), ("/models?after=x", 400),
        ("/audit/log?before=-1", 422),
    ):  # fmt: skip
        answer, document = page(shown, path, "de")
        assert (answer.status, len(document.all("h1"))) == (status, 1), path
        assert answer.headers["content-security-policy"] == SECURITY["Content-Security-Policy"]
        plain = shown.registry.with_token(None).get(path)
        assert (plain.status, plain.headers["content-type"]) == (status, "application/problem+json")
    api = shown.registry.with_token(None).get("/v1/repos/acme/none", {"Accept": "text/html"})
    assert api.status == 404
