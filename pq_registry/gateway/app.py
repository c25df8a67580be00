# SPDX-License-Identifier: Apache-2.0
"""A gateway as one object: its sources, its cache, its threads, and the application that serves from them."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pq_registry import limits
from pq_registry.errors import PqregError
from pq_registry.gateway.answers import json_answer, refusal
from pq_registry.gateway.boundary import ERROR, ROUTE, Boundary
from pq_registry.gateway.cache import ShardCache
from pq_registry.gateway.metrics import MEDIA_TYPE, Counts
from pq_registry.gateway.origins import Origin
from pq_registry.gateway.releases import Releases
from pq_registry.gateway.routes import HubRoutes
from pq_registry.gateway.shards import Shards
from pq_registry.gateway.stream import Downloads


class Gateway:
    """Everything a gateway has open. Closed by ``close``, once nothing is served any more."""

    def __init__(
        self,
        origins: Sequence[Origin],
        cache: ShardCache | None,
        *,
        connections: int = 4,
        verified_seconds: float = limits.GATEWAY_VERIFIED_SECONDS,
        patience: float = limits.GATEWAY_HEAD_SECONDS,
    ) -> None:
        """Serve from ``origins``, the first that has a release.

        Args:
            origins: the sources.
            cache: keeps what comes by a network; None keeps nothing.
            connections: requests at once to each source.
            verified_seconds: how long a release counts as verified.
            patience: how long an answer waits for its first shard, so that a wrong one is told by a status.
        """
        self.counts = Counts()
        self.cache = cache
        if cache is not None:
            self.counts.watch_cache(lambda: cache.used, cache.size)
        self.releases = Releases(origins, seconds=verified_seconds)
        self.shards = Shards(cache, connections=connections, counts=self.counts)
        self.downloads = Downloads(self.shards, self.counts, patience=patience)

    def application(self, *, hosts: frozenset[str], token: str | None = None) -> ASGIApp:
        """The application, answering to ``hosts`` and, if there is a ``token``, to whoever shows it."""
        routes = [
            Route("/livez", _alive, methods=["GET"]),
            Route("/readyz", _alive, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            *HubRoutes(self.releases, self.downloads).routes(),
        ]
        app = Starlette(routes=routes, exception_handlers={PqregError: _refuse, HTTPException: _refuse})
        app.router.redirect_slashes = False
        return Boundary(app, hosts=hosts, token=token, counts=self.counts)

    def close(self) -> None:
        """End every thread, connection and file."""
        self.releases.abort()
        self.shards.close()
        self.releases.close()
        if self.cache is not None:
            self.cache.close()

    async def _metrics(self, request: Request) -> Response:
        request.scope[ROUTE] = "/metrics"
        return Response(await run_in_threadpool(self.counts.render), headers={"Content-Type": MEDIA_TYPE})


async def _alive(request: Request) -> Response:
    request.scope[ROUTE] = request.url.path
    return json_answer({"status": "ok"})


def _refuse(request: Request, error: Exception) -> Response:
    request.scope[ERROR] = error
    return refusal(error)
