# SPDX-License-Identifier: Apache-2.0
"""Threads of their own for work that would keep the others' from everybody else.

Without a bound, forty commits at once would take every worker thread, and liveness probes with them. Waiting for a
receipt costs a thread and nothing else, but with witnesses away it takes seconds, so that has many, and its own. What
anybody may look for costs the catalogue a look at many rows, and nobody who only looks keeps a publisher waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request

from pq_registry import limits

P = ParamSpec("P")
T = TypeVar("T")


class HeavyWork:
    """Runs ``tasks`` functions at once; the others wait for their turn."""

    def __init__(self, tasks: int = limits.HEAVY_TASKS) -> None:
        self._limiter = CapacityLimiter(tasks)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a worker thread."""
        return await to_thread.run_sync(partial(function, *args, **kwargs), limiter=self._limiter)


async def _heavy(request: Request) -> HeavyWork:
    heavy: HeavyWork = request.app.state.heavy
    return heavy


async def _browsing(request: Request) -> HeavyWork:
    browsing: HeavyWork = request.app.state.browsing
    return browsing


async def _looking(request: Request) -> HeavyWork:
    looking: HeavyWork = request.app.state.looking
    return looking


async def _waiting(request: Request) -> HeavyWork:
    waiting: HeavyWork = request.app.state.waiting
    return waiting


Heavy = Annotated[HeavyWork, Depends(_heavy)]
"""Commits."""
Browsing = Annotated[HeavyWork, Depends(_browsing)]
"""Searches and pages that look at much."""
Looking = Annotated[HeavyWork, Depends(_looking)]
"""Looking up revisions for the Hub's clients: quick, but for the first look at a release of very many files."""
Waiting = Annotated[HeavyWork, Depends(_waiting)]
"""What mostly waits: for receipts, for an object store, for an upload to be verified."""
