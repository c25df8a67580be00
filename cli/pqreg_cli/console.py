# SPDX-License-Identifier: Apache-2.0
"""What the command prints, and where.

Results go to standard output, everything else (notes, progress, errors) to standard error, so that output can be piped.
With ``--json`` standard output is exactly one JSON value. Only a terminal gets colours and bars, and no colour when
NO_COLOR is set; the words are the same everywhere. Names and messages can come from a server or a hostile release, so
control characters never reach the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from pq_registry.settings import colour_allowed

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"good": "\x1b[32m", "bad": "\x1b[1;31m", "strong": "\x1b[1m", "faint": "\x1b[2m"}
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """``text`` with everything that could steer a terminal written as an escape; line feeds stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def coloured(stream: TextIO) -> bool:
    """Whether colours may be written to ``stream``."""
    return is_terminal(stream) and colour_allowed()


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches ``stream``. A stream that is closed or replaced is none."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def styled(text: str, style: str, stream: TextIO) -> str:
    """``text`` in one of our four styles, if ``stream`` takes colours."""
    return f"{_STYLES[style]}{text}{_RESET}" if coloured(stream) else text


def size_text(count: int) -> str:
    """A number of bytes for people: ``90.9 MB`` (powers of 1000)."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    value, units = count / 1000, ["TB", "GB", "MB", "kB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{value:.1f} {units[-1]}"


def count_text(count: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``2 identities``."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("ty") else f"{count} {noun}s"


class Output:
    """The two streams of one command."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        """Remember what the user asked for: one JSON value, or results without notes and progress."""
        self.json = json
        self.quiet = quiet

    @property
    def silent(self) -> bool:
        """Whether notes and progress are unwanted."""
        return self.json or self.quiet

    def line(self, text: str, style: str | None = None) -> None:
        """One line of the result, for people; nothing with --json."""
        if not self.json:
            text = printable(text)
            print(styled(text, style, sys.stdout) if style else text, flush=True)

    def note(self, text: str) -> None:
        """A sentence beside the result, on standard error; nothing with --json or --quiet."""
        if not self.silent:
            print(styled(f"note: {printable(text)}", "faint", sys.stderr), file=sys.stderr, flush=True)

    def warning(self, text: str) -> None:
        """A sentence that --quiet must not hide."""
        if not self.json:
            print(f"{styled('warning:', 'bad', sys.stderr)} {printable(text)}", file=sys.stderr, flush=True)

    def data(self, value: object) -> None:
        """The result as the one JSON value; nothing without --json."""
        if self.json:
            print(json.dumps(value, indent=2), flush=True)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Named values, one per line and aligned; values that are None are left out."""
        shown = [(name, printable(str(value))) for name, value in pairs if value is not None]
        width = max((len(name) for name, _ in shown), default=0)
        if not self.json:
            for name, value in shown:
                print(f"{styled(f'{name:<{width}}', 'strong', sys.stdout)}  {value}", flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Aligned columns, never wrapped or cut, so that digests can be copied and grepped; nothing with --json."""
        if self.json:
            return
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for number, row in enumerate(([name.upper() for name in columns], *cells)):
            line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            print(line if number else styled(line, "strong", sys.stdout), flush=True)


def rich_console(stream: TextIO) -> Console:
    """A rich console on ``stream``. Imported late: most commands print a few plain lines and need no rich."""
    from rich.console import Console
    from rich.theme import Theme

    theme = Theme({"progress.data.speed": "cyan", "progress.remaining": "cyan", "bar.complete": "green"})
    return Console(file=stream, no_color=not colour_allowed(), highlight=False, markup=False, emoji=False, theme=theme)
