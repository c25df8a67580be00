# SPDX-License-Identifier: Apache-2.0
"""What a model card says about its model, as values (docs/spec/cards.md).

Everything is the publisher's word: it is covered by the signature like any file, and checked by nobody. Values are text
on one line without control or direction characters, so that none can pretend to be another; what is too long or of the
wrong shape is left out. The bases that a manifest names are signed by digest and stand before those of the card.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pq_registry import limits
from pq_registry.service.cards.header import HeaderValue

RELATIONS: Final = ("adapter", "finetune", "merge", "quantized")
"""How a model can come from another, in the Hub's words."""
AI_ACT: Final = (
    "provider",
    "authorised_representative",
    "contact",
    "general_purpose",
    "systemic_risk",
    "released",
    "modalities",
    "parameters",
    "training_compute",
    "energy_consumption",
    "training_data_summary",
    "technical_documentation",
    "copyright_policy",
    "acceptable_use_policy",
    "code_of_practice",
    "open_source_exemption",
)
"""Names under ``eu_ai_act`` in a header, in the order in which they are shown."""
_AFFIRMED: Final = frozenset({"yes", "true", "ja"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?", re.ASCII)
_NAME_CHARS: Final = 193
_COLUMN_CHARS: Final = 64
_JOINERS: Final = frozenset("\u200c\u200d")
"""Format characters that scripts and emoji need; others turn or hide text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A model that another was made from; ``release`` is the digest that the manifest names, which is signed."""

    name: str
    relation: str
    release: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card says; ``problem`` is why its header could not be read."""

    title: str = ""
    summary: str = ""
    license: str = ""
    library: str = ""
    pipeline: str = ""
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    bases: tuple[Base, ...] = ()
    ai_act: tuple[tuple[str, str], ...] = ()
    problem: str | None = None
    present: bool = False

    @classmethod
    def of_header(cls, header: Mapping[str, HeaderValue], *, relation: str = "finetune") -> Card:
        """What a header says. ``relation`` is what its bases are where it does not say."""
        stated = _line(header.get("base_model_relation"))
        kind = stated if stated in RELATIONS else relation
        names = (name for name in _lines(header.get("base_model")) if is_model_name(name))
        return cls(
            license=_column(header.get("license")) or _column(header.get("license_name")),
            library=_column(header.get("library_name")),
            pipeline=_column(header.get("pipeline_tag")),
            languages=_lines(header.get("language")),
            tags=_lines(header.get("tags")),
            datasets=_lines(header.get("datasets")),
            bases=tuple(Base(name=name, relation=kind) for name in names),
            ai_act=tuple(_ai_act(header.get("eu_ai_act"))),
            present=True,
        )

    @classmethod
    def parse(cls, data: str) -> Card:
        """Read what ``encode`` wrote."""
        value: dict[str, Any] = json.loads(data)
        bases = tuple(Base(**base) for base in value.pop("bases"))
        stated = tuple((name, said) for name, said in value.pop("ai_act"))
        lists: dict[str, Any] = {name: tuple(value.pop(name)) for name in ("languages", "tags", "datasets")}
        return cls(bases=bases, ai_act=stated, **lists, **value)

    def encode(self) -> str:
        """All of it as JSON, for the catalogue."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    def with_bases(self, signed: Iterable[Base]) -> Card:
        """The same card, of a release whose manifest names these bases."""
        relations = {base.name.lower(): base.relation for base in self.bases}
        first = [replace(base, relation=relations.get(base.name.lower(), base.relation)) for base in signed]
        known = {base.name.lower() for base in first}
        return replace(self, bases=(*first, *(base for base in self.bases if base.name.lower() not in known)))

    @property
    def hub_tags(self) -> tuple[str, ...]:
        """The tags that the Hub gives such a model, each once."""
        found = [self.library, self.pipeline, *self.languages, *self.tags]
        found += [f"license:{self.license}"] if self.license else []
        found += [f"dataset:{name}" for name in self.datasets]
        for base in self.bases:
            found += [f"base_model:{base.name}", f"base_model:{base.relation}:{base.name}"]
        return tuple(dict.fromkeys(tag for tag in found if tag))

    @property
    def facets(self) -> tuple[str, ...]:
        """What it can be filtered by: the Hub's tags, and the same with what each means before it."""
        found = [*self.hub_tags, *(f"language:{code}" for code in self.languages), *(f"tag:{tag}" for tag in self.tags)]
        found += [f"library:{self.library}"] if self.library else []
        found += [f"pipeline:{self.pipeline}"] if self.pipeline else []
        found += ["eu_ai_act"] if self.ai_act else []
        found += [f"eu_ai_act:{name}" for name, value in self.ai_act if value.lower() in _AFFIRMED]
        return tuple(dict.fromkeys(found))

    @property
    def metadata(self) -> dict[str, Any]:
        """What the header says, under the Hub's names."""
        bases = [base.name for base in self.bases]
        found: dict[str, Any] = {
            "license": self.license,
            "library_name": self.library,
            "pipeline_tag": self.pipeline,
            "language": list(self.languages),
            "tags": list(self.tags),
            "datasets": list(self.datasets),
            "base_model": bases,
            "base_model_relation": self.bases[0].relation if bases else "",
            "eu_ai_act": dict(self.ai_act),
        }
        return {name: value for name, value in found.items() if value}


def is_model_name(text: str) -> bool:
    """Whether this can be a model's name: ``name`` or ``namespace/name``."""
    return len(text) <= _NAME_CHARS and _NAME.fullmatch(text) is not None


def clean_line(text: str, limit: int) -> str:
    """Text on one line, without what cannot be seen or turns what can be seen around."""
    kept = "".join(" " if character.isspace() else character for character in text if not is_hidden(character))
    return " ".join(unicodedata.normalize("NFC", kept).split())[:limit]


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen, or turns those around it: overrides of direction, controls, tags."""
    if character.isascii():
        return not character.isprintable() and not character.isspace()
    return unicodedata.category(character)[0] == "C" and character not in _JOINERS


def _line(value: HeaderValue | None) -> str:
    """A value's text; none if it is no text, or too long to be meant as one."""
    if not isinstance(value, str) or len(value) > limits.CARD_VALUE_CHARS:
        return ""
    found = clean_line(value, limits.CARD_VALUE_CHARS)
    return "" if found in ("null", "~") else found


def _column(value: HeaderValue | None) -> str:
    if isinstance(value, list):  # some cards give one licence in a list
        value = value[0] if len(value) == 1 else None
    found = _line(value)
    return found if len(found) <= _COLUMN_CHARS else ""


def _lines(value: HeaderValue | None) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    found = dict.fromkeys(_line(item) for item in values[: limits.CARD_VALUES])
    return tuple(text for text in found if text)


def _ai_act(value: HeaderValue | None) -> Iterable[tuple[str, str]]:
    if not isinstance(value, dict):
        return
    for name in AI_ACT:
        said = ", ".join(_lines(value.get(name)))
        if said:
            yield name, said
