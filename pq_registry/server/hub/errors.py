# SPDX-License-Identifier: Apache-2.0
"""Refusals for the Hub's clients: the same problem, in the words they look for.

They read the status, ``X-Error-Code`` and ``X-Error-Message``; the body is the problem with ``error`` in front, which
other clients read. A code is always sent where there is one: without it clients guess, and only from ``https`` URLs.
Who has no token is told ``RepoNotFound`` with 401, as by the Hub, so that clients ask for one. Where nobody said which
repository (``whoami``), the message is the Hub's own for a bad token, which clients compare.
"""

from __future__ import annotations

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from pq_registry.errors import EntryNotFound, NotAuthenticated, NotFound, PqregError, RevisionNotFound
from pq_registry.format.hubjson import ERROR_MESSAGE_HEADER, error_headers
from pq_registry.server.problems import Problem

REPO_NOT_FOUND: Final = "RepoNotFound"
_NO_TOKEN: Final = "set HF_TOKEN to a token of this registry"  # noqa: S105 - a sentence
_BAD_TOKEN: Final = "Invalid credentials in Authorization header"  # noqa: S105 - a sentence


def hub_refusal(request: Request, error: Exception, problem: Problem) -> Response:
    """A problem as the Hub says it."""
    ours = error if isinstance(error, PqregError) else None
    message = _message(error, problem)
    headers = {**problem.headers, **error_headers(ours, message, _code(request, error))}
    if isinstance(error, NotAuthenticated) and "ns" not in request.path_params:
        headers[ERROR_MESSAGE_HEADER] = _BAD_TOKEN
    body = json.dumps({"error": message, **problem.content}, ensure_ascii=False)
    content = b"" if request.method == "HEAD" else body.encode("utf-8", errors="replace")
    return Response(content, status_code=problem.status, headers=headers, media_type="application/json")


def _message(error: Exception, problem: Problem) -> str:
    """All of a problem in one text: clients print nothing else of it, not even which path it is about."""
    content = problem.content
    parts = [str(content["detail"])]
    parts += [f"{word} {content[word]}" for word in ("expected", "found") if word in content]
    hint = _NO_TOKEN if isinstance(error, NotAuthenticated) else content.get("hint")
    return "; ".join(parts) + ("" if hint is None else f" ({hint})")


def _code(request: Request, error: Exception) -> str | None:
    if isinstance(error, EntryNotFound):
        return "EntryNotFound"
    if isinstance(error, RevisionNotFound):
        return "RevisionNotFound"
    if isinstance(error, NotFound) or (isinstance(error, NotAuthenticated) and "ns" in request.path_params):
        return REPO_NOT_FOUND
    return None
