# SPDX-License-Identifier: Apache-2.0
"""Two publishers at once: no decision is overridden silently, no sequence is used twice, and a rerun settles it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from pq_registry.client.push import PushResult
from pq_registry.client.tagging import move_tag
from pq_registry.errors import Conflict, SequenceUsed
from tests import samples
from tests.publishing import (
    Registry,
    make_model,
    observed,
    publisher_at,
    push_as,
    running_registry,
    tag_of,
)

BOTH = samples.trust_file(samples.namespace_trust(samples.publisher("alice"), samples.publisher("bob")))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def test_who_comes_second_is_told_and_a_rerun_comes_after(registry: Registry, tmp_path: Path) -> None:
    bob = publisher_at(registry, tmp_path / "bob", "bob", trust=BOTH)
    theirs = make_model(tmp_path / "theirs", "theirs")
    ours = make_model(tmp_path / "ours", "ours")
    overtaken: list[PushResult] = []

    def overtake(method: str, path: str) -> None:
        if method == "PUT" and "/tags/" in path and not overtaken:
            overtaken.append(push_as(bob, theirs, "acme/second:v1"))

    client = observed(registry.client(), before=overtake)
    alice = publisher_at(registry, tmp_path / "alice", "alice", trust=BOTH, client=client)
    with pytest.raises(SequenceUsed) as caught:
        push_as(alice, ours, "acme/second:v1")
    assert f"was pointed at {overtaken[0].release}" in caught.value.message
    assert samples.publisher("bob").identity.id in caught.value.message
    assert "run the same command again" in (caught.value.hint or "")
    assert [statement.target for statement in registry.tag_chain("acme/second:v1")] == [overtaken[0].release]
    assert len(registry.releases("acme/second")) == 2, "the release is published all the same"
    again = push_as(alice, ours, "acme/second:v1")
    assert not again.minted
    chain = registry.tag_chain("acme/second:v1")
    assert [(statement.sequence, statement.target) for statement in chain] == [
        (1, overtaken[0].release),
        (2, again.release),
    ]


def test_an_own_retry_is_adopted(registry: Registry, tmp_path: Path) -> None:
    """Another machine with the same key set the same target first, or an answer was lost and the command run again."""
    model = make_model(tmp_path / "model", "adopted")
    publisher = publisher_at(registry, tmp_path)
    release = push_as(publisher, model, "acme/adopted:other").release
    twin = publisher_at(registry, tmp_path / "twin")
    done: list[int] = []

    def overtake(method: str, path: str) -> None:
        if method == "PUT" and "/tags/" in path and not done:
            done.append(1)
            move_tag(twin, *tag_of("acme/adopted:v1"), release, lifetime=timedelta(days=7))

    observed(publisher.client, before=overtake)
    change = move_tag(publisher, *tag_of("acme/adopted:v1"), release, lifetime=timedelta(days=1))
    (statement,) = registry.tag_chain("acme/adopted:v1")
    assert change.statement == statement
    assert statement.expires - statement.issued == timedelta(days=7)


def test_many_publishers_of_one_tag_leave_an_unbroken_chain(registry: Registry, tmp_path: Path) -> None:
    count = 8
    begin = threading.Barrier(count, timeout=60)
    models = [make_model(tmp_path / f"model{number}", number, size=1000) for number in range(count)]

    def one(number: int) -> PushResult | SequenceUsed:
        publisher = publisher_at(registry, tmp_path / f"state{number}")
        begin.wait()
        try:
            return push_as(publisher, models[number], "acme/crowd:v1")
        except SequenceUsed as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(one, range(count)))
    won = [result for result in results if isinstance(result, PushResult)]
    chain = registry.tag_chain("acme/crowd:v1")
    assert won
    assert [statement.sequence for statement in chain] == list(range(1, len(won) + 1))
    assert {statement.target for statement in chain} == {result.release for result in won}
    assert len(registry.releases("acme/crowd")) == count


def test_two_pushes_of_one_directory_share_no_plan_at_a_time(registry: Registry, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "one at a time")
    refused: list[Conflict] = []

    def again(method: str, path: str) -> None:
        if path.endswith("/missing") and not refused:
            with pytest.raises(Conflict, match="another push") as caught:
                push_as(publisher_at(registry, tmp_path), model, "acme/once")
            refused.append(caught.value)

    client = observed(registry.client(), before=again)
    assert push_as(publisher_at(registry, tmp_path, client=client), model, "acme/once").minted
    assert refused


def test_two_machines_push_the_same_content_at_once(registry: Registry, tmp_path: Path) -> None:
    """They share uploads (the same token): each part is taken once, and both end with a release and the tag chained."""
    model = make_model(tmp_path / "model", "machines", size=40 * 2**20)
    begin = threading.Barrier(2, timeout=60)

    def one(name: str) -> PushResult | SequenceUsed:
        # With real pauses: without them the two would take the same part from one another for ever.
        publisher = publisher_at(registry, tmp_path / name, client=registry.client())
        begin.wait()
        try:
            return push_as(publisher, model, "acme/machines:v1", connections=2)
        except SequenceUsed as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, ("one", "two")))
    assert any(isinstance(result, PushResult) for result in results)
    releases = registry.releases("acme/machines")
    assert 1 <= len(releases) <= 2
    final = push_as(publisher_at(registry, tmp_path / "three"), model, "acme/machines:v1")
    assert not final.minted
    assert final.release in releases
