# SPDX-License-Identifier: Apache-2.0
"""How tensors are cut among the ranks of a tensor-parallel model.

A plan says for each tensor what a rank gets of it:

=====================  ===============================================================================================
``"whole"``            all of it; the same as no plan
``"skip"``             nothing, the tensor is left out
``"dim0"``, ``"dim1"`` an even slice of that dimension, which the number of ranks must divide
``"dim0:split"``       a slice like ``torch.tensor_split``: sizes differ by one at most, the first ranks have the larger
``"dim0:chunk"``       a slice like ``torch.chunk``: as large as the first, the last ranks get less, or no row at all
``"experts"``          whole tensors of every n-th part of the experts, which are numbered where the pattern has ``#``
=====================  ===============================================================================================

(``:split`` and ``:chunk`` exist for ``dim1`` too.) The plan is one of:

- None or ``"whole"``: every rank gets everything;
- ``"dim0"``: dimension 0 of every tensor where the number of ranks divides it, the others whole;
- a mapping of patterns of names to the words above. ``*`` stands for any text, ``?`` for one character, ``#`` for a
  number; the first pattern that matches decides, and what none matches is whole. A pattern that matches no tensor of
  the release is an error, for it is a typing mistake;
- a callable that is given a ``TensorEntry`` and answers one of the words, a pair ``(begin, end)`` of rows of
  dimension 0, or None for the whole tensor.

Rows are contiguous in the file, so a slice of dimension 0 is read by itself: only the shards that hold a byte of it
are read, each is checked as a whole, and what other ranks own of the first and the last is dropped. A slice of another
dimension is scattered over the whole tensor: it is read and checked as a whole, and what this rank gets is copied out
of it, so that the rest is free again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pq_registry.errors import UsageError
from pq_registry.format.dtypes import DTYPES
from pq_registry.format.manifest import FileEntry, TensorEntry
from pq_registry.loader.parallel.place import Place

WORDS: Final = (
    "whole", "skip", "dim0", "dim0:split", "dim0:chunk", "dim1", "dim1:split", "dim1:chunk", "experts",
)  # fmt: skip
Rule = Callable[[TensorEntry], "str | tuple[int, int] | None"]


@dataclass(frozen=True, slots=True)
class Part:
    """``begin`` to ``end`` of dimension ``dim``."""

    dim: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Lot:
    """What a rank gets of one tensor: ``part`` of it, or all of it if that is None.

    ``alone``: other ranks get something else, so only this rank reads what it gets. Otherwise every rank needs the
    whole tensor read, be it to keep it or to take a part that is scattered over it.
    """

    part: Part | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Cutting:
    """A plan, for one rank and one release.

    ``rule`` answers as a callable plan does. ``even``: what cannot be cut is whole, instead of an error. ``experts``
    has, for each pattern of experts, those of this rank.
    """

    place: Place
    rule: Rule
    even: bool = False
    experts: tuple[tuple[re.Pattern[str], range], ...] = ()

    def lot(self, entry: TensorEntry) -> Lot | None:
        """What this rank gets of the tensor; None for nothing. The plan is asked once.

        Raises:
            UsageError: if the plan asks for what this tensor cannot give.
        """
        word = self.rule(entry)
        if word is None or word == "whole":
            return Lot()
        if word == "skip":
            return None
        if isinstance(word, tuple) and len(word) == 2 and all(type(bound) is int for bound in word):
            part = Part(0, *word)
            _check(entry, part)
            return Lot(part, alone=True)
        if word == "experts":
            for pattern, mine in self.experts:
                if pattern.fullmatch(entry.name):
                    return Lot(alone=True) if _number(pattern, entry.name) in mine else None
        elif isinstance(word, str) and word in WORDS:
            return self._slice(entry, word)
        raise UsageError(
            f"the plan says what cannot be done with {entry.name!r}",
            expected=f"{', '.join(WORDS[:-1])}, two row numbers or None",
            found=repr(word)[:60],
        )

    def _slice(self, entry: TensorEntry, word: str) -> Lot:
        name, _, how = word.partition(":")
        dim, ranks = int(name[3:]), self.place.size
        if self.even and not _divides(entry, dim, ranks):
            return Lot()
        if dim >= len(entry.shape):
            raise UsageError(
                f"{entry.name!r} has no dimension {dim}", expected=word, found=list(entry.shape), hint=_FIRST_MATCH
            )
        length = entry.shape[dim]
        if not how and length % ranks:
            raise UsageError(
                f"dimension {dim} of {entry.name!r} cannot be cut evenly",
                expected=f"a multiple of {ranks}",
                found=length,
                hint=f'say "{word}:split" or "{word}:chunk" for uneven slices, or give it a pattern of its own',
            )
        part = Part(dim, *(self.place.chunk(length) if how == "chunk" else self.place.span(length)))
        _check(entry, part)
        return Lot(part, alone=dim == 0)


_FIRST_MATCH: Final = 'give it a pattern of its own, e.g. "whole", before this one'


def cutting(plan: Any, place: Place | None, files: Iterable[FileEntry]) -> Cutting | None:
    """The plan for ``place``; None if every rank gets everything.

    Args:
        plan: as the module says.
        place: which rank this is, if that is known.
        files: of the release; their tensors are what patterns are matched with.

    Raises:
        UsageError: for a plan that cannot be meant, or without a place.
    """
    if plan is None or plan == "whole":
        return None
    if place is None:
        raise UsageError(
            "plan= cuts tensors among ranks",
            expected="rank= and world_size=, or an initialised torch.distributed",
            found="neither",
        )
    if plan == "dim0":
        return Cutting(place, lambda _: "dim0", even=True)
    if isinstance(plan, Mapping):
        return _by_patterns(plan, place, files)
    if callable(plan):
        return Cutting(place, plan)
    raise UsageError(
        "no such plan", expected='"whole", "dim0", patterns of names, or a callable', found=repr(plan)[:60]
    )


def _divides(entry: TensorEntry, dim: int, ranks: int) -> bool:
    """Whether even slices of ``dim`` exist, each of whole bytes."""
    if dim >= len(entry.shape) or entry.shape[dim] % ranks:
        return False
    return entry.shape[dim] // ranks * bits_of_one(entry, dim) % 8 == 0


def _check(entry: TensorEntry, part: Part) -> None:
    if part.dim >= len(entry.shape) or not 0 <= part.begin <= part.end <= entry.shape[part.dim]:
        raise UsageError(
            f"the plan cuts {entry.name!r} where it is not",
            expected=f"rows within {list(entry.shape)}",
            found=f"{part.begin} to {part.end}",
        )
    bits = bits_of_one(entry, part.dim)
    if part.begin * bits % 8 or part.end * bits % 8:
        raise UsageError(
            f"the plan cuts {entry.name!r} within a byte",
            expected=f"a slice of whole bytes; {entry.dtype} packs its elements",
            found=f"{part.begin} to {part.end} of dimension {part.dim} of {list(entry.shape)}",
            hint=_FIRST_MATCH,
        )


def rows(entry: TensorEntry, part: Part) -> TensorEntry:
    """The rows ``part`` of a tensor, as an entry of their own."""
    size = bits_of_one(entry, 0)
    begin = entry.begin + part.begin * size // 8
    return replace(
        entry,
        shape=(part.end - part.begin, *entry.shape[1:]),
        begin=begin,
        end=begin + (part.end - part.begin) * size // 8,
    )


def bits_of_one(entry: TensorEntry, dim: int) -> int:
    """How many neighbouring bits belong to one index of dimension ``dim``, the indices before it being fixed."""
    bits = DTYPES[entry.dtype]
    for size in entry.shape[dim + 1 :]:
        bits *= size
    return bits


def _by_patterns(plan: Mapping[Any, Any], place: Place, files: Iterable[FileEntry]) -> Cutting:
    names = [entry.name for file in files if file.tensors is not None for entry in file.tensors.tensors]
    rules: list[tuple[re.Pattern[str], str]] = []
    experts: list[tuple[re.Pattern[str], range]] = []
    for pattern, word in plan.items():
        if not isinstance(pattern, str) or word not in WORDS:
            raise UsageError(
                "a plan maps patterns of names to words", expected=", ".join(WORDS), found=f"{pattern!r}: {word!r}"[:80]
            )
        if (word == "experts") != ("#" in pattern) or pattern.count("#") > 1:
            raise UsageError(
                "experts are numbered where the pattern has #",
                expected='e.g. {"*.experts.#.*": "experts"}, and # nowhere else',
                found=f"{pattern!r}: {word!r}"[:80],
            )
        compiled = _compiled(pattern)
        matching = [name for name in names if compiled.fullmatch(name)]
        if not matching:
            raise UsageError(f"no tensor of the release matches {pattern!r}", hint="look at the names: pqreg show")
        rules.append((compiled, word))
        if word == "experts":
            count = 1 + max(_number(compiled, name) for name in matching)
            experts.append((compiled, range(*place.span(count))))

    def rule(entry: TensorEntry) -> str | None:
        return next((word for pattern, word in rules if pattern.fullmatch(entry.name)), None)

    return Cutting(place, rule, experts=tuple(experts))


def _compiled(pattern: str) -> re.Pattern[str]:
    # The manifest limits how long a name is, and each star can only be passed over: no exponential search.
    parts = {"*": ".*", "?": ".", "#": "([0-9]{1,9})"}
    return re.compile("".join(parts.get(char) or re.escape(char) for char in re.sub(r"\*+", "*", pattern)), re.DOTALL)


def _number(pattern: re.Pattern[str], name: str) -> int:
    match = pattern.fullmatch(name)
    assert match is not None
    return int(match[1])
