# SPDX-License-Identifier: Apache-2.0
"""The audit page in a real browser: found by searching, opened, proved by the browser itself, and red when a tile lies.

Needs Chromium (``tests.e2e.browser``). Screenshots go to the test's directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pq_registry.log.tree import Tree
from tests.e2e.browser import SETTLED, Open, chromium, require_chromium, visitor
from tests.page_site import HOSTILE, Site, site

require_chromium()
CHECKS = (
    "panel => Object.fromEntries([...panel.querySelectorAll('[data-check]')].map("
    "item => [item.dataset.check, item.className.replace('is-', '')]))"
)
NO_MLDSA = """
for (const name of ['generateKey', 'importKey']) {
  const original = crypto.subtle[name].bind(crypto.subtle);
  crypto.subtle[name] = (...given) => given.some(item => item?.name?.startsWith('ML-DSA'))
    ? Promise.reject(new DOMException('Unrecognized name', 'NotSupportedError')) : original(...given);
}
"""


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


def checks(page: Any) -> dict[str, str]:
    """The verdict and the state of each check, once the browser is done."""
    page.wait_for_function(SETTLED)
    panel = page.locator("[data-proof]")
    return {"verdict": panel.get_attribute("data-verdict"), **panel.evaluate(CHECKS)}


def release_path(shown: Site, number: int = 3) -> str:
    return f"{shown.registry.url}/models/acme/minilm/releases/{shown.releases[number].hex}"


EVERY = {"leaf", "ec", "pq", "inclusion", "root", "signature", "signature-pq", "memory", "witnesses"}


def test_from_the_search_to_a_release_whose_proof_the_browser_verifies(visit: Open, shown: Site) -> None:
    page = visit()
    page.goto(shown.registry.url)
    page.get_by_role("link", name="Log", exact=True).click()
    page.get_by_label("Name, digest, key or number").fill(shown.releases[3].hex)
    page.get_by_role("button", name="Search").click()
    row = page.get_by_role("row").filter(has=page.locator(f"[title='{shown.releases[3].hex}']"))
    row.get_by_role("link").first.click()
    assert checks(page)["verdict"] == "ok"
    page.get_by_role("link", name="Open this release").click()
    found = checks(page)
    assert found == {"verdict": "ok", **dict.fromkeys(EVERY, "ok")}
    assert "The proof holds" in page.get_by_role("status").inner_text()


def test_a_first_visit_says_that_there_was_nothing_to_compare_with(visit: Open, shown: Site) -> None:
    page = visit()
    page.goto(release_path(shown))
    assert checks(page)["memory"] == "none"
    assert "First visit" in page.locator("[data-check=memory]").inner_text()
    page.get_by_role("button", name="Check again").click()
    assert checks(page)["memory"] == "ok"


def tampering(position: int) -> Any:
    """Answers tiles with one bit of one hash changed."""

    def tamper(route: Any) -> None:
        answer = route.fetch()
        body = bytearray(answer.body())
        body[position * 32 + 5] ^= 1
        route.fulfill(response=answer, body=bytes(body))

    return tamper


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_tampered_tile_turns_the_proof_red(visit: Open, shown: Site, tmp_path: Path, language: str) -> None:
    page = visit(language=language)
    page.route("**/log/tile/**", tampering(0))
    page.goto(release_path(shown))
    found = checks(page)
    assert (found["verdict"], found["inclusion"], found["root"], found["signature"]) == ("bad", "bad", "bad", "ok")
    words = {"en": "The proof is wrong", "de": "Der Beweis ist falsch"}
    assert words[language] in page.get_by_role("status").inner_text()
    page.screenshot(path=tmp_path / f"tampered-{language}.png", full_page=True)
    page.goto(shown.registry.url + "/audit/checkpoint")
    assert checks(page)["root"] == "bad"


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4, 9, 12, 13])
def test_no_hash_of_a_tile_can_be_tampered_with(visit: Open, shown: Site, position: int) -> None:
    page = visit()
    page.route("**/log/tile/**", tampering(position))
    for number in (0, 3):
        page.goto(release_path(shown, number))
        found = checks(page)
        assert (found["verdict"], found["root"]) == ("bad", "bad"), (number, found)


def test_a_tile_that_is_gone_turns_it_red_and_one_that_cannot_be_fetched_does_not(visit: Open, shown: Site) -> None:
    page = visit()
    page.route("**/log/tile/**", lambda route: route.fulfill(status=404))
    page.goto(release_path(shown))
    assert (found := checks(page))["verdict"] == "bad", found
    page.unroute("**/log/tile/**")
    page.route("**/log/tile/**", lambda route: route.fulfill(status=503))
    page.goto(release_path(shown))
    assert (found := checks(page))["verdict"] == "none", found
    assert "could not be fetched" in page.get_by_role("status").inner_text()


def test_a_checkpoint_of_other_keys_or_of_another_history_turns_it_red(visit: Open, shown: Site) -> None:
    page = visit()
    page.goto(release_path(shown))
    assert checks(page)["verdict"] == "ok"
    kept = page.evaluate("JSON.parse(localStorage.getItem(Object.keys(localStorage)[0]))")
    for change, word in (
        ({"root": "A" * 43 + "="}, "two histories"),
        ({"size": kept["size"] + 1}, "this browser saw"),
        ({"keys": ["log.example/pqreg+00000000+AAAA"]}, "keys are not those"),
    ):
        page.evaluate(
            "value => localStorage.setItem(Object.keys(localStorage)[0], JSON.stringify(value))", kept | change
        )
        page.reload()
        assert (found := checks(page))["memory"] == "bad", found
        assert found["verdict"] == "bad"
        assert word in page.locator("[data-check=memory]").inner_text()
        stored = page.evaluate("JSON.parse(localStorage.getItem(Object.keys(localStorage)[0]))")
        assert stored == kept | change, "what contradicts must not take the place of what was kept"


def test_a_note_that_was_altered_turns_it_red(visit: Open, shown: Site) -> None:
    page = visit()

    def alter(route: Any) -> None:
        answer = route.fetch()
        lines = answer.text().split("\n")
        lines[1] = str(int(lines[1]) - 1)
        route.fulfill(response=answer, body="\n".join(lines))

    page.route("**/log/checkpoint", alter)
    page.goto(release_path(shown))
    found = checks(page)
    assert (found["verdict"], found["signature"], found["signature-pq"]) == ("bad", "bad", "bad")
    page.unroute("**/log/checkpoint")
    page.route("**/log/checkpoint", lambda route: route.fulfill(status=200, body="nothing like a note"))
    page.reload()
    assert checks(page)["verdict"] == "bad"


def test_a_line_too_short_for_its_time_turns_it_red(visit: Open, shown: Site) -> None:
    page = visit()

    def alter(route: Any) -> None:
        answer = route.fetch()
        lines = answer.text().split("\n")
        at = max(range(len(lines)), key=lambda number: len(lines[number]))
        mark, name, data = lines[at].split(" ")
        lines[at] = f"{mark} {name} {data[:8]}"  # the key's id and two bytes
        route.fulfill(response=answer, body="\n".join(lines))

    page.route("**/log/checkpoint", alter)
    page.goto(release_path(shown))
    assert checks(page)["verdict"] == "bad"


def test_a_defect_ends_the_check_and_proves_nothing(browser: Any, shown: Site) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script("DataView.prototype.getBigUint64 = () => { throw new TypeError('unforeseen') }")
        page.goto(release_path(shown))
        assert checks(page)["verdict"] == "none"


def test_an_envelope_of_another_statement_turns_it_red(visit: Open, shown: Site) -> None:
    page = visit()
    other = shown.registry.get(f"/audit/envelopes/{shown.releases[0].hex}").body
    page.route("**/audit/envelopes/*", lambda route: route.fulfill(status=200, body=other))
    page.goto(release_path(shown))
    found = checks(page)
    assert (found["verdict"], found["leaf"]) == ("bad", "bad")


def test_a_half_that_was_altered_is_named(visit: Open, shown: Site) -> None:
    page = visit()

    def alter(route: Any) -> None:
        answer = route.fetch()
        value = answer.json()
        signature = value["signatures"][1]["sig"]
        value["signatures"][1]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
        route.fulfill(response=answer, json=value)

    page.route("**/audit/envelopes/*", alter)
    page.goto(release_path(shown))
    found = checks(page)
    assert (found["leaf"], found["ec"], found["pq"]) == ("bad", "ok", "bad")


def test_a_leaf_that_is_displayed_otherwise_does_not_lead_to_the_root(visit: Open, shown: Site) -> None:
    page = visit()

    def alter(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("acme/minilm</dd>", "acme/maxilm</dd>"))

    page.route("**/audit/log/3", alter)
    page.goto(shown.registry.url + "/audit/log/3")
    found = checks(page)
    assert (found["verdict"], found["leaf"], found["inclusion"]) == ("bad", "ok", "bad")


def test_without_post_quantum_algorithms_the_browser_says_so_and_proves_the_rest(visit: Open, shown: Site) -> None:
    page = visit()
    page.add_init_script(NO_MLDSA)
    page.goto(release_path(shown))
    found = checks(page)
    assert {check for check, state in found.items() if state == "none"} == {"pq", "signature-pq", "memory"}
    assert found["verdict"] == "ok"
    assert "does not know the algorithm" in page.locator("[data-check=pq]").inner_text()


def test_without_javascript_the_page_says_that_nothing_was_checked(visit: Open, shown: Site) -> None:
    page = visit(java_script_enabled=False)
    page.goto(release_path(shown))
    assert "Your browser has checked nothing" in page.get_by_role("status").inner_text()
    assert page.locator("[data-check].is-none").count() == len(EVERY)
    assert page.get_by_role("button", name="Check again").count() == 0
    assert page.get_by_role("cell", name="Valid").count() == 2


def test_a_hostile_licence_is_text(visit: Open, shown: Site) -> None:
    page = visit()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(f"{shown.registry.url}/models/acme/minilm/releases/{shown.hostile.hex}")
    assert page.get_by_text(HOSTILE, exact=True).count() == 1
    assert page.locator("main script, main img").count() == 0
    page.goto(shown.registry.url + "/audit/log?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert page.locator("#q").input_value() == '"><script>alert(1)</script>'
    assert page.locator("main script").count() == 0


def test_a_private_registry_is_read_after_signing_in(visit: Open, tmp_path: Path) -> None:
    with site(tmp_path / "registry", private_log=True) as made:
        page = visit()
        page.goto(made.registry.url + "/audit/log/3")
        assert page.get_by_role("heading", level=1).inner_text() == "Please sign in"
        page.locator("main").get_by_role("link", name="Sign in").click()
        page.get_by_label("Token").fill("pqreg_" + "A" * 43)
        page.locator("main").get_by_role("button", name="Sign in").click()
        assert "not known here" in page.get_by_role("alert").inner_text()
        page.get_by_label("Token").fill(made.registry.make_token("publisher", "acme"))
        page.locator("main").get_by_role("button", name="Sign in").click()
        assert page.get_by_role("heading", level=1).inner_text() == "Registry overview"
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.get_by_role("link", name="acme", exact=True).count() == 1
        assert page.get_by_role("link", name="lab", exact=True).count() == 0
        page.goto(f"{made.registry.url}/models/acme/minilm/releases/{made.releases[3].hex}")
        assert checks(page)["verdict"] == "ok"
        page.get_by_role("button", name="Sign out").click()
        assert page.context.cookies() == []
        page.goto(made.registry.url + "/models")
        assert page.get_by_role("heading", level=1).inner_text() == "Please sign in"


def test_the_shown_log_is_the_served_log(shown: Site) -> None:
    """The e2e tests above judge the page; this judges them: the tiles they fetched are a real log's."""
    ledger = shown.registry.registry.ledger
    newest = shown.registry.registry.views.log.newest(ledger.policy)
    assert newest is not None
    tree = Tree(ledger.tiles, newest.checkpoint.size, newest.checkpoint.root)
    item = shown.registry.registry.views.log.leaf(3)
    assert next(iter(tree.entries(3, 4))) == shown.registry.registry.views.log.content(item).encode()
