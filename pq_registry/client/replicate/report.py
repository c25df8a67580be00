# SPDX-License-Identifier: Apache-2.0
"""What a replication did, thing by thing: sent, there already, or refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, unique

from pq_registry.errors import PqregError


@unique
class Action(StrEnum):
    """What became of one thing."""

    SENT = "sent"
    WOULD_SEND = "would-send"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One thing: ``kind`` is that of its statement, or ``identity`` or ``namespace``; ``count`` its statements.

    ``problem`` is the code of the error it was refused with, ``reason`` its text.
    """

    kind: str
    subject: str
    action: Action
    count: int = 1
    problem: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Report:
    """Everything that was sent or refused; of what was there already, the number. ``sent_bytes`` are of content."""

    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    present: int = 0
    sent_bytes: int = 0

    def add(self, kind: str, subject: object, action: Action, *, count: int = 1) -> None:
        """Something was sent, or would be."""
        self.outcomes.append(Outcome(kind=kind, subject=str(subject), action=action, count=count))

    def refuse(self, kind: str, subject: object, error: PqregError) -> None:
        """Something was not."""
        step = "" if error.step is None else f"step {error.step}: "
        hint = f" ({error.hint})" if error.hint else ""
        self.outcomes.append(
            Outcome(
                kind=kind,
                subject=str(subject),
                action=Action.REFUSED,
                problem=error.code(),
                reason=f"{step}{error}{hint}",
            )
        )

    def note(self, text: str) -> None:
        """A sentence about what was let be, said once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def refused(self) -> list[Outcome]:
        """What was refused."""
        return [one for one in self.outcomes if one.action is Action.REFUSED]

    def count(self, kind: str, action: Action) -> int:
        """How many things of a kind."""
        return sum(one.kind == kind and one.action is action for one in self.outcomes)
