# SPDX-License-Identifier: Apache-2.0
"""D9: a publisher asks for the completion of a large upload again and again, all at once, while it is being verified.

Each of these requests may wait for the end, in a thread that waits for nothing else meanwhile. So only some may; the
others are told to ask again, and whoever waits for a receipt finds a thread.
"""

from __future__ import annotations

import threading

import pytest

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.service.completion import Verifying
from tests.upload_instances import BIG, Site, begin, complete, site, small_parts

__all__ = ["site", "small_parts"]  # fixtures


def test_only_some_wait_for_a_verification(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERIFYING_WAIT_SECONDS", 60)
    monkeypatch.setattr(limits, "VERIFYING_WAITERS", 1)
    assert limits.LOG_WAITERS > limits.VERIFYING_WAITERS
    here, there = site.instance(), site.instance()
    state = begin(here, BIG)
    site.send(state, BIG)
    waited: list[object] = []
    told: list[object] = []
    with site.held_up("read") as (begun, _):
        first = threading.Thread(target=lambda: waited.append(complete(here, state)))
        first.start()
        assert begun.wait(30)
        second = threading.Thread(target=lambda: told.extend(complete(here, state) for _ in range(3)))
        second.start()
        second.join(30)
        assert told == [Verifying(0, len(BIG))] * 3
    first.join(30)
    assert waited == [Digest.of(BIG)]
    assert complete(there, state) == Digest.of(BIG)
