# SPDX-License-Identifier: Apache-2.0
"""How the pages look and feel, measured in a browser: nothing sticks out, text can be read, keys reach everything.

Every page is also photographed, in both languages, wide and narrow, light and dark; the pictures lie in the tests'
directory (``pytest --basetemp``) for people to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import NARROW, SETTLED, WIDE, Open, chromium, require_chromium, visitor
from tests.page_site import Site, site
from tests.page_site import paths as paths_of

require_chromium()

STICKS_OUT = """() => [...document.querySelectorAll('body *')]
  .filter(item => !item.closest('.note, .skip, .unseen, .scroll > *, caption, thead') && item.checkVisibility()
                  && item.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(item => item.tagName + '.' + item.className)"""
POOR_CONTRAST = """() => {
  const parse = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const channel = value => { const c = value / 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = item => {
    for (let at = item; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const item = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !item.checkVisibility()) continue;
    if (item.closest('template, script, option')) continue;
    const [text, under] = [luminance(parse(getComputedStyle(item).color)), luminance(ground(item))];
    const ratio = (Math.max(text, under) + 0.05) / (Math.min(text, under) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${item.tagName}.${item.className}: ${item.textContent.trim()}`);
  }
  return poor;
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll('button, input, select, summary, header nav a')]
  .filter(item => item.checkVisibility() && item.type !== 'hidden')
  .filter(item => { const box = item.getBoundingClientRect(); return box.height < 24 || box.width < 24; })
  .map(item => item.tagName + ' ' + item.textContent.trim())"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("shown") / "registry", public_read=True) as made:
        yield made


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    with visitor(browser) as open_page:
        yield open_page


@pytest.mark.parametrize(
    ("width", "language", "scheme"),
    [("wide", "en", "light"), ("wide", "de", "dark"), ("narrow", "de", "light"), ("narrow", "en", "dark")],
)
def test_every_page_fits_and_can_be_read(
    visit: Open, shown: Site, tmp_path: Path, width: str, language: str, scheme: str
) -> None:
    viewport = WIDE if width == "wide" else NARROW
    page = visit(language=language, viewport=viewport, color_scheme=scheme)
    for name, path in {**paths_of(shown), "refusal": "/models/acme/none"}.items():
        page.goto(shown.registry.url + path)
        page.wait_for_function(SETTLED)
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, page.evaluate(STICKS_OUT))
        assert page.evaluate(STICKS_OUT) == [], name
        assert page.evaluate(POOR_CONTRAST) == [], name
        assert page.evaluate(SMALL_TARGETS) == [], name


def test_keys_reach_everything_in_the_order_one_reads(visit: Open, shown: Site) -> None:
    page = visit()
    page.goto(shown.registry.url + "/audit/log?q=acme")
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("item => item === document.activeElement && item.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        outline = "(style => style.outlineStyle + style.outlineWidth)(getComputedStyle(document.activeElement))"
        assert page.evaluate(outline) == "solid3px", page.evaluate("document.activeElement.outerHTML")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert reached[:5] == ["q", "kind", "Search", "13", "12"]
    page.get_by_label("Kind").select_option("tag")
    page.get_by_label("Kind").press("Enter")
    page.get_by_role("button", name="Search").press("Enter")
    page.wait_for_url("**kind=tag**")


def test_tables_stay_tables_on_narrow_screens(visit: Open, shown: Site) -> None:
    page = visit(viewport=NARROW)
    page.goto(shown.registry.url + "/audit/log")
    assert page.get_by_role("table").count() == 1
    assert page.get_by_role("columnheader").count() == 6
    assert page.get_by_role("row").count() > 10
    label = page.locator("td").first.evaluate("item => getComputedStyle(item, '::before').content")
    assert label == '"Leaf"'


def test_a_verdict_is_announced_and_not_told_by_colour_alone(visit: Open, shown: Site) -> None:
    page = visit(forced_colors="active", reduced_motion="reduce")
    page.goto(f"{shown.registry.url}/models/acme/minilm/releases/{shown.releases[3].hex}")
    page.wait_for_function(SETTLED)
    status = page.get_by_role("status")
    assert status.get_attribute("aria-live") == "polite"
    assert page.locator("[data-proof]").get_attribute("aria-busy") == "false"
    for item in page.locator("[data-check]").all():
        assert item.locator(".state").inner_text() in ("Holds", "Not checked")
        assert item.locator(".sign").get_attribute("aria-hidden") == "true"


def test_the_printed_page_has_every_digest_whole(visit: Open, shown: Site, tmp_path: Path) -> None:
    page = visit()
    page.emulate_media(media="print")
    page.goto(shown.registry.url + "/audit/log")
    cut = (
        "() => [...document.querySelectorAll('.digest')].filter(item => item.scrollWidth > item.clientWidth + 1).length"
    )
    assert page.evaluate(cut) == 0
    assert not page.get_by_role("search").is_visible()
    page.pdf(path=tmp_path / "log.pdf")
    assert (tmp_path / "log.pdf").stat().st_size > 5000


def test_the_plots_have_their_numbers_beside_them(visit: Open, shown: Site) -> None:
    page = visit()
    page.goto(shown.registry.url + "/audit/checkpoint")
    page.get_by_text("The same as a table").click()
    table = page.get_by_role("table", name="Lag per checkpoint, newest first")
    assert table.get_by_text("Not cosigned").count() > 0
    assert page.get_by_role("img", name="witness2.example (ML-DSA-44): at most").count() == 1
    page.goto(shown.registry.url)
    page.get_by_text("The same as a table").click()
    rows = page.get_by_role("table", name="Signatures per week").get_by_role("row")
    assert rows.count() == 27
