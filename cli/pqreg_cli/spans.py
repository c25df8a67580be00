# SPDX-License-Identifier: Apache-2.0
"""Lengths of time as people write them: ``90s``, ``15m``, ``36h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

from pq_registry.errors import UsageError

_SPAN = re.compile(r"([0-9]{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_span(text: str) -> timedelta:
    """The length of time that ``text`` names.

    Raises:
        UsageError: if it is none.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise UsageError("not a length of time", expected="a number and s, m, h or d, e.g. 7d", found=text[:40])
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
