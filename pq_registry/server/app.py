# SPDX-License-Identifier: Apache-2.0
"""The application: routes, what surrounds them, and a refusal to exist while a route has no policy.

From the outside in: ``ContextMiddleware`` (ids, log, metrics, surprises), ``AddressMiddleware``
(who asks, and how often), ``HostMiddleware``, FastAPI's routing, the
route's ``Policy``, the handler. Interactive documentation is off, since it would load scripts from elsewhere, and there
is no CORS. For people there are pages (``pages``), with one form and one cookie, which the API does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

import pq_registry
from pq_registry import limits
from pq_registry.errors import PqregError, StorageError
from pq_registry.server.address import AddressMiddleware
from pq_registry.server.config import ServerConfig
from pq_registry.server.context import PROBLEM, REQUEST_ID, ContextMiddleware
from pq_registry.server.guard import Policy, policies
from pq_registry.server.heavy import HeavyWork
from pq_registry.server.hosts import HostMiddleware
from pq_registry.server.hub.errors import hub_refusal
from pq_registry.server.hub.rawpath import HUB
from pq_registry.server.logs import log
from pq_registry.server.metrics import Metrics
from pq_registry.server.pages.cards import CardPages
from pq_registry.server.pages.refusals import refusal_page, wants_page
from pq_registry.server.pages.render import Pages
from pq_registry.server.problems import problem_of
from pq_registry.server.rate import RateLimit
from pq_registry.server.routes import (
    access,
    blobs,
    cardfiles,
    drafts,
    grants,
    health,
    hf_commit,
    hf_elsewhere,
    hf_files,
    hf_models,
    hf_pages,
    hf_repos,
    hf_upload,
    hf_xet,
    history,
    logpages,
    mirrors,
    pages,
    repositories,
    session,
    status,
    uploads,
)
from pq_registry.server.routes import log as log_routes
from pq_registry.service.registry import Registry
from pq_registry.service.tokens import host_caller

SWEEP_SECONDS = 3600
_LOGGER = logging.getLogger("pq_registry.server")


def create_app(registry: Registry, config: ServerConfig) -> FastAPI:
    """The application for an open registry, which it closes at its end.

    Raises:
        RuntimeError: if a route states no policy.
    """
    app = FastAPI(
        title="pq-registry", version=pq_registry.__version__, openapi_url=None, docs_url=None, redoc_url=None,
        lifespan=_lifespan, redirect_slashes=False,
    )  # fmt: skip
    registry.quotas.quotas = config.quotas
    registry.drafts.policy = registry.revisions.policy = config.drafts
    app.state.registry = registry
    app.state.config = config
    app.state.metrics = Metrics()
    app.state.metrics.watch_log(registry.ledger.health)
    app.state.metrics.watch_expiry(registry.expiry.outlook)
    if registry.ledger.witnesses is not None:
        app.state.metrics.watch_witnesses(registry.ledger.witnesses.view)
    app.state.token_rate = RateLimit(config.token_rate, "with this token")
    app.state.readiness = health.Readiness()
    app.state.heavy = HeavyWork()
    app.state.browsing = HeavyWork(limits.BROWSING_TASKS)
    app.state.looking = HeavyWork(limits.HUB_LOOKERS)
    app.state.waiting = HeavyWork(limits.LOG_WAITERS)
    app.state.intakes = asyncio.Semaphore(limits.HUB_INTAKES)
    app.state.shard_intakes = asyncio.Semaphore(limits.XET_SHARDS_AT_ONCE)
    app.state.pages = Pages()
    app.state.cards = CardPages()
    for module in (
        health,
        access,
        repositories,
        grants,
        status,
        history,
        drafts,
        mirrors,
        log_routes,
        blobs,
        uploads,
        pages,
        cardfiles,
        logpages,
        session,
        # These last: where a path is one of ours, it is ours, whatever a namespace is called.
        hf_repos,
        hf_upload,
        hf_xet,
        hf_commit,
        hf_models,
        hf_files,
        hf_elsewhere,
        hf_pages,
    ):
        # Not include_router: recent FastAPI resolves included routers late, and the policies are checked now.
        app.router.routes.extend(module.router.routes)
    for kind in (PqregError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(HostMiddleware, hosts=config.hosts)
    address_rate = RateLimit(config.address_rate, "from this address")
    app.add_middleware(AddressMiddleware, trusted=config.trusted_proxies, rate=address_rate)
    app.add_middleware(ContextMiddleware, metrics=app.state.metrics, hsts_days=config.hsts_days)
    _describe(app, policies(app))
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request.scope[REQUEST_ID])
    request.scope[PROBLEM] = problem.code
    if isinstance(error, StorageError):
        log(_LOGGER, logging.ERROR, "storage failed", exc_info=error, request_id=request.scope[REQUEST_ID])
    if HUB in request.scope:
        return hub_refusal(request, error, problem)
    if wants_page(request, problem):
        return refusal_page(request, problem)
    return problem.response()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work(app.state.registry)) for work in (_sweep, _catch_up, _keep_cards)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await run_in_threadpool(app.state.registry.close)


async def _sweep(registry: Registry) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        if not registry.ledger.leading:  # of several instances one is enough
            continue
        try:
            dropped = await run_in_threadpool(registry.uploads.sweep, host_caller(), starting=False)
            dropped += await run_in_threadpool(registry.xorbs.sweep, starting=False)
        except PqregError as error:
            log(_LOGGER, logging.ERROR, "sweeping idle uploads failed", exc_info=error)
        else:
            log(_LOGGER, logging.INFO, "swept idle uploads", dropped=dropped)


async def _catch_up(registry: Registry) -> None:
    while True:
        await asyncio.sleep(limits.LOG_CATCH_UP_SECONDS)
        try:
            logged = await run_in_threadpool(registry.ledger.catch_up)
        except PqregError as error:
            log(_LOGGER, logging.ERROR, "logging what was left over failed", exc_info=error)
        else:
            if logged:
                log(_LOGGER, logging.INFO, "logged what was left over", statements=logged)


async def _keep_cards(registry: Registry) -> None:
    while True:
        await asyncio.sleep(limits.LOG_CATCH_UP_SECONDS)
        if registry.ledger.leading:
            try:
                behind = await run_in_threadpool(registry.cards.catch_up)
            except PqregError as error:
                log(_LOGGER, logging.ERROR, "reading model cards failed", exc_info=error)
            else:
                log(_LOGGER, logging.INFO, "read model cards", repositories=behind)
        await asyncio.sleep(SWEEP_SECONDS)


def _describe(app: FastAPI, found: dict[tuple[str, str], Policy]) -> None:
    document = get_openapi(
        title=app.title, version=app.version, routes=app.routes,
        description="Native API of a pq-registry service. Clients believe nothing in it without verification.",
    )  # fmt: skip
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for (method, path), policy in found.items():
        # OpenAPI has no word for a parameter that spans several segments.
        operation = document["paths"][path.replace(":path}", "}")][method.lower()]
        operation["security"] = [] if policy.permission is None else [{"token": []}]
        operation["x-permission"] = None if policy.permission is None else policy.permission.value
        operation["x-scope"] = policy.scope.value
        operation["x-body-limit"] = policy.body
    app.state.openapi = document
