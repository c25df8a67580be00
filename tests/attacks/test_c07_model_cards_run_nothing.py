# SPDX-License-Identifier: Apache-2.0
"""C7: a model card is text that any publisher may write. None of it runs, loads, submits, or looks like the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pq_registry.server.pages.cardhtml import TAGS, CardTexts, lay_out
from pq_registry.server.pages.cardlinks import CardLinks
from tests.samples import manifest
from tests.unit.test_page_markup import Document

HOSTILE = (Path(__file__).parents[1] / "vectors" / "cards" / "hostile.md").read_text("utf-8").split("---\n", 2)[2]
LINKS = CardLinks(manifest({"config.json": b"{}", "x.png": b""}), "/here")
TEXTS = CardTexts(picture=lambda about: f"[{about}]", table="Table")
ATTRIBUTES = {
    "a": {"href", "rel", "title", "class"}, "img": {"src", "alt", "loading"}, "ol": {"start"}, "details": {"open"},
    "div": {"class", "role", "tabindex", "aria-label"}, "th": {"scope", "dir"}, "pre": {"class", "dir"},
    "span": {"class"},
}  # fmt: skip
OURS = {"a": {"outside"}, "div": {"scroll"}, "span": {"picture"}, "pre": {"note wrapped"}}
CORPUS = [
    HOSTILE,
    *HOSTILE.split("\n\n"),
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src='x' onerror='alert(1)'//>",
    "<svg><script>alert(1)</script></svg><svg/onload=alert(1)>",
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<details ontoggle=alert(1) open>x</details><marquee onstart=alert(1)>y</marquee>",
    "<a href='&#x6A;&#x61;vascript:alert(1)'>x</a><a href='java&NewLine;script:alert(1)'>y</a>",
    "[a](<javascript:alert(1)>)[b](java&#10;script:alert(1))[c](&#106;avascript:alert(1))",
    "![x](x.png\"onerror=\"alert(1))![y](x.png 'a\" onerror=\"alert(1)')",
    '![" onerror=alert(1) x="](x.png)',
    '[x](https://e.example/"onmouseover="alert(1))',
    "<a href=\"https://e.example/' onmouseover='alert(1)\">x</a>",
    '# <img src=x onerror=alert(1)>\n## " onclick=alert(1) x="\n',
    "<h1>a</h1 onclick=alert(1)><table><tr><td></table></div></section></main><script>",
    '```"><script>alert(1)</script>\nx\n```',
    '~~~ x" onload="alert(1)\ny\n~~~',
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<plaintext><script>alert(1)</script>",
    "<xmp></xmp><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]><?php x ?><!DOCTYPE x><!-- --!><script>alert(1)</script> -->",
    "\x00<scr\x00ipt>alert(1)</script>",
    "<p dir=rtl style='x' class='state is-ok' id='main' data-proof data-verdict=ok aria-live=polite role=status>x",
    "<input autofocus onfocus=alert(1)><select><option></select><button formaction=x>y</button><label for=q>z</label>",
    "<base href=//e><link rel=stylesheet href=//e><meta http-equiv=refresh content=0><style>@import '//e'</style>",
    "<audio src=//e autoplay><source src=//e></audio><picture><source srcset=//e><img src=//e></picture>",
    "<map><area href=//e></map>",
]  # fmt: skip


def check(html: str) -> None:
    document = Document(html)
    for element in document.elements:
        tag = element["tag"]
        assert tag in TAGS - {"center"}, element
        given = {name: value for name, value in element.items() if name not in ("tag", "text", "inside")}
        allowed = ATTRIBUTES.get(tag, {"dir"} | ({"id"} if re.fullmatch("h[3-6]", tag) else set()))
        assert set(given) <= allowed, element
        assert given.get("class", next(iter(OURS.get(tag, {""})))) in OURS.get(tag, {""}), element
        assert given.get("id", "card-").startswith("card-"), element
        href = given.get("href", "#card-")
        assert href.startswith(("https://", "http://", "mailto:", "#card-", "/here/files/")), element
        assert given.get("src", "/here/files/").startswith("/here/files/"), element
        assert "href" not in given or href.startswith(("#", "/here")) or "noopener" in given["rel"]


@pytest.mark.parametrize("card", CORPUS, ids=range(len(CORPUS)))
def test_nothing_of_it_runs_loads_or_submits(card: str) -> None:
    check(str(lay_out(card, LINKS, TEXTS)))


def test_what_nh3_would_miss_is_not_written_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step keeps to the list by itself."""
    monkeypatch.setattr("nh3.clean", lambda html, **_: html)
    for card in CORPUS:
        html = str(lay_out(card, LINKS, TEXTS))
        found = re.findall(r"<([a-z0-9]+)((?:\s[^<>]*)?)>", html)
        assert {tag for tag, _ in found} <= TAGS, card
        for tag, attributes in found:
            bare = re.sub(r"\"[^\"]*\"", "", attributes)
            assert not re.search(r"\son|style|srcset|xlink|formaction", bare), (tag, attributes)
            assert "javascript:" not in attributes.lower().replace("&#10;", ""), attributes


@pytest.mark.parametrize(
    "character", "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\U000e0041\x07"
)
def test_no_character_turns_or_hides_what_stands_beside_it(character: str) -> None:
    html = str(lay_out(f"# a{character}b\n\nc{character}d `e{character}f` ![g{character}h](no.png)\n", LINKS, TEXTS))
    assert character not in html
    for text in ("ab", "cd", "ef", "gh"):
        assert text in html


def test_every_block_stands_in_its_own_direction() -> None:
    document = Document(str(lay_out("# שלום\n\nمرحبا\n\n- עברית\n\n> text\n", LINKS, TEXTS)))
    assert all(element.get("dir") == "auto" for element in document.all("h3", "p", "li", "blockquote"))
