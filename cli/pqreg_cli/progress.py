# SPDX-License-Identifier: Apache-2.0
"""Progress of a transfer on standard error: a bar on a terminal, a plain line every few seconds elsewhere.

Implements the ``Progress`` protocol of ``pq_registry.client.progress``: ``start``, ``advance`` (from any thread),
``done``. Use it as a context manager, so that the terminal is left in order whatever happens.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pqreg_cli.console import Output, is_terminal, printable, rich_console, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 5.0
"""Pause between two plain lines: a log of an hour's transfer stays readable."""


class SilentProgress:
    """Shows nothing: --json, --quiet, and base of the others."""

    def start(self, label: str, total_bytes: int) -> None:
        """A stage of ``total_bytes`` begins; a stage that was running is over."""

    def advance(self, count: int) -> None:
        """``count`` more bytes are done."""

    def done(self) -> None:
        """The stage is over."""

    def finished(self) -> None:
        """The stage is over, and what was not counted of it did not have to be done."""
        self.done()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal in order."""


class LineProgress(SilentProgress):
    """Plain lines, at most one every ``LINE_SECONDS``, and one at the end of each stage."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock as an argument, for the tests."""
        self._clock = clock
        self._lock = threading.Lock()
        self._label: str | None = None

    def start(self, label: str, total_bytes: int) -> None:
        """A stage begins."""
        self.done()
        with self._lock:
            self._label, self._total, self._count = label, total_bytes, 0
            self._begun = self._shown = self._clock()

    def advance(self, count: int) -> None:
        """Count, and write a line when the last one is old enough."""
        with self._lock:
            if self._label is None:
                return
            self._count += count
            now = self._clock()
            if now - self._shown < LINE_SECONDS:
                return
            self._shown = now
            rate = self._count / (now - self._begun)
            left = max(self._total - self._count, 0) / rate if rate else 0
            self._write(f"{size_text(self._count)} of {size_text(self._total)}, {_rate(rate)}, {_duration(left)} left")

    def finished(self) -> None:
        """The same as ``done``, and nothing is left."""
        with self._lock:
            if self._label is not None:
                self._total = self._count
        self.done()

    def done(self) -> None:
        """Write how much was done and how fast."""
        with self._lock:
            if self._label is None:
                return
            seconds = self._clock() - self._begun
            rate = f", {_rate(self._count / seconds)}" if self._count and seconds > 0 else ""
            amount = size_text(self._count)
            if self._count < self._total:
                amount = f"stopped at {amount} of {size_text(self._total)},"
            self._write(f"{amount} in {seconds:.1f} s{rate}")
            self._label = None

    def _write(self, text: str) -> None:
        print(f"{printable(self._label or '')}: {text}", file=sys.stderr, flush=True)


class BarProgress(SilentProgress):
    """One bar per stage, with bytes, rate and time left."""

    def __init__(self) -> None:
        """Prepare the bars; nothing is drawn before ``start``."""
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def start(self, label: str, total_bytes: int) -> None:
        """Draw a new bar below the finished ones."""
        self.done()
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        self._task = self._bars.add_task(printable(label), total=total_bytes)

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, count)

    def finished(self) -> None:
        """Fill the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, total=self._bars.tasks[self._task].completed)
        self.done()

    def done(self) -> None:
        """Leave the bar as it is: full, or where it stopped."""
        if self._bars is not None and self._task is not None:
            self._bars.stop_task(self._task)
            self._task = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and show the cursor again."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def new_progress(output: Output) -> SilentProgress:
    """The right kind for these streams."""
    if output.silent:
        return SilentProgress()
    return BarProgress() if is_terminal(sys.stderr) else LineProgress()


def _new_bars() -> Bars:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=None),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=rich_console(sys.stderr),
    )


def _rate(bytes_per_second: float) -> str:
    return f"{size_text(int(bytes_per_second))}/s"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
