# SPDX-License-Identifier: Apache-2.0
"""What surrounds every request: an id, the log line, metrics, headers, and the one place where surprises end.

Written as plain ASGI, because a download must not pay for conveniences it does not use. Inside it:

* every answer carries ``X-Request-Id``, ``Strict-Transport-Security`` where it goes over TLS, and headers that forbid
  sniffing, framing, loading anything (but for pages, which bring a policy of their own) and, by default, caching;
* an answer that comes before the request's body was read waits until a bounded rest of the body has been dropped, so
  that its sender reads the answer instead of a reset connection; beyond the bound the connection is closed;
* an exception nobody expected is logged with its traceback and answered as ``internal-error``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pq_registry import limits
from pq_registry.server.address import ADDRESS, OVER_TLS
from pq_registry.server.logs import log
from pq_registry.server.metrics import UNMATCHED, Metrics
from pq_registry.server.problems import problem_of

REQUEST_ID = "pqreg.request_id"
TOKEN_ID = "pqreg.token_id"  # noqa: S105 - a key, not a token
PROBLEM = "pqreg.problem"
PAGE = "pqreg.page"
"""Set for the requests of people: what goes wrong is told them on a page."""
NOTHING = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of everything that is not a page."""
_CLIENT_GONE = 499
_TRACE_PARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
"""W3C Trace Context: what a proxy that traces requests sends along; its trace id goes into the log line."""
_LOGGER = logging.getLogger("pq_registry.server")


class Exchange:
    """One request and its answer, as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, hsts: str | None = None) -> None:
        headers = Headers(scope=scope)
        self._hsts = hsts
        self.scope = scope
        self.status = 0
        self.received = 0
        self.sent = 0
        self.complete = False
        self._receive = receive
        self._send = send
        self._body_pending = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        # Asking for the body would send the client "100 Continue"; it is waiting for exactly this answer instead.
        self._body_withheld = "expect" in headers

    async def receive(self) -> Message:
        """Pass a message in."""
        self._body_withheld = False
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_pending = self._body_pending and message.get("more_body", False)
        else:
            self._body_pending = False
        return message

    async def send(self, message: Message) -> None:
        """Pass a message out."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            headers["X-Request-Id"] = self.scope[REQUEST_ID]
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Content-Security-Policy", NOTHING)
            headers.setdefault("Cache-Control", "no-store")
            if self._hsts is not None and self.scope.get(OVER_TLS):
                headers["Strict-Transport-Security"] = self._hsts
            if self._body_pending and not await self._drop_body():
                headers["Connection"] = "close"
        else:
            self.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def _drop_body(self) -> bool:
        if self._body_withheld:
            return False
        end = self.received + limits.DRAINED_BODY_BYTES
        try:
            async with asyncio.timeout(limits.BODY_SILENCE_SECONDS):
                while self._body_pending and self.received < end:
                    await self.receive()
        except TimeoutError:
            return False
        return not self._body_pending


class ContextMiddleware:
    """Wraps the application in an ``Exchange`` per request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hsts_days: int = 0) -> None:
        self._app = app
        self._metrics = metrics
        self._hsts = f"max-age={hsts_days * 86400}" if hsts_days else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[REQUEST_ID] = secrets.token_hex(8)
        exchange = Exchange(scope, receive, send, self._hsts)
        started = time.perf_counter()
        self._metrics.active.inc()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = exchange.status or _CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the one place where surprises end
            await self._surprise(scope, exchange, error)
        finally:
            self._metrics.active.dec()
            self._finish(scope, exchange, time.perf_counter() - started)

    async def _surprise(self, scope: Scope, exchange: Exchange, error: Exception) -> None:
        problem = problem_of(error, scope[REQUEST_ID])
        scope[PROBLEM] = problem.code
        if problem.code == "internal-error":
            log(_LOGGER, logging.ERROR, "unexpected error", exc_info=error, request_id=scope[REQUEST_ID])
        if exchange.status == 0:
            await problem.response()(scope, exchange.receive, exchange.send)
        # Otherwise the answer stays unfinished, and the HTTP server closes the connection.

    def _finish(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        route = scope.get("route")
        template = getattr(route, "path", UNMATCHED)
        status = exchange.status if exchange.complete else _CLIENT_GONE
        self._metrics.observe(template, scope["method"], status, seconds)
        self._metrics.received.inc(exchange.received)
        self._metrics.sent.inc(exchange.sent)
        fields: MutableMapping[str, Any] = {
            "request_id": scope[REQUEST_ID],
            "method": scope["method"],
            "route": template,
            "path": scope["path"][:300],
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "received": exchange.received,
            "sent": exchange.sent,
            "token_id": scope.get(TOKEN_ID),
            "client": scope.get(ADDRESS) or (scope.get("client") or ("",))[0],
        }
        trace = _TRACE_PARENT.fullmatch(Headers(scope=scope).get("traceparent", ""))
        if trace is not None:
            fields["trace_id"] = trace[1]
        if PROBLEM in scope:
            fields["problem"] = scope[PROBLEM]
            self._metrics.problems.labels(scope[PROBLEM]).inc()
        log(_LOGGER, logging.INFO, "request", **fields)
