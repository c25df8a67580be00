# SPDX-License-Identifier: Apache-2.0
"""The URL under which a client reached this service, for the answers that name others.

The Hub's clients take no relative URLs. The host is the one they sent, which ``HostMiddleware`` looked at; that they
spoke TLS a trusted proxy says (setting ``trusted_proxies``).
"""

from __future__ import annotations

from starlette.requests import Request

from pq_registry.format.name import RepositoryName
from pq_registry.server.address import OVER_TLS


def base_url(request: Request) -> str:
    """The service's URL, without a slash at its end."""
    over_tls = request.scope.get(OVER_TLS) or request.scope["scheme"] == "https"
    return f"{'https' if over_tls else 'http'}://{request.headers['host']}"


def model_url(request: Request, name: RepositoryName) -> str:
    """The URL of a repository, as a person would open it."""
    return f"{base_url(request)}/{name}"
