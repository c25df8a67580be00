# SPDX-License-Identifier: Apache-2.0
"""The page's texts: both languages, the same values, none missing, none left over; the right language is chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pq_registry.format.leaf import Kind
from pq_registry.format.note import NoteKeyType
from pq_registry.format.status import RevocationKind
from pq_registry.server.pages import refusals, texts
from pq_registry.server.pages.texts import LANGUAGES, TEXTS, choose_language, load_texts, text
from pq_registry.service.cards.card import AI_ACT, RELATIONS

PAGES = Path(texts.__file__).parent
TEMPLATES = sorted((PAGES / "templates").glob("*.html"))
SCRIPT = (PAGES / "static" / "proof.js").read_text("utf-8")
COSIGNERS = (NoteKeyType.ED25519_COSIGNATURE, NoteKeyType.MLDSA44_COSIGNATURE)


def asked_by_templates() -> set[str]:
    """Keys that templates name, those they put together included."""
    found: set[str] = set()
    for path in TEMPLATES:
        source = path.read_text("utf-8")
        found |= set(re.findall(r"\bt\('([a-z0-9_]+)'[,)]", source))
        found |= set(re.findall(r"'(nav_[a-z]+)'", source))
        checks = set(re.findall(r"'([a-z-]+)'", " ".join(re.findall(r"witness_keys, \[([^\]]+)\]", source))))
        found |= {f"{kind}_{check.replace('-', '_')}" for check in checks for kind in ("check", "explain")}
    found |= {f"{word}_{kind.value}" for kind in Kind for word in ("kind", "open")}
    found |= {f"revoked_{kind.value}" for kind in RevocationKind}
    found |= {f"note_key_{kind.value}" for kind in COSIGNERS}
    found |= {f"half_{half}" for half in ("ec", "pq")}
    found |= {f"{word}_{name}" for name in AI_ACT for word in ("ai_act", "provision")}
    found |= {f"relation_{relation}" for relation in RELATIONS}
    return found


def asked_by_the_script() -> set[str]:
    """Keys of the texts that proof.js shows."""
    words = set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', SCRIPT)) & {key[6:] for key in TEXTS if key.startswith("proof_")}
    states = {"ok", "bad", "none"}
    words |= {f"state_{state}" for state in states} | {f"verdict_{state}" for state in states | {"busy"}}
    return {f"proof_{word}" for word in words | {f"verdict_{state}_detail" for state in states}}


def asked_by_routes() -> set[str]:
    statuses = {*refusals._WRITTEN.values(), 500}
    cards = {"card_picture", "card_picture_unnamed", "card_table"}
    return cards | {"session_wrong"} | {f"problem_{status}{end}" for status in statuses for end in ("", "_text")}


def test_every_text_is_asked_for_and_every_text_asked_for_is_there() -> None:
    asked = asked_by_templates() | asked_by_the_script() | asked_by_routes()
    assert asked == set(TEXTS)


def test_every_word_of_the_script_that_looks_like_a_text_is_one() -> None:
    keys = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', SCRIPT))
    assert len(keys) > 25
    assert {f"proof_{key}" for key in keys} <= set(TEXTS)


def test_every_text_has_both_languages_and_they_differ_where_they_should() -> None:
    assert all(set(entry) == set(LANGUAGES) for entry in TEXTS.values())
    alike = {key for key, entry in TEXTS.items() if entry["en"] == entry["de"] and len(entry["en"]) > 12}
    assert not alike


@pytest.mark.parametrize(
    "content",
    [
        'a = { en = "one" }',
        'a = { en = "one", de = " " }',
        'a = { en = "one {x}", de = "eins {y}" }',
        'a = { en = "one", de = "eins", fr = "un" }',
    ],
)
def test_a_text_that_is_not_whole_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(RuntimeError, match="text a"):
        load_texts(tmp_path)


def test_a_text_twice_is_refused(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / f"{name}.toml").write_text('a = { en = "one", de = "eins" }')
    with pytest.raises(RuntimeError, match="twice"):
        load_texts(tmp_path)


def test_values_stand_in_their_places_and_must_be_given() -> None:
    assert text("leaf_title", "de", {"index": "1.234"}) == "Blatt 1.234"
    assert text("found_for", "en", {"text": "{text}<b>"}) == "Leaves for “{text}<b>”"
    with pytest.raises(KeyError):
        text("leaf_title", "en")


@pytest.mark.parametrize(
    ("asked", "accepted", "expected"),
    [
        (None, None, "en"),
        (None, "de-DE,de;q=0.9,en;q=0.8", "de"),
        (None, "en-GB, de;q=0.5", "en"),
        (None, "fr, de;q=0.4, en;q=0.3", "de"),
        (None, "DE", "de"),
        (None, "de;q=0, en;q=0.1", "en"),
        (None, "de;q=x.y, ;;;,,", "en"),
        (None, "de;q=1.1.1", "en"),
        ("de", "en", "de"),
        ("fr", "de", "de"),
        ("../../etc", "en", "en"),
    ],
)
def test_the_language_is_the_one_asked_for_or_the_browsers_favourite(
    asked: str | None, accepted: str | None, expected: str
) -> None:
    assert choose_language(asked, accepted) == expected
