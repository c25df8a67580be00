# SPDX-License-Identifier: Apache-2.0
"""How many uploads of the Hub's clients arrive at once: each may hold a part, or a piece of a block, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from pq_registry import limits
from pq_registry.errors import TooManyRequests

INTAKES = "intakes"
SHARDS = "shard_intakes"


@asynccontextmanager
async def turn(request: Request, places: str = INTAKES) -> AsyncIterator[None]:
    """One of so many places: of ``limits.HUB_INTAKES``, or of ``limits.XET_SHARDS_AT_ONCE`` for SHARDS.

    Raises:
        TooManyRequests: if none becomes free in time.
    """
    taken: asyncio.Semaphore = getattr(request.app.state, places)
    try:
        async with asyncio.timeout(limits.HUB_INTAKE_WAIT_SECONDS):
            await taken.acquire()
    except TimeoutError:
        error = TooManyRequests("too many uploads arrive at once", hint="try again in a moment")
        error.retry_after = limits.REQUEST_PAUSE_SECONDS
        raise error from None
    try:
        yield
    finally:
        taken.release()
