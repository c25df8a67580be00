# SPDX-License-Identifier: Apache-2.0
"""What pages show of model cards: the card of a release laid out, what the EU AI Act asks about it, and the lineage."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import Query, Request
from markupsafe import Markup

from pq_registry import limits
from pq_registry.errors import StorageError
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import Manifest
from pq_registry.format.name import RepositoryName
from pq_registry.server.pages import lineagegraph
from pq_registry.server.pages.cardhtml import CardTexts, lay_out
from pq_registry.server.pages.cardlinks import CardLinks
from pq_registry.server.pages.texts import text
from pq_registry.service.access import Caller
from pq_registry.service.cards import Card
from pq_registry.service.registry import Registry

_CODE: Final = re.compile(r"[a-z]{2,3}", re.ASCII)
Filter = Annotated[str, Query(max_length=limits.CARD_VALUE_CHARS)]
_ACT: Final = MappingProxyType(
    {"stated": "eu_ai_act", "general": "eu_ai_act:general_purpose", "systemic": "eu_ai_act:systemic_risk"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelQuery:
    """What is looked for on the page of models, as its form sends it."""

    q: Annotated[str, Query(max_length=limits.PAGE_QUERY_CHARS)] = ""
    namespace: str = ""
    license: Filter = ""
    language: Filter = ""
    library: Filter = ""
    pipeline: Filter = ""
    tag: Filter = ""
    base: Filter = ""
    act: Filter = ""

    def filters(self) -> list[str]:
        """The same as filters of a search; what the form does not offer is found nowhere."""
        given = {
            "license": self.license, "language": self.language, "library": self.library, "pipeline": self.pipeline,
            "tag": self.tag, "base_model": self.base,
        }  # fmt: skip
        found = [f"{kind}:{value.strip()}" for kind, value in given.items() if value.strip()]
        return [*found, *([_ACT.get(self.act, self.act)] if self.act else [])]


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A card's text as HTML, and whether it was longer."""

    html: Markup
    cut: bool


class CardPages:
    """Lays cards out, and keeps the ones that were asked for last: laying one out can take a second."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], LaidOut] = OrderedDict()
        self._lock = threading.Lock()

    def values(
        self, service: Registry, name: RepositoryName, release: Digest, manifest: Manifest, language: str
    ) -> dict[str, Any]:
        """What the template of a card uses; ``card`` is None where there is none to show."""
        card = service.cards.card(release, manifest)
        if card is None:
            return {"card": None}
        try:
            laid_out = self._laid_out(service, f"/models/{name}/releases/{release.hex}", release, manifest, language)
        except StorageError as error:
            card, laid_out = replace(card, problem=error.message), LaidOut(Markup(), cut=False)
        return {
            "card": card,
            "card_html": laid_out.html,
            "card_cut": laid_out.cut,
            "card_language": _only_language(card),
            "card_release": None,
            "outside": partial(_outside, CardLinks(manifest, "")),
        }

    def _laid_out(self, service: Registry, place: str, release: Digest, manifest: Manifest, language: str) -> LaidOut:
        key = (release.hex, language)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        body = service.cards.body(manifest)
        texts = CardTexts(picture=partial(_picture, language), table=text("card_table", language))
        made = LaidOut(lay_out(body, CardLinks(manifest, place), texts), cut=len(body) > limits.CARD_SHOWN_BYTES)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > limits.CARD_PAGES:
                self._kept.popitem(last=False)
        return made


def card_pages(request: Request) -> CardPages:
    """The application's cards."""
    pages: CardPages = request.app.state.cards
    return pages


def shown_card(
    pages: CardPages, service: Registry, caller: Caller, name: RepositoryName, language: str
) -> dict[str, Any]:
    """What the page of a model shows of the card it is found by, and of where it comes from."""
    shown = service.cards.shown([str(name)]).get(str(name))
    if shown is None:
        return {"card": None, "drawing": None}
    try:
        manifest = service.cards.manifest(name, shown.release)
    except StorageError:  # the rest of the page needs none; that of the release says what is wrong
        return {"card": None, "drawing": None}
    values = {**pages.values(service, name, shown.release, manifest, language), "card_release": shown.release}
    graph = service.lineage.graph(caller, shown)
    return {**values, "graph": graph, "drawing": lineagegraph.draw(graph) if graph.edges else None}


def _picture(language: str, about: str) -> str:
    return text("card_picture", language, {"text": about}) if about else text("card_picture_unnamed", language)


def _only_language(card: Card) -> str | None:
    """What a screen reader is told, where the card says that there is one language."""
    return card.languages[0] if len(card.languages) == 1 and _CODE.fullmatch(card.languages[0]) else None


def _outside(links: CardLinks, value: str) -> str | None:
    target = links.target(value)
    return target.url if target is not None and target.outside else None
