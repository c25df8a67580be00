# SPDX-License-Identifier: Apache-2.0
"""A client that is told to come back later does, and its push and pull succeed: the clock moves only as it waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.pull import pull
from pq_registry.client.resolve import resolve
from pq_registry.client.source import RemoteSource
from pq_registry.client.state import SeenTags
from pq_registry.client.tagging import Publisher
from pq_registry.client.transport import RegistryClient
from pq_registry.client.trust import Verifier
from pq_registry.errors import TooManyRequests
from pq_registry.format.instant import utc_now
from pq_registry.format.name import Reference
from pq_registry.server.rate import RateLimit
from tests import samples
from tests.publishing import make_model, push_as
from tests.pull_site import content
from tests.samples import trust_file
from tests.server_harness import RunningRegistry


class Watch:
    """A clock that moves by being slept on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_push_and_pull_under_a_rate_limit(registry: RunningRegistry, tmp_path: Path) -> None:
    watch = Watch()
    registry.app.state.token_rate = RateLimit(1, "with this token", watch)
    model = make_model(tmp_path / "model", 1, size=3 * limits.SHARD_BYTES)
    for number in range(20):
        (model / f"part-{number}.txt").write_text(str(number))
    now = utc_now()
    with RegistryClient(registry.url, registry.admin_token, sleep=watch.sleep) as client:
        publisher = Publisher(client=client, signer=samples.publisher(), state_dir=tmp_path / "state", now=now)
        done = push_as(publisher, model, "acme/minilm:v1")
    assert max(watch.slept) >= 1, "it was told to come back later"
    pushed = len(watch.slept)
    with RegistryClient(registry.url, registry.admin_token, sleep=watch.sleep) as client:
        resolved = resolve(
            Reference.parse(f"acme/minilm@{done.release}"), client, Verifier(trust_file().encode(), now, online=True),
            SeenTags(tmp_path / "seen"),
        )  # fmt: skip
        with RemoteSource(client) as source:
            pull(resolved, source, tmp_path / "out")
    assert len(watch.slept) > pushed
    assert content(tmp_path / "out") == content(model)


def test_a_limit_that_never_lets_through_is_named(registry: RunningRegistry) -> None:
    registry.app.state.token_rate = RateLimit(1, "with this token", lambda: 0.0)
    with RegistryClient(registry.url, registry.admin_token, sleep=lambda _seconds: None) as client:
        for _ in range(limits.REQUEST_BURST_SECONDS):
            client.whoami()
        with pytest.raises(TooManyRequests, match="too many requests with this token") as refused:
            client.whoami()
    assert refused.value.exit_code == 3
