# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: the commands as somebody would type them, one line of result each, and a summary."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass

from pqreg_cli.console import Output

_INDENT = "    "
_COLUMNS = 112


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the summary."""

    what: str
    result: str
    time: str = ""
    rate: str = ""


class Report:
    """Prints as the demo goes and remembers the summary."""

    def __init__(self, output: Output) -> None:
        """Print to ``output``."""
        self._output = output
        self._rows: list[Row] = []
        self._steps = 0

    def text(self, text: str = "", style: str | None = None) -> None:
        """A line as it is."""
        self._output.line(text, style)

    def step(self, title: str) -> None:
        """A new step begins."""
        self._steps += 1
        self._output.line("")
        self._output.line(f"{self._steps:>2}  {title}", "strong")

    def settings(self, who: str, **settings: str) -> None:
        """Settings somebody exports."""
        self._output.line(f"{_INDENT}{who}$ export {' '.join(f'{name}={value}' for name, value in settings.items())}")

    def command(self, who: str, words: list[str], comment: str = "") -> None:
        """A command, as it was run."""
        line = f"{who}$ {' '.join(_shown(word) for word in words)}"
        self._output.line(_INDENT + line + (f"    # {comment}" if comment else ""))

    def done(self, text: str, *, what: str, result: str, seconds: float | None = None, rate: str = "") -> None:
        """It worked. ``seconds`` is the whole command with the start of its process, ``rate`` that of the transfer."""
        row = Row(what, result, "" if seconds is None else f"{seconds:.1f} s", rate)
        timing = ", ".join(part for part in (row.time, row.rate) if part)
        self._output.line(f"{_INDENT}ok: {text}" + (f" ({timing})" if timing else ""), "good")
        self._rows.append(row)

    def refused(self, error_block: str, *, what: str, result: str) -> None:
        """An attack was refused; the error is shown as the user of the command sees it."""
        for line in error_block.rstrip().splitlines():
            for piece in textwrap.wrap(line, _COLUMNS, subsequent_indent=" " * 12, break_long_words=False):
                self._output.line(f"{_INDENT}  {piece}")
        self._output.line(f"{_INDENT}ok: {result}", "good")
        self._rows.append(Row(what, result))

    def summary(self) -> None:
        """The table at the end."""
        self._output.line("")
        self._output.table(
            ["what", "result", "time", "rate"], [(row.what, row.result, row.time, row.rate) for row in self._rows]
        )


def _shown(word: str) -> str:
    return shlex.quote(word)
