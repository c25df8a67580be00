# SPDX-License-Identifier: Apache-2.0
"""Step 1 of DESIGN §5: whether a tag statement that passed everything else is the newest one there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pq_registry import limits
from pq_registry.errors import StatementMismatch, TagEquivocation, TagExpired, TagRollback, TagWithdrawn
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant, is_expired
from pq_registry.format.tag import TagStatement


@dataclass(frozen=True, slots=True)
class SeenTag:
    """The newest statement of a tag this client has accepted: its sequence and its payload's digest."""

    sequence: int
    payload: Digest


def check_tag(
    statement: TagStatement, payload: Digest, seen: SeenTag | None, *, now: datetime, grace: timedelta
) -> None:
    """A tag statement is not older than the last one seen, no second one of its sequence, and has not expired.

    Raises:
        TagRollback, TagEquivocation, TagExpired: if it is.
        StatementMismatch: if it comes from the future.
    """
    label = f"{statement.repository}:{statement.tag}"
    if seen is not None and statement.sequence < seen.sequence:
        raise TagRollback(
            f"{label} was moved back to an older statement",
            expected=f"sequence {seen.sequence} or higher",
            found=f"sequence {statement.sequence}",
            hint="the registry or a mirror serves stale data; try again later or ask its operator",
        )
    if seen is not None and statement.sequence == seen.sequence and payload != seen.payload:
        raise TagEquivocation(
            f"two different statements of {label} carry sequence {seen.sequence}",
            expected=seen.payload,
            found=payload,
            hint="the publisher's key signed both: ask the publisher, and keep both statements as evidence",
        )
    if is_expired(now, statement.expires, grace):
        raise TagExpired(
            f"the statement of {label} has expired",
            expected=f"a date before {format_instant(statement.expires)}",
            found=format_instant(now),
            hint="ask the publisher to set the tag again (pqreg tag), or name the release by its digest",
        )
    check_issued(f"the statement of {label}", statement.issued, now)


def check_issued(what: str, issued: datetime, now: datetime) -> None:
    """A statement, called ``what``, does not come from the future.

    Raises:
        StatementMismatch: if it does.
    """
    if issued > now + timedelta(seconds=limits.CLOCK_SKEW_SECONDS):
        raise StatementMismatch(
            f"{what} comes from the future",
            expected=f"issued at {format_instant(now)} or before",
            found=format_instant(issued),
            hint="check the clock of this machine",
        )


def target_of(statement: TagStatement) -> Digest:
    """The release a tag points to.

    Raises:
        TagWithdrawn: if the statement withdraws the tag.
    """
    if statement.target is None:
        raise TagWithdrawn(
            f"the publisher withdrew {statement.repository}:{statement.tag}",
            found=f"sequence {statement.sequence} of {format_instant(statement.issued)}",
            hint="list what is there: pqreg ls " + str(statement.repository),
        )
    return statement.target
