# SPDX-License-Identifier: Apache-2.0
"""Every text of the page in both languages: tables in ``languages/*.toml``, one entry per text with ``de`` and ``en``.

The tables are checked when they are read, so that a service with a text missing in one language does not start.
``{name}`` in a text is replaced by a value. Texts hold no markup.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

LANGUAGES: Final = ("en", "de")
"""The first one is for visitors who want neither."""
NAMES: Final = MappingProxyType({"en": "English", "de": "Deutsch"})
_FOLDER = Path(__file__).parent / "languages"
_PLACE = re.compile(r"\{([a-z_]+)\}", re.ASCII)
_CODE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([0-9.]{1,5})\s*)?", re.ASCII)


def load_texts(folder: Path = _FOLDER) -> Mapping[str, Mapping[str, str]]:
    """All texts, by key and language.

    Raises:
        RuntimeError: if an entry has not exactly the two languages, or they do not name the same values.
    """
    found: dict[str, Mapping[str, str]] = {}
    for path in sorted(folder.glob("*.toml")):
        for key, entry in tomllib.loads(path.read_text("utf-8")).items():
            if key in found:
                raise RuntimeError(f"text {key} stands twice")
            found[key] = _checked(key, entry)
    return MappingProxyType(found)


def _checked(key: str, entry: Mapping[str, str]) -> Mapping[str, str]:
    if set(entry) != set(LANGUAGES) or not all(isinstance(text, str) and text.strip() for text in entry.values()):
        raise RuntimeError(f"text {key} is not there in {' and '.join(LANGUAGES)}")
    places = {frozenset(_PLACE.findall(text)) for text in entry.values()}
    if len(places) != 1:
        raise RuntimeError(f"the languages of text {key} name different values")
    return MappingProxyType(dict(entry))


TEXTS: Final = load_texts()


def text(key: str, language: str, values: Mapping[str, object] = MappingProxyType({})) -> str:
    """A text with its values.

    Raises:
        KeyError: if there is no such text, or a value is missing.
    """
    return _PLACE.sub(lambda match: str(values[match[1]]), TEXTS[key][language])


def choose_language(asked: str | None, accepted: str | None) -> str:
    """The language of an answer: the one asked for, else the browser's favourite among ours, else English."""
    if asked in LANGUAGES:
        return str(asked)
    weighted = sorted(_weights(accepted or ""), key=lambda item: -item[1])
    return next((language for language, weight in weighted if language in LANGUAGES and weight > 0), LANGUAGES[0])


def _weights(header: str) -> Iterable[tuple[str, float]]:
    for part in header.split(","):
        match = _CODE.fullmatch(part)
        if match is None:
            continue
        try:
            yield match[1].lower(), 1.0 if match[2] is None else float(match[2])
        except ValueError:
            continue
