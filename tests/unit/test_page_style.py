# SPDX-License-Identifier: Apache-2.0
"""The page's style, judged by numbers: contrast of every pair of colours that stand on one another, in both schemes,
and what keyboards, printers and people without colours need.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pq_registry.server.pages import render

STATIC = Path(render.__file__).parent / "static"
STYLE = (STATIC / "page.css").read_text("utf-8")
TEXT, GRAPHICS = 4.5, 3.0
"""WCAG 2.2, 1.4.3 and 1.4.11, level AA."""
PAIRS = [
    *((ink, ground, TEXT) for ink in ("ink", "soft", "accent", "ok", "bad", "none") for ground in ("ground", "panel")),
    ("accent-ink", "accent", TEXT),
    ("ok", "ok-ground", TEXT),
    ("bad", "bad-ground", TEXT),
    ("none", "none-ground", TEXT),
    ("ink", "ok-ground", TEXT),
    ("ink", "bad-ground", TEXT),
    ("ink", "none-ground", TEXT),
    ("panel", "ok", TEXT),
    ("panel", "bad", TEXT),
    ("mark", "panel", GRAPHICS),
]


def schemes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r":root \{([^}]*)\}", STYLE)
    light = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[0]))
    return {"light": light, "dark": {**light, **dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", blocks[1]))}}


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_is_right() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_that_stand_on_one_another_can_be_told_apart(scheme: str) -> None:
    colours = schemes()[scheme]
    poor = {(a, b): round(contrast(colours[a], colours[b]), 2) for a, b, least in PAIRS
            if contrast(colours[a], colours[b]) < least}  # fmt: skip
    assert not poor


def test_no_colour_stands_outside_the_two_schemes() -> None:
    body = re.sub(r":root \{[^}]*\}", "", STYLE)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", body)) <= {"#999999"}  # lines on paper


def test_focus_is_visible_motion_can_be_declined_and_paper_is_thought_of() -> None:
    assert ":focus-visible { outline: 3px" in STYLE
    assert "prefers-reduced-motion" in STYLE
    assert "@media print" in STYLE
    assert "forced-colors" in STYLE
    assert "outline: none" not in STYLE.replace("main:focus { outline: none; }", "")


def test_nothing_is_loaded_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        source = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|\beval\b|innerHTML|document\.write", source), (
            path.name
        )


def test_every_static_file_names_its_licence() -> None:
    for path in STATIC.iterdir():
        assert (
            "SPDX-License-Identifier: Apache-2.0" in path.read_text("utf-8").split("\n", 1)[0] or path.suffix == ".svg"
        )
