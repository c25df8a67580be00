# SPDX-License-Identifier: Apache-2.0
"""Words: what of a model is found by typing, and how what was typed is compared with it.

Case, accents and punctuation make no difference. A German umlaut is found by itself, by its vowel and by the vowel with
an e: "Größe" by "größe", "grosse" and "groesse". A word is found by its beginning.

>>> sorted(forms("Größe"))
['groesse', 'grosse']
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from sqlalchemy import ColumnElement, and_, or_, select

from pq_registry import limits
from pq_registry.errors import UsageError
from pq_registry.service.cards.card import Card, clean_line
from pq_registry.storage.catalogue.hubtables import CardWordRow
from pq_registry.storage.catalogue.tables import RepositoryRow

FACET: Final = "="
"""Before a facet, which no word can begin with."""
_LAST: Final = "\U0010ffff"
_WORD: Final = re.compile(r"[^\W_]+")
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_ADDRESS: Final = re.compile(r"https?://\S+|<[^>\s][^>]{0,200}>")


def words_in(text: str) -> Iterator[str]:
    """The words of a text, as they are written in it."""
    return (match[0] for match in _WORD.finditer(unicodedata.normalize("NFKC", text)))


def forms(word: str) -> set[str]:
    """The forms in which a word is kept and looked for."""
    folded = unicodedata.normalize("NFC", word.casefold())
    return {_bare(folded), _bare(folded.translate(_UMLAUTS))} - {""}


def _bare(text: str) -> str:
    marks = unicodedata.normalize("NFKD", text)
    kept = "".join(character for character in marks if not unicodedata.combining(character))
    return unicodedata.normalize("NFC", kept)[: limits.CARD_WORD_CHARS]


def facet(text: str) -> str:
    """A facet as it is kept and looked for."""
    return FACET + clean_line(text.lower(), limits.CARD_FACET_CHARS - len(FACET))


def index_of(name: str, card: Card, body: str) -> set[str]:
    """What a repository is found by: its name and facets, then as much of its card as there is room for."""
    found = {facet(text) for text in card.facets}
    stated = (name, card.title, card.license, card.library, card.pipeline, *card.tags, card.summary)
    stated += tuple(value for _, value in card.ai_act)
    seen: set[str] = set()
    for text in (*stated, _ADDRESS.sub(" ", body)):
        for word in words_in(text):
            if len(found) >= limits.CARD_WORDS:
                return found
            if word not in seen:
                seen.add(word)
                found |= forms(word)
    return found


def matching(text: str = "", filters: Iterable[str] = ()) -> list[ColumnElement[bool]]:
    """Conditions on ``RepositoryRow`` of a query: every word of ``text`` and every one of ``filters`` must fit.

    Raises:
        UsageError: if there are more than a search may have.
    """
    words = list(dict.fromkeys(islice(words_in(text), limits.SEARCH_WORDS + 1)))
    facets = list(dict.fromkeys(filters))
    if len(words) > limits.SEARCH_WORDS or len(facets) > limits.SEARCH_FACETS:
        raise UsageError(
            "this search is too long",
            expected=f"at most {limits.SEARCH_WORDS} words and {limits.SEARCH_FACETS} filters",
        )
    if text.strip() and not words:
        facets.append(text)  # punctuation alone: nothing is found by it
    found = [or_(*(_begins(form) for form in sorted(forms(word)))) for word in words if forms(word)]
    found += [CardWordRow.word == facet(name) for name in facets]
    return [RepositoryRow.id.in_(select(CardWordRow.repository_id).where(condition)) for condition in found]


def _begins(form: str) -> ColumnElement[bool]:
    return and_(CardWordRow.word >= form, CardWordRow.word < form + _LAST)
