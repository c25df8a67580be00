# SPDX-License-Identifier: Apache-2.0
"""How many uploads of the Hub's clients arrive at once: each may hold a part, or a piece of a block, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from pq_registry import limits
from pq_registry.errors import TooManyRequests


@asynccontextmanager
async def turn(request: Request) -> AsyncIterator[None]:
    """One of ``limits.HUB_INTAKES`` places: each holds a part in memory where the store is an object store.

    Raises:
        TooManyRequests: if none becomes free in time.
    """
    places: asyncio.Semaphore = request.app.state.intakes
    try:
        async with asyncio.timeout(limits.HUB_INTAKE_WAIT_SECONDS):
            await places.acquire()
    except TimeoutError:
        error = TooManyRequests("too many uploads arrive at once", hint="try again in a moment")
        error.retry_after = limits.REQUEST_PAUSE_SECONDS
        raise error from None
    try:
        yield
    finally:
        places.release()
