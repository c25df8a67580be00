# SPDX-License-Identifier: Apache-2.0
"""Model cards: what README.md of a release says about the model, and finding models by it (docs/spec/cards.md).

``header`` reads the YAML at a card's beginning, ``card`` makes values of it, ``words`` says what a model is found by,
``keeping`` keeps all that in the catalogue as releases and tags come, and ``lineage`` shows what was made from what.
"""

from __future__ import annotations

from pq_registry.service.cards.card import Base, Card
from pq_registry.service.cards.header import read_header, split_card
from pq_registry.service.cards.keeping import Cards, ShownCard
from pq_registry.service.cards.lineage import Edge, Graph, Lineage, Node
from pq_registry.service.cards.words import matching

__all__ = [
    "Base",
    "Card",
    "Cards",
    "Edge",
    "Graph",
    "Lineage",
    "Node",
    "ShownCard",
    "matching",
    "read_header",
    "split_card",
]
