# SPDX-License-Identifier: Apache-2.0
"""Bounds of model cards and of finding models by them."""

from __future__ import annotations

from typing import Final

from pq_registry.limits.units import KIB, MIB

CARD_BYTES: Final = MIB
"""A README.md that is read; published cards with thousands of evaluation results have half of it."""
CARD_HEADER_BYTES: Final = 256 * KIB
"""The YAML at its beginning: parsed at 2 MB/s, and evaluation results are most of it."""
CARD_HEADER_EVENTS: Final = 100_000
"""What the YAML parser may report: each becomes an object."""
CARD_HEADER_DEPTH: Final = 24
"""Nesting of that YAML; evaluation results need 8."""
CARD_VALUE_CHARS: Final = 300
"""One value of a card's metadata: a URL or a sentence."""
CARD_VALUES: Final = 64
"""Languages, tags, data sets or base models of one card."""
CARD_SUMMARY_CHARS: Final = 400
"""What a list of models says of each."""
CARD_WORDS: Final = 800
"""Words one repository is found by; a card of two pages has about 500 different ones."""
CARD_WORD_CHARS: Final = 64
"""A word; longer ones are found by their beginning."""
CARD_FACET_CHARS: Final = 256
"""A facet with its sign: a base model's name has 193 characters, what precedes it at most 22."""
SEARCH_WORDS: Final = 8
"""Words of one search; each is a look into the index."""
SEARCH_FACETS: Final = 16
"""Facets of one search."""
CARDS_PAGE: Final = 100
"""Releases, or repositories, whose cards are caught up with at once."""

CARD_SHOWN_BYTES: Final = 128 * KIB
"""A card that is laid out; a longer one is shown as far as that. About 40 printed pages."""
CARD_MARKS: Final = 8000
"""Angle and square brackets in a card that is laid out: nested ones cost the square of their number."""
CARD_CELLS: Final = 20_000
"""Cells of tables in a card that is laid out, those included that a short row leaves out."""
CARD_HTML_BYTES: Final = MIB
"""A card laid out."""
CARD_PAGES: Final = 64
"""Cards laid out that are kept: at most 64 MiB, in practice 2."""
CARD_PICTURE_BYTES: Final = 4 * MIB
"""A picture of a card that is shown on its page; larger ones are linked."""

LINEAGE_DEPTH: Final = 4
"""How far back bases of bases are followed."""
LINEAGE_DESCENDANTS: Final = 2
"""How far what was made from a model is followed."""
LINEAGE_NODES: Final = 40
"""Models in one graph: about three screens."""
