# SPDX-License-Identifier: Apache-2.0
"""Tasks in threads: order, laziness, what tasks bring, and the first error."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pq_registry.client.work import Task, run_tasks


def test_nothing_to_do_ends_at_once() -> None:
    run_tasks([], workers=4)


@pytest.mark.parametrize("workers", [1, 4])
def test_every_task_and_what_it_brings_runs_once(workers: int) -> None:
    done: list[str] = []

    def leaf(name: str) -> Task:
        def run() -> list[Task]:
            done.append(name)
            return []

        return run

    def tree(name: str) -> Task:
        def run() -> list[Task]:
            done.append(name)
            return [leaf(f"{name}.{number}") for number in range(3)]

        return run

    run_tasks([tree(str(number)) for number in range(50)], workers=workers)
    assert sorted(done) == sorted([str(n) for n in range(50)] + [f"{n}.{m}" for n in range(50) for m in range(3)])


def test_what_a_task_brings_comes_before_what_waits_and_the_rest_is_not_even_made() -> None:
    events: list[str] = []

    def opening(name: str) -> Task:
        def run() -> list[Task]:
            events.append(f"open {name}")
            return [lambda: events.append(f"part {name}") or []]

        return run

    def source() -> Iterator[Task]:
        for name in "abc":
            events.append(f"make {name}")
            yield opening(name)

    run_tasks(source(), workers=1)
    assert events == [f"{step} {name}" for name in "abc" for step in ("make", "open", "part")]


def test_tasks_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=10)

    def meet() -> list[Task]:
        meeting.wait()
        return []

    run_tasks([meet] * 3, workers=3)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_error_is_raised_and_stops_the_rest(workers: int) -> None:
    begun = []

    def fail() -> list[Task]:
        raise ValueError("first")

    def count() -> list[Task]:
        begun.append(1)
        return []

    def source() -> Iterator[Task]:
        yield fail
        for _ in range(100_000):
            yield count

    with pytest.raises(ValueError, match="first"):
        run_tasks(source(), workers=workers)
    assert len(begun) < 100_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pqreg-")]


def test_an_error_while_tasks_are_made_is_raised_too() -> None:
    def source() -> Iterator[Task]:
        yield list
        raise OSError("made badly")

    with pytest.raises(OSError, match="made badly"):
        run_tasks(source(), workers=2)
