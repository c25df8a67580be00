# SPDX-License-Identifier: Apache-2.0
"""C9: model cards that are to cost time or memory. What is counted here is work, not seconds."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.server.pages import cardhtml
from pq_registry.server.pages.cardhtml import CardTexts, lay_out
from pq_registry.server.pages.cardlinks import CardLinks
from pq_registry.service.cards import Card, read_header
from pq_registry.service.cards.reading import headline
from pq_registry.service.cards.words import index_of
from tests.samples import manifest

LINKS = CardLinks(manifest(), "/here")
TEXTS = CardTexts(picture=str, table="Table")
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "a: &a\n  b: *a",
        "a: " + "[" * 10_000,
        "a: " + "{a: " * 10_000,
        "- " * 10_000,
        "a: [" + "[]," * 60_000 + "]",
        "? " * 5000,
        "a: |\n" + " x\n" * 140_000,
        "!!python/object/new:os.system [id]",
        "a: !!set {b, c}",
        "a: !<tag:yaml.org,2002:binary> aGk=",
        "%TAG ! tag:e.example,2026:\n",
    ],
    ids=range(12),
)
def test_a_header_is_refused_before_anything_is_made_of_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "compose", lambda *_, **__: pytest.fail("it was put together"))
    with pytest.raises(FormatError):
        read_header(f"---\n{text}\n---\n")


def test_any_bytes_are_a_header_or_refused() -> None:
    source = random.Random(7)
    alphabet = "abc: -[]{}&*!|>'\"%@`#,?\n\t\\x00\u202e\U0001f600~0123"
    for _ in range(3000):
        text = "".join(source.choice(alphabet) for _ in range(source.randrange(60)))
        try:
            header = read_header(f"---\n{text}\n---\n")
        except FormatError:
            continue
        card = Card.of_header(header)
        assert Card.parse(card.encode()) == card
    for _ in range(500):
        try:
            read_header(b"---\n" + source.randbytes(40) + b"\n---\n")
        except FormatError:
            continue


@pytest.mark.parametrize(
    "card",
    [
        "[" * (limits.CARD_MARKS + 1),
        "![a](" * limits.CARD_MARKS + "![a](",
        "<div>" * (limits.CARD_MARKS + 1),
        "|a" * 1000 + "|\n" + "|-" * 1000 + "|\n" + "|a|\n" * 1000,
        "|" * (limits.CARD_CELLS + 1),
        ("|a|b|\n|-|-|\n" + "|a|b|\n" * 2000 + "\n") * 4,
    ],
    ids=["brackets", "pictures", "elements", "short rows", "one row", "many tables"],
)
def test_a_card_that_would_cost_too_much_is_shown_as_text(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> str:
        raise AssertionError("it was laid out")

    monkeypatch.setattr(cardhtml._MARKDOWN, "render", never)
    html = str(lay_out(card, LINKS, TEXTS))
    assert html.startswith('<pre class="note wrapped" dir="auto">')
    assert "<div>" not in html


def test_a_card_that_grows_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CARD_HTML_BYTES", 1000)
    assert str(lay_out("- x\n" * 200, LINKS, TEXTS)).startswith("<pre")
    assert not str(lay_out("- x\n" * 2, LINKS, TEXTS)).startswith("<pre")


def test_elements_do_not_nest_without_end() -> None:
    lay_out("<b>" * limits.CARD_MARKS + "x", LINKS, TEXTS)
    lay_out("> " * 50_000, LINKS, TEXTS)
    lay_out("".join(" " * depth + "- a\n" for depth in range(400)), LINKS, TEXTS)


def test_words_and_headline_are_bounded_whatever_a_card_holds() -> None:
    for body in ("x " * 500_000, "y" * 1_000_000, "<" * 100_000, "[" * 100_000, "\n" * 500_000, "![" * 200_000):
        title, summary = headline(body)
        assert len(title) <= limits.CARD_VALUE_CHARS and len(summary) <= limits.CARD_SUMMARY_CHARS
        found = index_of("acme/x", Card(), body)
        assert len(found) <= limits.CARD_WORDS + 1
        assert max(map(len, found)) <= limits.CARD_FACET_CHARS
