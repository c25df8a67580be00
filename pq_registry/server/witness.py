# SPDX-License-Identifier: Apache-2.0
"""A witness as a service: the HTTP interface of C2SP tlog-witness around ``log.witness.Witness``.

::

    POST /add-checkpoint                   at most 16 KiB; anybody may ask, the log's signature decides
    GET  /<hex sha256(origin)>/checkpoint  the newest cosigned checkpoint of a log, for monitors
    GET  /livez, /readyz, /metrics

There are no tokens: a witness has nothing to hide and signs nothing a log has not signed. Around it stands what stands
around the registry's service: bounded heads and bodies, time-outs, request ids, JSON logs, host names on loopback.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pq_registry import limits
from pq_registry.errors import PqregError, StorageError
from pq_registry.format.digest import Digest
from pq_registry.log.watchedlog import Evidence
from pq_registry.log.witness import TEXT_TYPE, Outcome, Witness
from pq_registry.server.answers import json_answer
from pq_registry.server.bodies import chunks
from pq_registry.server.context import PROBLEM, REQUEST_ID, ContextMiddleware
from pq_registry.server.hosts import HostMiddleware
from pq_registry.server.listening import Announce, bind, make_server, url_of
from pq_registry.server.logs import configure, log
from pq_registry.server.metrics import MEDIA_TYPE, Metrics
from pq_registry.server.problems import problem_of
from pq_registry.storage.witnessstate import WitnessState

_LOGGER = logging.getLogger("pq_registry.server.witness")
_CACHED = "public, max-age=5"


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessConfig:
    """Where a witness listens, and what it answers to; ``hosts`` None is any name."""

    host: str
    port: int
    hosts: frozenset[str] | None = None
    log_level: str = "info"


class WitnessMetrics(Metrics):
    """The metrics of every service, and those of a witness. Labels are outcomes and the origins it watches."""

    def __init__(self, witness: Witness, state: WitnessState) -> None:
        super().__init__()
        self.answers = Counter(
            "pqreg_witness_answers", "Requests for a cosignature, by outcome", ("origin", "outcome"),
            registry=self.collectors,
        )  # fmt: skip
        for origin in witness.origins:
            for outcome in (Outcome.COSIGNED, Outcome.EQUIVOCATION, Outcome.INCONSISTENT):
                self.answers.labels(origin, outcome.value)
        self.collectors.register(_StateCollector(witness, state))


class _StateCollector(Collector):
    """What a witness has signed and kept, read when it is asked for."""

    def __init__(self, witness: Witness, state: WitnessState) -> None:
        self._witness = witness
        self._state = state

    def collect(self) -> list[GaugeMetricFamily]:
        """The gauges."""
        size = GaugeMetricFamily("pqreg_witness_tree_size", "Leaves of the newest cosigned tree", labels=["origin"])
        time = GaugeMetricFamily(
            "pqreg_witness_cosigned_timestamp_seconds", "When the newest tree was cosigned", labels=["origin"]
        )
        kept = GaugeMetricFamily(
            "pqreg_witness_evidence_notes", "Notes kept as evidence against a log", labels=["origin", "kind"]
        )
        for origin in self._witness.origins:
            size.add_metric([origin], self._witness.size(origin))
            time.add_metric([origin], self._witness.time(origin))
            for kind in Evidence:
                kept.add_metric([origin, kind.value], self._state.evidence(origin, kind.value))
        return [size, time, kept]


def create_witness_app(witness: Witness, state: WitnessState, config: WitnessConfig) -> Starlette:
    """The application of an open witness."""
    metrics = WitnessMetrics(witness, state)
    by_digest = {Digest.of(origin.encode("utf-8")).hex: origin for origin in witness.origins}
    routes = [
        Route("/add-checkpoint", partial(_add_checkpoint, witness, metrics), methods=["POST"]),
        Route("/livez", _alive, methods=["GET"]),
        Route("/readyz", partial(_ready, witness, state), methods=["GET"]),
        Route("/metrics", partial(_metrics, metrics), methods=["GET"]),
        Route("/{origin:str}/checkpoint", partial(_checkpoint, witness, by_digest), methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    app.add_exception_handler(PqregError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(HostMiddleware, hosts=config.hosts)
    app.add_middleware(ContextMiddleware, metrics=metrics)
    app.router.redirect_slashes = False
    app.state.metrics = metrics
    return app


async def _add_checkpoint(witness: Witness, metrics: WitnessMetrics, request: Request) -> Response:
    body = b"".join([chunk async for chunk in chunks(request, limits.ADD_CHECKPOINT_BYTES)])
    answer = await run_in_threadpool(witness.add_checkpoint, body)
    metrics.answers.labels(answer.origin or "", answer.outcome.value).inc()
    if answer.outcome in {Outcome.EQUIVOCATION, Outcome.INCONSISTENT}:
        log(_LOGGER, logging.WARNING, "refused to cosign", origin=answer.origin, outcome=answer.outcome.value,
            request_id=request.scope[REQUEST_ID])  # fmt: skip
    return Response(answer.body, status_code=answer.status, headers={"Content-Type": answer.media_type})


async def _checkpoint(witness: Witness, origins: dict[str, str], request: Request) -> Response:
    origin = origins.get(request.path_params["origin"])
    if origin is None:
        raise HTTPException(404, "this witness does not watch that log")
    return Response(witness.newest(origin), headers={"Content-Type": TEXT_TYPE, "Cache-Control": _CACHED})


async def _alive(_request: Request) -> Response:
    return json_answer({"status": "ok"})


async def _ready(witness: Witness, state: WitnessState, _request: Request) -> Response:
    equivocated = [
        origin for origin in witness.origins if await run_in_threadpool(_count, state, origin, Evidence.EQUIVOCATION)
    ]
    return json_answer({"status": "ok", "logs": len(witness.origins), "equivocated": equivocated})


def _count(state: WitnessState, origin: str, kind: Evidence) -> int:
    return state.evidence(origin, kind.value)


async def _metrics(metrics: WitnessMetrics, _request: Request) -> Response:
    return Response(await run_in_threadpool(metrics.render), headers={"Content-Type": MEDIA_TYPE})


async def _refuse(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request.scope[REQUEST_ID])
    request.scope[PROBLEM] = problem.code
    if isinstance(error, StorageError):
        log(_LOGGER, logging.ERROR, "nothing was signed", exc_info=error, request_id=request.scope[REQUEST_ID])
    return problem.response()


def serve_witness(
    config: WitnessConfig, state: WitnessState, opened: Callable[[], Witness], announce: Announce
) -> None:
    """Serve until a signal. ``pqreg: witnessing on http://HOST:PORT state DIR`` means: requests are answered now.

    Args:
        config: where to listen.
        state: the locked state directory.
        opened: opens the witness once the port is ours.
        announce: where the ready line goes.

    Raises:
        PqregError: if the witness cannot start.
    """
    configure(sys.stdout, config.log_level)
    listener = bind(config.host, config.port)
    with contextlib.closing(listener):
        url = url_of(listener)
        app = create_witness_app(opened(), state, config)
        server = make_server(app, lambda: announce(f"pqreg: witnessing on {url} state {state.root}"))
        server.run(sockets=[listener])
