# SPDX-License-Identifier: Apache-2.0
"""How a load is shown to people: what was loaded and how fast, and with ``--stats`` a waterfall of where the time went.

The waterfall is a table everywhere; only a terminal gets the bars.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pqreg_cli.console import Output, count_text, is_terminal, size_text
from pqreg_cli.loadreport import CALLER, Limit, Report, Row
from pqreg_cli.releaseview import show_summary

if TYPE_CHECKING:
    from pq_registry.client.meter import Spent
    from pqreg_cli.loadmeasure import Pass

BAR_CHARS: Final = 24
"""Width of the waterfall: with the table it fits a terminal of 80 columns."""

BRIEF_SECONDS: Final = 0.1
"""A load shorter than this mostly starts and ends threads."""

SENTENCES: Final[dict[Limit, str]] = {
    "network": "the network or the registry: threads waited for bytes; more --connections may help",
    "storage": "storage: the bytes came from the disk and not from the page cache",
    "memory": "memory: copying, and the first touch of fresh pages, which --keep and --iterate save",
    "blake3": "BLAKE3: hashing what was read; more cores would help",
    "aes": "AES-256-GCM: decrypting what was read; more cores would help",
    "cores": "the processors: threads waited for one of them; something else uses them, or there are too few",
    "consumer": "whoever takes the tensors: they came faster than they were taken",
    "device": "the device: copying to it, or what it computes, was waited for",
    "ranks": "the exchange among the ranks",
    "overhead": "none of these: locks, the interpreter, starting threads; few or small tensors are read like that",
}
"""What limited a load, in words that say what would help."""


def show(output: Output, report: Report, *, stats: bool) -> None:
    """What was loaded and how fast; with ``stats`` where the time went."""
    one, release = report.typical, report.opened.verified.release
    output.line(f"loaded: {release.name}, {_amount(report)}, every shard as signed", "good")
    dtypes = (
        f"{dtype}: {count_text(number, 'tensor')}, {size_text(size)}" for dtype, (number, size) in report.dtypes.items()
    )
    more = [
        ("tensors", f"{report.framework} on {report.request.device}; {'; '.join(dtypes)}"),
        ("verified", f"signatures and manifest in {report.verifying:.2f} s"),
        ("loaded", f"{_speed(one)}{_spread(report.passes)}"),
    ]
    show_summary(output, report.opened.verified, report.opened.tag, inner=report.inner, more=more)
    if stats:
        _show_waterfall(output, report, one)


def _show_waterfall(output: Output, report: Report, one: Pass) -> None:
    bars = is_terminal(sys.stdout)
    columns = ["stage", "seconds", "share", "bytes", "one thread", *(["waterfall"] if bars else [])]
    table = []
    for row in report.rows(one):
        size = size_text(row.spent.count) if row.spent.count else ""
        cells = [row.name, f"{row.spent.seconds:.2f}", f"{row.share:.0%}", size, _rate_text(row.spent)]
        table.append([*cells, _bar(row)] if bars else cells)
    output.line("")
    output.table(columns, table)
    output.line("")
    waited = one.meter[CALLER].seconds
    threads = count_text(report.threads, "connection" if report.remote else "thread")
    brief = " (a load this short says little)" if one.seconds < BRIEF_SECONDS else ""
    output.fields(
        [
            ("threads", f"{threads} for {one.seconds:.2f} s; the caller waited for tensors {waited:.2f} s of them"),
            ("processor", _processor_text(one)),
            ("memory", f"{size_text(report.peak)} at most, {size_text(report.before)} of it before loading"),
            ("on device", None if report.device_peak is None else f"{size_text(report.device_peak)} at most"),
            ("limited by", SENTENCES[report.limit(one)] + brief),
        ]
    )


def _amount(report: Report) -> str:
    return f"{count_text(len(report.units), 'tensor')}, {size_text(report.typical.count)}"


def _speed(one: Pass) -> str:
    return f"in {one.seconds:.2f} s, {one.rate:.2f} GB/s"


def _spread(passes: Sequence[Pass]) -> str:
    if len(passes) == 1:
        return ""
    each = ", ".join(f"{one.seconds:.2f}" for one in passes[:10]) + (", ..." if len(passes) > 10 else "")
    return f"; the median of {len(passes)}: {each} s"


def _processor_text(one: Pass) -> str:
    text = f"{one.processor:.2f} s, {one.system:.2f} of it within the system"
    return f"{text}; {one.processor / one.count * 1e9:.2f} s for each GB" if one.count else text


def _rate_text(spent: Spent) -> str:
    if not spent.count or not spent.seconds:
        return ""
    return f"{size_text(int(spent.count / spent.seconds))}/s"


def _bar(row: Row) -> str:
    begin, end = round(row.before * BAR_CHARS), round((row.before + row.share) * BAR_CHARS)
    return " " * begin + _block() * max(end - begin, 1)


def _block() -> str:
    try:
        "█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "#"
    return "█"
