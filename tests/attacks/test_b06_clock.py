# SPDX-License-Identifier: Apache-2.0
"""B6: a clock that goes back, or stands still, ends the log before anything more is signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import LogHalted
from pq_registry.log.signers import LogSigners
from tests.local_log import TIMEOUT, FixedClock, LocalLog, open_catalogue, record_statements
from tests.logsamples import TIME


class Clocks:
    """The clock that can be set, and the one that cannot."""

    def __init__(self) -> None:
        self.real = FixedClock(TIME + 1000)
        self.elapsed = 0.0

    def pass_seconds(self, seconds: float, *, stuck: bool = False) -> None:
        self.elapsed += seconds
        if not stuck:
            self.real.now += int(seconds)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def log(tmp_path: Path, clocks: Clocks) -> Iterator[LocalLog]:
    root = tmp_path / "log"
    log = _open(root, clocks, statements=True)
    log.append(0)
    yield log
    log.close()


def _open(root: Path, clocks: Clocks, *, statements: bool = False) -> LocalLog:
    if statements:
        catalogue = open_catalogue(root)
        record_statements(catalogue, 20)
        catalogue.close()
    return LocalLog.open(root, clocks.real, monotonic=lambda: clocks.elapsed)


def halts(log: LocalLog, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next leaf is refused, nothing is signed for it, and the lock is as it was."""
    before = log.lock.load()
    monkeypatch.setattr(LogSigners, "sign", lambda *_: pytest.fail("something was signed"))
    pending = log.start(9)
    with pytest.raises(LogHalted, match=words):
        pending.result(TIMEOUT)
    with pytest.raises(LogHalted, match=words):
        log.start(10)
    assert log.lock.load() == before
    assert log.findings() == []


@pytest.mark.parametrize("back", [1, 60, TIME])
def test_backwards(log: LocalLog, clocks: Clocks, back: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks.real.now -= back
    halts(log, "behind what the log has signed", monkeypatch)


def test_standing_still(log: LocalLog, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks.pass_seconds(limits.LOG_CLOCK_LAG_SECONDS - 1, stuck=True)
    log.append(1)
    clocks.pass_seconds(2, stuck=True)
    halts(log, "stands still", monkeypatch)


def test_standing_still_under_load(log: LocalLog, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches, each with little time between: what counts is the time since the clock was last right."""
    for number in range(1, 9):
        clocks.pass_seconds(limits.LOG_CLOCK_LAG_SECONDS / 9, stuck=True)
        log.append(number)
    clocks.pass_seconds(limits.LOG_CLOCK_LAG_SECONDS / 4, stuck=True)
    halts(log, "stands still", monkeypatch)


def test_set_back_to_where_it_does_not_show(log: LocalLog, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks.pass_seconds(24 * 3600)
    clocks.real.now -= 3600
    halts(log, "stands still or was set back", monkeypatch)


def test_the_heartbeat_halts_as_well(log: LocalLog, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log.lock.load()
    monkeypatch.setattr(LogSigners, "sign", lambda *_: pytest.fail("something was signed"))
    clocks.real.now -= 1
    log.sequencer.renew()
    log.sequencer._thread.join(TIMEOUT)
    with pytest.raises(LogHalted, match="behind"):
        log.sequencer.check()
    assert log.lock.load() == before


def test_a_restart_does_not_help_before_the_clock_is_right(tmp_path: Path, clocks: Clocks) -> None:
    root = tmp_path / "log"
    log = _open(root, clocks, statements=True)
    log.append(0)
    log.close()
    clocks.real.now -= 1
    with pytest.raises(LogHalted, match="behind what the log has signed"):
        _open(root, clocks)
    clocks.real.now += 1
    log = _open(root, clocks)
    assert log.append(1)[0].index == 1
    log.close()


def test_a_clock_before_1970_begins_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogHalted):
        LocalLog.open(tmp_path / "log", FixedClock(0))
    log = LocalLog.open(tmp_path / "log", FixedClock(TIME))
    log.close()


def test_a_clock_that_is_right_goes_on(log: LocalLog, clocks: Clocks) -> None:
    for number in range(1, 10):
        clocks.pass_seconds(3600 * number)
        log.append(number)
    clocks.real.now += 10 * 24 * 3600
    log.append(10)
    assert log.findings() == []
