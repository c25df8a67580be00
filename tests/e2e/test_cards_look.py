# SPDX-License-Identifier: Apache-2.0
"""Model cards in a browser: they fit, can be read and reached by keys; a hostile one loads and runs nothing.

Every page is photographed as ``test_page_looks`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.card_site import CardSite, card_site
from tests.e2e.browser import NARROW, SETTLED, WIDE, Open, chromium, require_chromium, visitor
from tests.e2e.test_page_looks import POOR_CONTRAST, SMALL_TARGETS, STICKS_OUT

require_chromium()

PAGES = {
    "models": "/models",
    "search": "/models?q=teuken&language=de",
    "card": "/models/acme/teuken",
    "merge": "/models/acme/merged",
    "hostile": "/models/acme/hostile",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CardSite]:
    with card_site(tmp_path_factory.mktemp("cards") / "registry", public_read=True) as made:
        yield made


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    with visitor(browser) as open_page:
        yield open_page


@pytest.mark.parametrize(
    ("width", "language", "scheme"), [("wide", "en", "light"), ("wide", "de", "dark"), ("narrow", "de", "light")]
)
def test_cards_fit_and_can_be_read(
    visit: Open, site: CardSite, tmp_path: Path, width: str, language: str, scheme: str
) -> None:
    page = visit(language=language, viewport=WIDE if width == "wide" else NARROW, color_scheme=scheme)
    for name, path in PAGES.items():
        page.goto(site.registry.url + path)
        page.wait_for_function(SETTLED)
        page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        outside = [item for item in page.evaluate(STICKS_OUT) if "SVG" not in item.upper()]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (name, outside)
        assert outside == [], name
        assert page.evaluate(POOR_CONTRAST) == [], name
        assert page.evaluate(SMALL_TARGETS) == [], name


def test_a_hostile_card_loads_and_runs_nothing(visit: Open, site: CardSite) -> None:
    page = visit()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(f"{site.registry.url}/models/acme/hostile", wait_until="networkidle")
    assert said == []
    assert [url for url in asked if not url.startswith(site.registry.url)] == []
    assert page.url == f"{site.registry.url}/models/acme/hostile"
    frame = page.locator(".card").bounding_box()
    inside = "item => [...item.querySelectorAll('*')].filter(one => getComputedStyle(one).position === 'fixed').length"
    assert page.locator(".card").evaluate(inside) == 0
    assert frame is not None and frame["width"] > 100
    assert page.get_by_role("heading", level=1).inner_text() == "acme/hostile"


def test_pictures_of_the_release_are_shown(visit: Open, site: CardSite) -> None:
    page = visit()
    page.goto(f"{site.registry.url}/models/acme/teuken", wait_until="networkidle")
    picture = page.get_by_role("img", name="Bewertung")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.card img').naturalWidth === 1")


def test_keys_and_screen_readers_reach_the_models_of_a_graph(visit: Open, site: CardSite) -> None:
    page = visit()
    page.goto(f"{site.registry.url}/models/acme/merged")
    group = page.get_by_role("group", name="Bases and descendants of acme/merged")
    assert group.get_by_role("link").count() == 1
    assert group.get_by_role("img", name="mistralai/Mistral-7B-v0.1").count() == 1
    link = group.get_by_role("link", name="acme/teuken")
    page.get_by_role("region", name="Picture of the lineage").focus()
    page.keyboard.press("Tab")
    assert link.evaluate("item => item === document.activeElement")
    page.get_by_text("The same as a table").click()
    assert page.get_by_role("table", name="Which model was made from which").get_by_role("row").count() == 3
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/acme/teuken")


def test_a_search_is_made_with_the_form(visit: Open, site: CardSite) -> None:
    page = visit(language="de")
    page.goto(f"{site.registry.url}/models")
    page.get_by_label("Wörter in Name oder Karte").fill("größe")
    page.get_by_label("KI-Verordnung der EU").select_option("general")
    page.get_by_role("button", name="Suche").press("Enter")
    page.wait_for_url("**q=gr%C3%B6%C3%9Fe**")
    assert page.get_by_role("row").count() == 2
    assert page.get_by_role("link", name="acme/teuken").count() == 1
