# SPDX-License-Identifier: Apache-2.0
"""A model card as HTML that can be put into a page of ours, whoever wrote it.

1. Markdown becomes HTML (CommonMark with tables; HTML in it is taken as it is). A card that would cost too much,
   because it nests thousands of brackets or draws an enormous table, is shown as its text instead.
2. nh3 keeps what is on a list of elements and drops everything else, scripts with their content.
3. What is left is written anew, attribute by attribute: headings fit below the page's own, links lead to files of the
   release, within the card, or elsewhere by http, https and mailto; pictures are those of the release. Nothing is
   loaded from elsewhere. No class, id or style of the card's is kept, so that it cannot look like a verdict of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from typing import Final

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

from pq_registry import limits
from pq_registry.server.pages.cardlinks import CardLinks, slug
from pq_registry.service.cards.card import is_hidden

_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_BLOCKS: Final = frozenset({"p", "li", "blockquote", "td", "th", "summary", "dt", "dd", "figcaption"})
_VOID: Final = frozenset({"br", "hr"})
_PLAIN: Final = frozenset(
    {"b", "strong", "i", "em", "s", "del", "ins", "sub", "sup", "code", "pre", "kbd", "samp"}
    | {"ul", "ol", "dl", "table", "thead", "tbody", "tr", "details", "figure", "center", "div", "span"}
)
TAGS: Final = frozenset({*_HEADINGS, *_BLOCKS, *_VOID, *_PLAIN, "a", "img"})
"""What a card may consist of."""
_ATTRIBUTES: Final = {"a": {"href"}, "img": {"src", "alt"}, "ol": {"start"}, "details": {"open"}}
_EMPTIED: Final = {"script", "style", "title", "textarea", "iframe", "noscript", "template", "svg", "math", "object"}
_UNWRAPPED: Final = frozenset({"center", "div", "span"})
"""Kept by nh3 for what is in them, and not written again."""
_NUMBER: Final = re.compile(r"[0-9]{1,6}", re.ASCII)
_TOP: Final = 3
_DEEPEST: Final = 6
_MARKDOWN: Final = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTexts:
    """What the page says within a card."""

    picture: Callable[[str], str]
    table: str


def lay_out(body: str, links: CardLinks, texts: CardTexts) -> Markup:
    """The card's text as HTML."""
    cut = body[: limits.CARD_SHOWN_BYTES]
    if _costs_too_much(cut):
        return _as_text(cut)
    html = nh3.clean(
        _MARKDOWN.render(cut), tags=set(TAGS), attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        url_schemes={"http", "https", "mailto"}, link_rel=None, strip_comments=True, clean_content_tags=_EMPTIED,
    )  # fmt: skip
    writer = _Writer(links, texts)
    writer.feed(html)
    writer.close()
    written = "".join(writer.parts)
    return Markup(written) if len(written) <= limits.CARD_HTML_BYTES else _as_text(cut)  # noqa: S704 - see above, 3


def _as_text(body: str) -> Markup:
    return Markup('<pre class="note wrapped" dir="auto">{}</pre>').format(_visible(body))


def _visible(text: str) -> str:
    return "".join(character for character in text if not is_hidden(character))


def _costs_too_much(body: str) -> bool:
    """Whether brackets nest, or tables spread, beyond what is laid out in a second."""
    if body.count("[") + body.count("<") > limits.CARD_MARKS:
        return True
    cells = rows = widest = 0
    for line in body.split("\n"):
        columns = line.count("|")
        if columns:
            rows, widest = rows + 1, max(widest, columns)
        if not columns or rows * widest > limits.CARD_CELLS:
            cells, rows, widest = cells + rows * widest, 0, 0
        if cells > limits.CARD_CELLS:
            return True
    return cells + rows * widest > limits.CARD_CELLS


class _Writer(HTMLParser):
    """Writes what nh3 left, in our own words."""

    def __init__(self, links: CardLinks, texts: CardTexts) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._links = links
        self._texts = texts
        self._ends: list[tuple[str, str]] = []
        """Open elements: the tag, and what is written at its end."""
        self._level = _TOP - 1
        self._heading: tuple[int, list[str]] | None = None
        self._slugs: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "img":
            self._picture(given)
        elif tag in _VOID:
            self.parts.append(f"<{tag} />")
        elif tag in _HEADINGS:
            self._level = max(_TOP, min(_HEADINGS[tag] + _TOP - 1, self._level + 1, _DEEPEST))
            self._heading = (len(self.parts), [])
            self._open(tag, f'<h{self._level} dir="auto">', f"</h{self._level}>")
        elif tag == "a":
            self._open(tag, *self._link(given.get("href", "")))
        elif tag == "table":
            label = escape(self._texts.table)
            start = f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
            self._open(tag, start, "</table></div>")
        elif tag in TAGS and tag not in _UNWRAPPED:
            self._open(tag, f"<{tag}{_attributes(tag, given)}>", f"</{tag}>")
        else:
            self._open(tag, "", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "img" or tag in _VOID or not self._ends or self._ends[-1][0] != tag:
            return
        self.parts.append(self._ends.pop()[1])
        if tag in _HEADINGS and self._heading is not None:
            at, words = self._heading
            self._heading = None
            name = self._unused(slug("".join(words)))
            self.parts[at] = self.parts[at].replace(" dir=", f' id="{escape(name)}" dir=', 1)

    def handle_data(self, data: str) -> None:
        text = _visible(data)
        if self._heading is not None:
            self._heading[1].append(text)
        self.parts.append(escape(text))

    def close(self) -> None:
        super().close()
        while self._ends:
            self.parts.append(self._ends.pop()[1])

    def _open(self, tag: str, start: str, end: str) -> None:
        self.parts.append(start)
        self._ends.append((tag, end))

    def _link(self, href: str) -> tuple[str, str]:
        target = self._links.target(href)
        if target is None:
            return "", ""
        url = escape(target.url)
        if not target.outside:
            return f'<a href="{url}">', "</a>"
        return f'<a class="outside" rel="nofollow ugc noopener noreferrer" title="{url}" href="{url}">', "</a>"

    def _picture(self, given: Mapping[str, str]) -> None:
        about = _visible(given.get("alt", "")).strip()
        source = self._links.picture(given.get("src", ""))
        if source is not None:
            self.parts.append(f'<img src="{escape(source)}" alt="{escape(about)}" loading="lazy">')
            return
        start, end = ("", "") if any(tag == "a" for tag, _ in self._ends) else self._link(given.get("src", ""))
        self.parts.append(f'{start}<span class="picture">{escape(self._texts.picture(about))}</span>{end}')

    def _unused(self, name: str) -> str:
        found, number = name, 1
        while found in self._slugs:
            found, number = f"{name}-{number}", number + 1
        self._slugs.add(found)
        return found


def _attributes(tag: str, given: Mapping[str, str]) -> str:
    direction = ' dir="auto"' if tag in _BLOCKS else ""
    if tag == "ol" and _NUMBER.fullmatch(given.get("start", "")):
        return f' start="{given["start"]}"'
    if tag == "th":
        return f' scope="col"{direction}'
    return " open" if tag == "details" and "open" in given else direction
