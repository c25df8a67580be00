# SPDX-License-Identifier: Apache-2.0
"""Which host names the service answers to.

A service on loopback is protected by nothing but its address. A page on a hostile site can let its own name resolve to
127.0.0.1 and have the reader's browser ask us; the browser then sends that name in ``Host``. So a service that listens
on loopback answers to loopback's names only, unless others are configured, and every service answers exactly one
``Host`` header. No CORS header is ever sent.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send


class HostMiddleware:
    """Refuses requests for other hosts."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            HTTPException: 421 if it is for another host, 400 if it names none or several.
        """
        if scope["type"] == "http":
            given = Headers(scope=scope).getlist("host")
            if len(given) != 1:
                raise HTTPException(400, f"expected one Host header, found {len(given)}")
            if self._hosts is not None and host_name(given[0]) not in self._hosts:
                raise HTTPException(421, "this registry does not answer to that host name")
        await self._app(scope, receive, send)


def host_name(header: str) -> str:
    """The host of a ``Host`` header, lower-case, without port and brackets."""
    host, colon, port = header.rpartition(":")
    if not colon or not port.isdigit():
        host = header
    return host.removeprefix("[").removesuffix("]").removesuffix(".").lower()
