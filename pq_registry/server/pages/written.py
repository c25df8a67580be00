# SPDX-License-Identifier: Apache-2.0
"""How values are written on a page: instants, digests, sizes and numbers. Digests are never cut short (CSS does that).

Instants are UTC and to the second in both languages, in the order of ISO 8601, which DIN 5008 allows too: the script
that rebuilds a leaf reads the time from where it is displayed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from markupsafe import Markup

from pq_registry.format.instant import format_instant

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000
_SEPARATORS = {"en": (",", "."), "de": (".", ",")}


def number(value: int, language: str) -> str:
    """An integer with its thousands apart."""
    return f"{value:,}".replace(",", _SEPARATORS[language][0])


def size(value: int, language: str) -> str:
    """A size in bytes, rounded to three digits."""
    scaled, unit = float(value), 0
    while scaled >= _STEP and unit < len(_UNITS) - 1:
        scaled, unit = scaled / _STEP, unit + 1
    digits = f"{scaled:.0f}" if unit == 0 or scaled >= _STEP / 10 else f"{scaled:.1f}"
    return f"{digits.replace('.', _SEPARATORS[language][1])}\N{NO-BREAK SPACE}{_UNITS[unit]}"


def duration(value: timedelta, language: str) -> str:
    """A span in the largest unit that makes it at least 1."""
    seconds = int(value.total_seconds())
    sign = "\N{MINUS SIGN}" if seconds < 0 else ""
    seconds = abs(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{sign}{number(seconds // length, language)}\N{NO-BREAK SPACE}{unit}"
    return f"{sign}{seconds}\N{NO-BREAK SPACE}s"


def when(value: datetime | None) -> Markup:
    """An instant, readable by people and machines."""
    if value is None:
        return Markup("\N{EN DASH}")
    written = format_instant(value)
    shown = written.replace("T", " ").replace("Z", " UTC")
    return Markup('<time datetime="{}">{}</time>').format(written, shown)


def day(value: datetime) -> Markup:
    """The day of an instant."""
    written, _, _ = format_instant(value).partition("T")
    return Markup('<time datetime="{}">{}</time>').format(written, written)


def digest(value: object, *, whole: bool = False) -> Markup:
    """A digest or id: all of it in the document, in tables shown only as far as there is room."""
    kind = "digest whole" if whole else "digest"
    return Markup('<code class="{}" title="{}">{}</code>').format(kind, value, value)
