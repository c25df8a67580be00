# SPDX-License-Identifier: Apache-2.0
"""B5: two sequencers on one lock and one tile store. Exactly one commit wins; the other halts; there is no fork."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pq_registry.errors import LogHalted
from pq_registry.log.stores import LogLock
from tests.local_log import TIMEOUT, LocalLog, judge, seeded


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return seeded(tmp_path / "log", statements=2000, leaves=254)


def test_the_second_commit_loses(root: Path) -> None:
    one, two = LocalLog.open(root), LocalLog.open(root)
    [won] = one.append(300)
    pending = two.start(301)
    with pytest.raises(LogHalted, match="another sequencer"):
        pending.result(TIMEOUT)
    with pytest.raises(LogHalted):
        two.start(302)
    [again] = one.append(303)
    assert (won.index, again.index) == (254, 255)
    one.close()
    two.close()
    assert judge(root, [(300, 254), (303, 255)]) == 256


def test_both_at_the_same_moment(root: Path) -> None:
    """Both hold the batch ready before either commits."""
    barrier = threading.Barrier(2, timeout=TIMEOUT)

    class Together:
        def __init__(self, inner: LogLock) -> None:
            self._inner = inner

        def commit(self, *arguments: object) -> None:
            barrier.wait()
            self._inner.commit(*arguments)  # type: ignore[arg-type]

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    logs = [LocalLog.open(root, wrap_lock=Together) for _ in range(2)]  # type: ignore[arg-type]
    acknowledged, halted = [], []
    for number, pending in enumerate([log.start(300 + number) for number, log in enumerate(logs)]):
        try:
            acknowledged.append((300 + number, pending.result(TIMEOUT).index))
        except LogHalted:
            halted.append(number)
    assert len(acknowledged) == len(halted) == 1
    barrier.abort()
    for log in logs:
        log.close()
    assert judge(root, acknowledged) == 255


def test_a_publisher_that_lags_does_not_show_an_older_tree(root: Path) -> None:
    one, two = LocalLog.open(root), LocalLog.open(root)
    one.append(300)
    shown = one.tiles.read("checkpoint")
    two.sequencer._publisher.offer(two.sequencer._note, two.sequencer._checkpoint)
    with pytest.raises(LogHalted, match="larger tree"):
        two.sequencer.wait_published(300, TIMEOUT)
    assert one.tiles.read("checkpoint") == shown
    one.close()
    two.close()


@pytest.mark.slow
def test_two_processes(root: Path) -> None:
    """Both append as fast as they can; the one that loses says so, and everything acknowledged is there."""
    command = [sys.executable, "-m", "tests.faults.log_worker", str(root)]
    workers = [
        subprocess.Popen([*command, str(first), "400", "4"], stdout=subprocess.PIPE, text=True) for first in (300, 1000)
    ]
    outputs = [worker.communicate(timeout=240)[0].splitlines() for worker in workers]
    acknowledged = [
        (int(line.split()[1]), int(line.split()[2])) for output in outputs for line in output if line.startswith("ack ")
    ]
    assert len({index for _, index in acknowledged}) == len(acknowledged)
    assert acknowledged
    judge(root, acknowledged)
