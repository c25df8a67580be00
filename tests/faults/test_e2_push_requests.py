# SPDX-License-Identifier: Apache-2.0
"""E2 for push: the n-th request fails, either before the registry saw it or after it did it, for every n.

Whichever it is, the push that is run again ends with one release, one tag statement and no part sent twice. The
requests of a push that succeeds are counted as it goes, so the loop ends when no request is left to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pq_registry import limits
from pq_registry.errors import ConnectionFailed, PqregError
from tests.publishing import Registry, make_model, observed, publisher_at, push_as, running_registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class FailNth:
    """Raises at the n-th call; counts them."""

    def __init__(self, number: int) -> None:
        self.calls = 0
        self.hit = ""
        self._number = number

    def __call__(self, method: str, path: str) -> None:
        self.calls += 1
        if self.calls == self._number:
            self.hit = f"{method} {path}"
            raise ConnectionFailed("the network went away")


@pytest.mark.slow
@pytest.mark.parametrize("persisted", [False, True], ids=["not-done", "done-yet-failed"])
def test_e2_every_request_of_a_push_may_fail(registry: Registry, tmp_path: Path, persisted: bool) -> None:
    survived: list[str] = []
    failed: list[str] = []
    for number in count(1):
        name = f"acme/e2-{'after' if persisted else 'before'}-{number}"
        model = make_model(tmp_path / str(number), name, size=limits.PART_BYTES + 1000)
        fault = FailNth(number)
        hooks = {"after" if persisted else "before": fault}
        client = observed(registry.client(sleep=lambda _seconds: None), **hooks)
        try:
            push_as(publisher_at(registry, tmp_path / f"state{number}", client=client), model, name)
            if fault.hit:
                survived.append(fault.hit)
        except PqregError as error:
            assert isinstance(error, ConnectionFailed)
            failed.append(fault.hit)
        if not fault.hit:
            break
        result = push_as(publisher_at(registry, tmp_path / f"state{number}"), model, name)
        assert registry.releases(name) == [result.release], fault.hit
        assert [statement.target for statement in registry.tag_chain(f"{name}:main")] == [result.release], fault.hit
        assert max(registry.acknowledged_parts().values()) == 1, fault.hit
        assert not list((tmp_path / f"state{number}" / "plans").glob("*.json"))
    # A part whose acknowledgement is lost, or that was never sent, is settled within the same push.
    assert any("/parts/" in hit for hit in survived)
    assert any("/complete" in hit for hit in failed)
    assert any(hit.startswith("PUT") and "/tags/" in hit for hit in failed)
    assert len(survived) + len(failed) >= 15
