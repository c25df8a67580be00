# SPDX-License-Identifier: Apache-2.0
"""What a model was made from, and what was made from it: as manifests name it, which is signed, and as cards say.

Bases are followed upwards and descendants downwards, a few steps each and no more models than a picture can show. Of
models that the caller may not read, or that are not here, there is the name that a card gives and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pq_registry import limits
from pq_registry.service.access import Caller
from pq_registry.service.cards.card import Base
from pq_registry.service.cards.keeping import ShownCard, shown_cards
from pq_registry.service.cards.words import facet
from pq_registry.service.visible import readable_namespace
from pq_registry.storage.catalogue.database import Catalogue
from pq_registry.storage.catalogue.hubtables import CardWordRow
from pq_registry.storage.catalogue.tables import NamespaceRow, RepositoryRow

_DERIVED: Final = "base_model:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A model; ``level`` is 0 for the one asked about, less for its bases, more for what was made from it."""

    name: str
    level: int
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """``derived`` was made from ``base``; ``release`` is the base's digest where a signed manifest names it."""

    base: str
    derived: str
    relation: str
    release: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Models and how they come from one another; ``more`` if there are some that it leaves out."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    more: bool


class Lineage:
    """Draws up graphs from the cards by which repositories are found."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def graph(self, caller: Caller, shown: ShownCard) -> Graph:
        """The graph around one model; just that model if nothing is known of where it comes from.

        Raises:
            StorageError: if the catalogue fails.
        """
        collected = _Collected(shown.repository)
        readable = RepositoryRow.namespace_id.in_(select(NamespaceRow.id).where(readable_namespace(caller)))
        with self._catalogue.reading() as session:
            around = [shown]
            for level in range(1, limits.LINEAGE_DEPTH + 1):
                around = self._bases(session, collected, around, -level, readable)
            around = [shown]
            for level in range(1, limits.LINEAGE_DESCENDANTS + 1):
                around = self._derived(session, collected, around, level, readable)
        return collected.graph()

    @staticmethod
    def _bases(
        session: Session, collected: _Collected, cards: Iterable[ShownCard], level: int, readable: ColumnElement[bool]
    ) -> list[ShownCard]:
        wanted = {base.name.lower(): base.name for item in cards for base in item.card.bases}
        fresh = [key for key in wanted if key not in collected.nodes]
        found = {item.repository.lower(): item for item in _shown(session, fresh, readable)}
        added = []
        for key in fresh:
            item = found.get(key)
            if collected.add(wanted[key] if item is None else item.repository, level, here=item is not None) and item:
                added.append(item)
        for item in cards:
            for base in item.card.bases:
                collected.join(base, item.repository)
        return added

    @staticmethod
    def _derived(
        session: Session, collected: _Collected, cards: Iterable[ShownCard], level: int, readable: ColumnElement[bool]
    ) -> list[ShownCard]:
        words = [facet(_DERIVED + item.repository) for item in cards]
        if not words:
            return []
        known = select(CardWordRow.repository_id).where(CardWordRow.word.in_(words))
        found = shown_cards(session, RepositoryRow.id.in_(known), readable, limit=limits.LINEAGE_NODES + 1)
        added = []
        for item in found:
            fresh = item.repository.lower() not in collected.nodes
            if collected.add(item.repository, level, here=True) and fresh:
                added.append(item)
        for item in found:
            for base in item.card.bases:
                collected.join(base, item.repository)
        return added


class _Collected:
    """The graph so far, by the keys of names: they are compared without regard to case."""

    def __init__(self, name: str) -> None:
        self.nodes = {name.lower(): Node(name=name, level=0, here=True)}
        self._edges: dict[tuple[str, str], Edge] = {}
        self._more = False

    def add(self, name: str, level: int, *, here: bool) -> bool:
        """Whether the model is in the graph now."""
        if name.lower() in self.nodes:
            return True
        if len(self.nodes) >= limits.LINEAGE_NODES:
            self._more = True
            return False
        self.nodes[name.lower()] = Node(name=name, level=level, here=here)
        return True

    def join(self, base: Base, derived: str) -> None:
        """Draw an edge, if both ends are there and it does not lead back to where it comes from."""
        ends = base.name.lower(), derived.lower()
        if ends[0] != ends[1] and all(end in self.nodes for end in ends):
            first, second = (self.nodes[end].name for end in ends)
            edge = Edge(base=first, derived=second, relation=base.relation, release=base.release)
            self._edges.setdefault(ends, edge)

    def graph(self) -> Graph:
        """What was collected."""
        nodes = sorted(self.nodes.values(), key=lambda node: (node.level, node.name.lower()))
        edges = sorted(self._edges.values(), key=lambda edge: (edge.derived.lower(), edge.base.lower()))
        return Graph(nodes=tuple(nodes), edges=tuple(edges), more=self._more)


def _shown(session: Session, keys: list[str], readable: ColumnElement[bool]) -> list[ShownCard]:
    return shown_cards(session, RepositoryRow.key.in_(keys), readable) if keys else []
