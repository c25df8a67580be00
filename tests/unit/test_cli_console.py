# SPDX-License-Identifier: Apache-2.0
"""What commands print: nothing that steers a terminal, plain columns in a pipe, progress lines at a readable pace."""

from __future__ import annotations

import io
import json
import re
import sys
import threading

import pytest

from pqreg_cli import console, progress
from pqreg_cli.console import Output, count_text, printable, size_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (90_868_376, "90.9 MB"),
     (999_949, "999.9 kB"), (999_950, "1.0 MB"), (10**12, "1.0 TB"), (10**16, "10000.0 TB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


def test_counts() -> None:
    assert [count_text(1, "file"), count_text(2, "file"), count_text(2, "identity")] == [
        "1 file", "2 files", "2 identities"]  # fmt: skip


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07", "a\rb", "\x9b31m", "\u202egpj.exe", "\x00"])
def test_nothing_from_outside_steers_the_terminal(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.line(hostile)
    output.note(hostile)
    output.warning(hostile)
    output.fields([("name", hostile)])
    output.table(["name"], [[hostile]])
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert all(c.isprintable() or c == "\n" for c in text)


def test_line_feeds_and_letters_stay() -> None:
    assert printable("a\nb \u00e4\u4e2d") == "a\nb \u00e4\u4e2d"


def test_json_is_the_only_output(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(json=True)
    output.line("text")
    output.note("note")
    output.warning("warning")
    output.fields([("name", "value")])
    output.table(["name"], [["value"]])
    output.data({"name": "value"})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"name": "value"}
    assert printed.err == ""


def test_quiet_keeps_results_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.line("result")
    output.note("note")
    output.warning("danger")
    printed = capsys.readouterr()
    assert printed.out == "result\n"
    assert printed.err == "warning: danger\n"


def test_a_table_in_a_pipe_has_aligned_columns_and_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(["name", "size"], [["x" * 200, "1"], ["y", "22"]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].index("1") == lines[2].index("22") == lines[0].index("SIZE") == 202


def test_colours_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    Output().line("x", "good")
    monkeypatch.delenv("NO_COLOR")
    Output().line("y", "good")
    assert stream.getvalue() == "x\n\x1b[32my\x1b[0m\n"
    assert console.styled("z", "good", io.StringIO()) == "z"


def test_a_table_on_a_terminal_has_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    Output().table(["name"], [["x" * 300]])
    assert stream.getvalue().splitlines() == ["NAME", "x" * 300]
    monkeypatch.delenv("NO_COLOR")
    Output().table(["name"], [["y"]])
    assert stream.getvalue().splitlines()[2:] == ["\x1b[1mNAME\x1b[0m", "y"]


def test_progress_lines_come_at_a_readable_pace(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = progress.LineProgress(lambda: now[0])
    lines.start("pull", 100_000_000)
    for _ in range(80):
        now[0] += 0.25
        lines.advance(1_250_000)
    lines.done()
    assert capsys.readouterr().err.splitlines() == [
        "pull: 25.0 MB of 100.0 MB, 5.0 MB/s, 15 s left",
        "pull: 50.0 MB of 100.0 MB, 5.0 MB/s, 10 s left",
        "pull: 75.0 MB of 100.0 MB, 5.0 MB/s, 5 s left",
        "pull: 100.0 MB of 100.0 MB, 5.0 MB/s, 0 s left",
        "pull: 100.0 MB in 20.0 s, 5.0 MB/s",
    ]


def test_progress_without_a_stage_or_without_time_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.LineProgress(lambda: 1.0) as lines:
        lines.advance(1)
        lines.done()
        lines.start("verify", 0)
        lines.done()
    assert capsys.readouterr().err == "verify: 0 bytes in 0.0 s\n"


def test_progress_is_counted_right_from_many_threads(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.LineProgress(lambda: 0.0)
    lines.start("pull", 8000)

    def work() -> None:
        for _ in range(1000):
            lines.advance(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.done()
    assert "8.0 kB" in capsys.readouterr().err


@pytest.mark.parametrize("output", [Output(json=True), Output(quiet=True)])
def test_no_progress_when_it_is_unwanted(output: Output) -> None:
    assert type(progress.new_progress(output)) is progress.SilentProgress


def test_a_bar_on_a_terminal_leaves_the_cursor_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt), progress.new_progress(Output()) as bars:
        assert isinstance(bars, progress.BarProgress)
        bars.start("pull", 100)
        bars.advance(50)
        raise KeyboardInterrupt
    text = stream.getvalue()
    assert "pull" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


def test_a_stage_that_failed_says_where_it_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    with progress.LineProgress(lambda: now[0]) as lines:
        lines.start("verify", 2000)
        lines.advance(1000)
        now[0] = 0.5
        lines.done()
    assert capsys.readouterr().err == "verify: stopped at 1.0 kB of 2.0 kB, in 0.5 s, 2.0 kB/s\n"


def test_a_stage_that_finished_with_less_did_not_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    with progress.LineProgress(lambda: now[0]) as lines:
        lines.start("fsck", 2000)
        lines.advance(1000)
        now[0] = 0.5
        lines.finished()
    assert capsys.readouterr().err == "fsck: 1.0 kB in 0.5 s, 2.0 kB/s\n"
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress.BarProgress() as bars:
        bars.start("fsck", 100)
        bars.advance(40)
        bars.finished()
        assert bars._bars is not None
        assert bars._bars.finished


def test_the_bar_of_a_stage_that_failed_stays_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress.BarProgress() as bars:
        bars.start("first", 100)
        bars.advance(40)
        bars.done()
        bars.start("second", 10)
        bars.advance(10)
    assert re.search(r"40/100 bytes", stream.getvalue())
