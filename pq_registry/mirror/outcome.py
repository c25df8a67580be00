# SPDX-License-Identifier: Apache-2.0
"""What became of each release and tag in a run of a mirror."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, unique

from pq_registry.errors import PqregError


@unique
class State(StrEnum):
    """What became of one tag of one release."""

    MIRRORED = "mirrored"
    IN_STEP = "in-step"
    BEHIND = "behind"
    WITHDRAWN = "withdrawn"
    SKIPPED = "skipped"
    REFUSED = "refused"
    FAILED = "failed"


BAD = frozenset({State.REFUSED, State.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One tag, or one repository where ``tag`` is None. ``release`` is a digest, ``commit`` the Hub's.

    ``problem`` is the code of the error it was refused with, ``reason`` its text.
    """

    mirror: str
    repository: str
    target: str
    state: State
    tag: str | None = None
    release: str | None = None
    commit: str | None = None
    problem: str | None = None
    reason: str | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class Report:
    """Everything that happened in a run, and sentences about what was let be."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """A sentence, said once."""
        if text not in self.notes:
            self.notes.append(text)

    def count(self, state: State) -> int:
        """How many outcomes of a state."""
        return sum(one.state is state for one in self.outcomes)

    @property
    def bad(self) -> list[Outcome]:
        """What was refused or failed."""
        return [one for one in self.outcomes if one.state in BAD]


def reason_of(error: PqregError) -> str:
    """Why something was refused, in one line."""
    step = "" if error.step is None else f"step {error.step}: "
    hint = f" ({error.hint})" if error.hint else ""
    return f"{step}{error}{hint}"
