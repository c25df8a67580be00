# SPDX-License-Identifier: Apache-2.0
"""What surrounds every request to the gateway: whose it is, the log line, metrics, headers, and where surprises end.

* A gateway listens on loopback, so it answers to loopback's names only: a page on a hostile site may let its own name
  lead to 127.0.0.1. No CORS header is ever sent, and what a browser asks for a page of another site is refused: such a
  page could read nothing, but it could have the node fetch, and its cache filled.
* With a token set, every request must show it but those of ``PROBES``. Tokens that clients send for the Hub go nowhere.
* Neither headers nor queries are logged.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pq_registry.errors import NotAuthenticated, PqregError, StorageError
from pq_registry.gateway.answers import refusal
from pq_registry.gateway.metrics import Counts
from pq_registry.server.hosts import host_name
from pq_registry.server.logs import log

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
ROUTE = "pqreg.route"
"""The template of the route that answered."""
ERROR = "pqreg.error"
"""What was refused, and answered already."""
_CLIENT_GONE = 499
_OWN_SITES = frozenset({"none", "same-origin"})
"""What a browser says of a request that its user made, or a page of ours, if there were any."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_LOGGER = logging.getLogger(__name__)


class Boundary:
    """The outermost layer."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], token: str | None, counts: Counts) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, complete, request_id = 0, False, secrets.token_hex(8)
        begun = time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=message["headers"])
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
                headers.setdefault("Cache-Control", "no-store")
            else:
                complete = not message.get("more_body", False)
            await send(message)

        problem = None
        try:
            self._admit(scope)
            await self._app(scope, receive, sending)
            if ERROR in scope:
                problem = self._note(scope[ERROR], request_id)
        except ClientDisconnect:
            status = status or _CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the one place where surprises end
            problem = self._note(error, request_id)
            if not status:
                await refusal(error)(scope, receive, sending)
            # Otherwise the answer stays unfinished, and the HTTP server closes the connection.
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get(ROUTE, "unmatched")
        self._counts.requests.labels(route, method, str(status if complete else _CLIENT_GONE)).inc()
        log(
            _LOGGER, logging.INFO, "request", request_id=request_id, method=method, route=route,
            path=scope["path"][:300], status=status, complete=complete,
            milliseconds=round((time.perf_counter() - begun) * 1000, 1), problem=problem,
        )  # fmt: skip

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        given = headers.getlist("host")
        if len(given) != 1:
            raise HTTPException(400, f"expected one Host header, found {len(given)}")
        if host_name(given[0]) not in self._hosts:
            raise HTTPException(421, "this gateway does not answer to that host name")
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            raise HTTPException(403, "this gateway is not for pages of other sites")
        if self._token is None or scope["path"] in PROBES:
            return
        shown = headers.get("authorization", "").partition(" ")[2].strip()
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            raise NotAuthenticated(
                "this gateway wants its token", hint="give the gateway's token as HF_TOKEN (setting gateway_token)"
            )

    def _note(self, error: Exception, request_id: str) -> str:
        """Log what its caller cannot know, count it, and answer what it is called."""
        code = error.code() if isinstance(error, PqregError) else "internal-error"
        if isinstance(error, HTTPException):
            code = "http"
        elif isinstance(error, StorageError) or not isinstance(error, PqregError):
            log(_LOGGER, logging.ERROR, "failed", exc_info=error, request_id=request_id)
        elif error.status not in (404, 401):
            log(
                _LOGGER,
                logging.WARNING,
                "refused",
                request_id=request_id,
                problem=code,
                found=str(error),
                step=error.step,
            )
        self._counts.problems.labels(code).inc()
        return code
