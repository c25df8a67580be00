# SPDX-License-Identifier: Apache-2.0
"""B10: a log that is frozen. Online an old checkpoint is refused; who is not online is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.client.verify import verify_directory
from pq_registry.errors import CheckpointInvalid, LogStale, QuorumNotMet, ServerRefused, TagExpired
from tests.fake_registry import Handler, serving
from tests.logged_site import SECOND, LoggedSite
from tests.samples import NOW, YEAR

STALE = timedelta(seconds=limits.CHECKPOINT_STALE_SECONDS)


@pytest.fixture(params=[0, 1], ids=["log alone", "witnessed"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LoggedSite]:
    with serving() as registry:
        yield LoggedSite(registry, tmp_path, witnesses=request.param)


@pytest.mark.parametrize(("beyond", "fresh"), [(-1, True), (0, True), (1, False)])
def test_online_a_checkpoint_beyond_the_bound_is_refused(site: LoggedSite, beyond: int, fresh: bool) -> None:
    digest = site.publish()
    site.now = NOW + STALE + beyond * SECOND
    if fresh:
        assert "log freshness: the newest checkpoint" in site.resolve(digest).verified.notes[-1]
    else:
        with pytest.raises(LogStale) as caught:
            site.resolve(digest)
        assert caught.value.step == 4
        assert "withholds" in (caught.value.hint or "")


@pytest.mark.parametrize(("ahead", "fresh"), [(-1, True), (0, True), (1, False)])
def test_a_checkpoint_from_the_future_does_not_stay_new_until_then(site: LoggedSite, ahead: int, fresh: bool) -> None:
    digest = site.publish()
    site.log.publish(NOW + timedelta(seconds=limits.CLOCK_SKEW_SECONDS + ahead))
    site.serve_log()
    if fresh:
        assert "log freshness: the newest checkpoint" in site.resolve(digest).verified.notes[-1]
        return
    for _ in range(2):  # nor the second time, when it is the one that is kept
        with pytest.raises(CheckpointInvalid, match="ahead of time") as caught:
            site.resolve(digest)
        assert caught.value.step == 4
    assert "yet to come" in site.resolve(digest, online=False).verified.unchecked[-1]


def test_a_log_that_renews_its_checkpoint_is_not_frozen(site: LoggedSite) -> None:
    digest = site.publish()
    site.now = NOW + YEAR / 2
    site.log.publish(site.now - timedelta(minutes=10))
    site.serve_log()
    site.resolve(digest)


def test_who_is_not_online_is_told(site: LoggedSite) -> None:
    digest = site.publish()
    site.now = NOW + STALE + SECOND
    verified = site.resolve(digest, online=False).verified
    assert verified.unchecked[-1].startswith("log freshness: stale")


def test_a_directory_says_that_freshness_takes_a_registry(site: LoggedSite) -> None:
    site.pull(site.publish())
    site.now = NOW + STALE * 100
    verified = verify_directory(site.home / "out", site.verifier(online=False), state_dir=site.home / "state")
    assert verified.notes[-1] == "log freshness: not checked, that takes a registry; a receipt does not age"


def test_a_log_that_cannot_be_asked(site: LoggedSite) -> None:
    digest = site.publish()

    def fail(handler: Handler) -> bool:
        return handler.problem(503, "server-busy")

    site.registry.rules["/log/"] = fail
    with pytest.raises(ServerRefused):
        site.resolve(digest)
    assert site.resolve(digest, online=False).verified.unchecked[-1].startswith("log freshness: not checked")


def test_witnesses_out_of_reach_are_tolerated_until_what_is_known_is_stale(tmp_path: Path) -> None:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, witnesses=1)
        digest = site.publish()
        site.log.append_raw(b"more")
        site.log.publish(NOW + 10 * SECOND, cosigned=False)
        site.serve_log()
        site.now = NOW + STALE
        found = site.resolve(digest)
        assert "lacks the cosignatures" in found.verified.unchecked[-1]
        site.now = NOW + STALE + SECOND
        with pytest.raises(LogStale):
            site.resolve(digest)


def test_a_log_whose_receipts_no_witness_covers(tmp_path: Path) -> None:
    with serving() as registry:
        site = LoggedSite(registry, tmp_path, witnesses=1)
        site.log.publish(cosigned=False)
        digest = site.publish()
        registry.receipts[digest.hex] = site.log.receipt(0, site.log.publish(cosigned=False))
        with pytest.raises(QuorumNotMet):
            site.resolve(digest)


def test_a_frozen_tag_ends_with_its_statement(site: LoggedSite) -> None:
    site.set_tag(site.publish())
    site.now = NOW + YEAR - SECOND
    site.options = {"expires": NOW + 2 * YEAR}
    site.log.publish(site.now)
    site.serve_log()
    site.resolve("v1")
    site.now = NOW + YEAR
    with pytest.raises(TagExpired):
        site.resolve("v1")
