# SPDX-License-Identifier: Apache-2.0
"""Progress of work that is counted in pieces and not in bytes: leaves, statements."""

from __future__ import annotations

import sys
import time

from pqreg_cli.console import Output, is_terminal, printable, rich_console
from pqreg_cli.progress import LINE_SECONDS, BarProgress, LineProgress, SilentProgress


class CountBar(BarProgress):
    """One bar per stage with something to do."""

    def start(self, label: str, total_bytes: int) -> None:
        """Draw a new bar; ``total_bytes`` are pieces."""
        self.done()
        if not total_bytes:
            return
        if self._bars is None:
            from rich import progress

            self._bars = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(bar_width=None),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                console=rich_console(sys.stderr),
            )
            self._bars.start()
        self._task = self._bars.add_task(printable(label), total=total_bytes)


class CountLines(LineProgress):
    """Plain lines, at most one every few seconds; none for what is done at once."""

    def advance(self, count: int) -> None:
        """Count, and write a line when the last one is old enough."""
        with self._lock:
            if self._label is None:
                return
            self._count += count
            now = self._clock()
            if now - self._shown >= LINE_SECONDS:
                self._shown = now
                self._write(f"{self._count} of {self._total}, {self._count / (now - self._begun):.0f}/s")

    def done(self) -> None:
        """The stage is over."""
        with self._lock:
            if self._label is not None and self._clock() - self._begun >= LINE_SECONDS:
                self._write(f"{self._count} of {self._total} in {self._clock() - self._begun:.1f} s")
            self._label = None


def new_counter(output: Output) -> SilentProgress:
    """The right kind for these streams."""
    if output.silent:
        return SilentProgress()
    return CountBar() if is_terminal(sys.stderr) else CountLines(time.monotonic)
