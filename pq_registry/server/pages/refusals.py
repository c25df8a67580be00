# SPDX-License-Identifier: Apache-2.0
"""Refusals for people: the same problem, on a page, where a browser asked for a page."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from pq_registry.server.context import PAGE
from pq_registry.server.pages.render import Pages
from pq_registry.server.pages.texts import choose_language, text
from pq_registry.server.problems import Problem

_WRITTEN: Final = {400: 400, 401: 401, 403: 403, 404: 404, 422: 400}
"""Statuses with texts of their own; other refusals of a request read like 400, failures like 500."""
_FIRST_FAILURE: Final = 500


def wants_page(request: Request, problem: Problem) -> bool:
    """Whether a refusal is told on a page: to browsers that navigate, at our pages and where nothing is."""
    if "text/html" not in request.headers.get("accept", ""):
        return False
    return PAGE in request.scope or problem.code == "not-found" or request.url.path.startswith("/session")


def refusal_page(request: Request, problem: Problem) -> Response:
    """A problem as a page."""
    pages: Pages = request.app.state.pages
    status = _WRITTEN.get(problem.status, 400 if problem.status < _FIRST_FAILURE else _FIRST_FAILURE)
    language = choose_language(request.query_params.get("lang"), request.headers.get("accept-language"))
    values = {
        "heading": text(f"problem_{status}", language),
        "explanation": text(f"problem_{status}_text", language),
        "problem": problem.content,
        "code": problem.code,
    }
    answer = pages.answer(request, "problem.html", values, caller=None, status=problem.status)
    answer.headers.update(problem.headers)
    return answer
