# SPDX-License-Identifier: Apache-2.0
"""Points in time: RFC 3339 in UTC to the second, written ``2026-11-21T18:52:00Z`` and in no other way.

A validity window is half open, here and everywhere: ``not_before <= t < not_after`` and expired means
``t >= expires``. Clocks are arguments; only the command line and the service read the real one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pq_registry.errors import FormatError

_WRITTEN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)


def parse_instant(text: str) -> datetime:
    """Read an instant.

    Raises:
        FormatError: if ``text`` is not exactly of the form ``YYYY-MM-DDTHH:MM:SSZ`` or names no real second.
    """
    if isinstance(text, str) and _WRITTEN.fullmatch(text):
        try:
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass  # e.g. the 31st of February; reported below like any other malformed instant
    raise FormatError("not an instant", expected="RFC 3339 in UTC, YYYY-MM-DDTHH:MM:SSZ", found=repr(text)[:80])


def format_instant(instant: datetime) -> str:
    """Write an aware ``instant``, dropping fractions of a second."""
    # isoformat, because strftime("%Y") does not pad years below 1000 and the result would not parse again.
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def check_instant(instant: datetime, what: str) -> None:
    """Refuse an instant that its written form would not give back.

    Raises:
        FormatError: if ``instant``, which is called ``what``, has no time zone or a fraction of a second.
    """
    if instant.utcoffset() != timedelta(0) or instant.microsecond:
        raise FormatError(f"{what} is not an instant", expected="UTC, whole seconds", found=repr(instant)[:80])


def utc_now() -> datetime:
    """The real clock, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def from_unix(seconds: int) -> datetime:
    """The instant ``seconds`` after 1970-01-01T00:00:00Z.

    Raises:
        FormatError: if it lies outside the years 1 to 9999.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise FormatError("not an instant", expected="a time before the year 10000", found=f"{seconds} s") from None


def in_window(instant: datetime, not_before: datetime | None, not_after: datetime | None) -> bool:
    """Whether ``not_before <= instant < not_after``; None leaves that side open."""
    return (not_before is None or not_before <= instant) and (not_after is None or instant < not_after)


def is_expired(instant: datetime, expires: datetime, grace: timedelta = timedelta(0)) -> bool:
    """Whether ``instant`` is at or after ``expires`` plus ``grace``."""
    return instant >= expires + grace
