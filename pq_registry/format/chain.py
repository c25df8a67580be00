# SPDX-License-Identifier: Apache-2.0
"""The rules that statements of a chain share: tags, grants and statuses.

``sequence`` counts from 1, and ``previous`` is the payload digest of the statement before, null for the first alone.
What expires does so after it was issued. That a statement really follows the one before is for whoever has both.
"""

from __future__ import annotations

from datetime import datetime

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import check_instant, format_instant


def check_link(what: str, *, sequence: int, previous: Digest | None) -> None:
    """Sequence and link to the statement before; ``what`` names the statement in messages.

    Raises:
        FormatError: naming the rule that is broken.
    """
    # type(), not isinstance: True is an int.
    if type(sequence) is not int or not 1 <= sequence <= limits.JSON_INTEGER:
        raise FormatError(
            f"{what}'s sequence is impossible", expected=f"1 to {limits.JSON_INTEGER}", found=repr(sequence)[:80]
        )
    if (previous is None) != (sequence == 1):
        raise FormatError(
            f"{what}'s chain is broken",
            expected="previous: null for sequence 1 and for no other",
            found=f"sequence {sequence}, previous {previous}",
        )


def check_lifetime(what: str, issued: datetime, expires: datetime | None) -> None:
    """Both are instants of exactly our form, and in order; None is no end.

    Raises:
        FormatError: naming the field or the rule that is broken.
    """
    check_instant(issued, f"{what}'s field 'issued'")
    if expires is None:
        return
    check_instant(expires, f"{what}'s field 'expires'")
    if issued >= expires:
        raise FormatError(
            f"{what} expires before it was issued",
            expected="issued < expires",
            found=f"{format_instant(issued)} and {format_instant(expires)}",
        )
