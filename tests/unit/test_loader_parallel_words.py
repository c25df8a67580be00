# SPDX-License-Identifier: Apache-2.0
"""What processes tell one another: every error is heard as what it is, and nothing else is believed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pq_registry import errors
from pq_registry.errors import ConnectionFailed, PqregError, UsageError
from pq_registry.loader.parallel.words import agree, refuse
from tests.exchange import Hub, InProcess


def conversation(*say: Callable[[InProcess], Any]) -> list[BaseException | None]:
    hub = Hub(len(say))
    found: list[BaseException | None] = [None] * len(say)

    def run(rank: int) -> None:
        try:
            say[rank](InProcess(hub, rank))
        except PqregError as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(say))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"EXIT_INTERRUPTED", "at_step"}))
def test_every_error_is_heard_as_what_it_is(name: str):
    kind = getattr(errors, name)
    if not (isinstance(kind, type) and issubclass(kind, PqregError)):
        return
    error = kind("füll\x1fed " * 200, expected="e" * 999, found=b"\xff", hint=None)
    told, heard = conversation(lambda one: refuse(one, error), agree)
    assert told is None
    assert type(heard) is kind and heard.message.startswith("rank 0: füll ed ") and heard.expected == "e" * 203
    assert heard.hint is None


def test_words_that_are_no_errors_of_ours_are_heard_as_a_stop():
    class Odd(InProcess):
        def __init__(self, exchange: InProcess, word: bytes) -> None:
            super().__init__(exchange.hub, exchange.place.rank)
            self.tell(word)

    for word in (b"", b"\xff\xfe", b"PqregError", b"Exception\x1fa\x1fb\x1fc\x1fd", b"limits\x1fa\x1fb\x1fc\x1fd"):
        found = conversation(agree, lambda one, word=word: Odd(one, word))  # type: ignore[misc]
        assert isinstance(found[0], ConnectionFailed) and "rank 1 of the group stopped" in str(found[0])
    found = conversation(agree, lambda one: refuse(one, KeyboardInterrupt()))
    assert isinstance(found[0], ConnectionFailed)


def test_all_go_on_only_about_the_same():
    assert conversation(*[lambda one: agree(one, "x")] * 3) == [None] * 3
    found = conversation(lambda one: agree(one, "x"), lambda one: agree(one, "x"), lambda one: agree(one, "y"))
    assert [type(one) for one in found] == [UsageError] * 3
    assert "rank 2 differs from rank 0" in str(found[0])
