# SPDX-License-Identifier: Apache-2.0
"""Two instances, one killed again and again while clients push and certify: nothing is lost, there is one history.

Fifty kills by ``make test-thorough``, a few in every run. Each waits for a number of bytes that clients have moved, so
kills come mid-push (uploads, commits) and mid-append (three clients hand in statements all the time); every other one
is of the instance that writes the log. Then PostgreSQL itself is thrown out in the middle, and each instance is ended
in order, as by a rolling update.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engines
from tests.faults.depth import points
from tests.faults.fleet import Fleet, fleet
from tests.faults.service import DEADLINE

KILLS = points(thorough=50, sample=3)
FAILOVER_SECONDS = 10.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as found:
        yield found


def after_bytes(site: Fleet, count: int) -> None:
    """Return when clients have moved so many bytes."""
    reached = threading.Event()
    site.balancer.when(count, reached.set)
    assert reached.wait(DEADLINE)


@pytest.mark.timeout(3600)
def test_kills(site: Fleet, record_property: object) -> None:
    source = random.Random(5)
    for number in range(KILLS):
        after_bytes(site, source.randrange(1_000, 200_000))
        leader = site.leader()
        follower = next(each for each in site.instances if each is not leader)
        site.kill(leader if number % 2 == 0 and leader is not None else follower)
    site.finish()
    site.judge()
    figures = f"{KILLS} kills; {len(site.released)} releases, {len(site.certified)} keys; {site.repeated} repeated"
    print(figures, "failovers", [round(seconds, 1) for seconds in site.failovers])
    assert site.released
    assert sorted(site.failovers)[len(site.failovers) // 2] < FAILOVER_SECONDS
    assert max(site.failovers) < 2 * FAILOVER_SECONDS  # on a machine that other tests keep busy


@pytest.mark.timeout(600)
def test_postgresql_restarts_in_the_middle(site: Fleet) -> None:
    """As a crash of the database's host: connections break in whatever transaction they are, COMMIT included."""
    server = engines.database_server()
    for _ in range(points(thorough=10, sample=2)):
        before = len(site.certified)
        server.crash()
        server.start()
        site.until(lambda before=before: len(site.certified) > before + 5)  # type: ignore[misc]
    site.finish()
    site.judge()


@pytest.mark.timeout(600)
def test_a_rolling_update(site: Fleet) -> None:
    """Each instance is ended and started again, while the other one serves: a change of hands without waiting."""
    for instance in site.instances:
        before = len(site.certified)
        site.until(lambda before=before: len(site.certified) > before + 3)  # type: ignore[misc]
        instance.end(signal.SIGTERM)
        site.until(lambda: site.leader() is not None)
        instance.start()
    site.finish()
    site.judge()
