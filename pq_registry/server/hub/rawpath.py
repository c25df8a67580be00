# SPDX-License-Identifier: Apache-2.0
"""Routes of the Hub's protocol, matched against the path as it was sent.

A revision such as ``dev/x`` is one segment there, ``dev%2Fx``. The framework decodes a path before it looks for a
route, which makes two segments of it; these routes are matched first and decoded after.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

HUB = "pqreg.hub"
"""Set for the requests of the Hub's clients: what goes wrong is told them in the Hub's words."""


class HubRoute(APIRoute):
    """A route whose parameters may hold encoded slashes."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this route, by its path before decoding."""
        if scope["type"] != "http":
            return Match.NONE, {}
        raw: bytes | None = scope.get("raw_path")
        path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
        match, child = super().matches({**scope, "path": path})
        if match is not Match.NONE:
            child["path_params"] = {
                name: unquote(value) if isinstance(value, str) else value
                for name, value in child["path_params"].items()
            }
            child[HUB] = True
        return match, child
