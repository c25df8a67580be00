# SPDX-License-Identifier: Apache-2.0
"""Answers of the gateway: JSON as the Hub's clients read it, and refusals in their words.

A refusal of the verification is 422 (403, where there is no grant), which no client tries again, with what was
expected and found in ``X-Error-Message``. A source that does not answer is 502, which they do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry.errors import (
    EntryNotFound,
    GrantExpired,
    GrantMissing,
    GrantWithdrawn,
    NotAuthenticated,
    NotFound,
    PqregError,
    RevisionNotFound,
    StorageError,
)
from pq_registry.format.hubjson import COMMIT_HEADER, RELEASE_HEADER, SIGNED_HEADER, error_headers
from pq_registry.gateway.served import Served

_NOT_GRANTED: tuple[type[PqregError], ...] = (GrantMissing, GrantWithdrawn, GrantExpired)
_CODES: tuple[tuple[type[PqregError], str], ...] = (
    (EntryNotFound, "EntryNotFound"),
    (RevisionNotFound, "RevisionNotFound"),
    (NotFound, "RepoNotFound"),
    *((kind, "GatedRepo") for kind in _NOT_GRANTED),
)


def json_answer(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """A JSON answer."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")
    return Response(body, status_code=status, headers=dict(headers or {}), media_type="application/json")


def revision_headers(served: Served) -> dict[str, str]:
    """Which release an answer is about. The gateway serves nothing that is not signed."""
    return {COMMIT_HEADER: served.commit.value, SIGNED_HEADER: "true", RELEASE_HEADER: str(served.release)}


def refusal(error: Exception) -> Response:
    """What went wrong; a surprise says nothing of its cause, which is in the log."""
    if isinstance(error, HTTPException):
        return _refusal(
            error.status_code, {"error": str(error.detail)}, error_headers(None, str(error.detail), None), error.headers
        )
    if not isinstance(error, PqregError):
        return _refusal(500, {"error": "the gateway failed; its log has the cause"}, {}, None)
    if isinstance(error, StorageError):
        return _refusal(
            503,
            {"error": "the gateway cannot read or store this now; its log has the cause", "type": error.problem_type},
            {}, None,
        )  # fmt: skip
    message = str(error) if error.hint is None else f"{error} ({error.hint})"
    fields: dict[str, object] = {"error": message, "type": error.problem_type, "detail": error.message}
    for name in ("expected", "found", "hint", "step"):
        value = getattr(error, name)
        if value is not None:
            fields[name] = value
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    headers = error_headers(error, message, code)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="pq-registry gateway"'
    return _refusal(403 if isinstance(error, _NOT_GRANTED) else error.status, fields, headers, None)


def _refusal(
    status: int, content: Mapping[str, object], headers: Mapping[str, str], more: Mapping[str, str] | None
) -> Response:
    return json_answer(content, {**headers, **(more or {})}, status)
