# SPDX-License-Identifier: Apache-2.0
"""Every error of the service in one shape: RFC 9457 ``application/problem+json``.

::

    {"type": "/problems/shard-mismatch", "title": "...", "status": 422, "detail": "...", "instance": "<request id>",
     "expected": "...", "found": "...", "hint": "...", "step": 8}

``type`` and ``title`` belong to the error's class; the last four are left out where they are not known. Errors of
storage and surprises say nothing about paths or causes: the log has those, under the same request id.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry.errors import NotAuthenticated, PqregError, StorageError
from pq_registry.storage.catalogue.failures import is_full

MEDIA_TYPE = "application/problem+json"
_TEXT_CHARS = 1000
_STORAGE_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO})

HTTP_PROBLEMS = {
    400: ("bad-request", "The request is not well-formed HTTP."),
    404: ("not-found", "There is no such thing here."),
    405: ("method-not-allowed", "The resource does not know this method."),
    408: ("request-timeout", "The request's body did not arrive in time."),
    411: ("length-required", "The request needs a Content-Length."),
    413: ("content-too-large", "The request's body is too large."),
    415: ("unsupported-media-type", "The request's body is of another type than this resource takes."),
    416: ("range-not-satisfiable", "The range cannot be served; one range within the content can."),
    421: ("misdirected-request", "This registry does not answer to that host name."),
}
"""What HTTP itself can refuse, by status: the last part of ``type``, and ``title``."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document and the headers that go with it."""

    status: int
    content: dict[str, str | int]
    headers: dict[str, str]

    @property
    def code(self) -> str:
        """The last part of ``type``: a word from a closed set."""
        return str(self.content["type"]).rpartition("/")[2]

    def response(self) -> Response:
        """The answer."""
        body = json.dumps(self.content, ensure_ascii=False).encode("utf-8", errors="replace")
        return Response(body, status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem document for any exception; what is not meant for callers becomes ``internal-error``."""
    if isinstance(error, StorageError):
        return _storage(error, request_id)
    if isinstance(error, PqregError):
        return _ours(error, request_id)
    if isinstance(error, HTTPException) and error.status_code in HTTP_PROBLEMS:
        code, title = HTTP_PROBLEMS[error.status_code]
        phrase = HTTPStatus(error.status_code).phrase
        detail = title if error.detail == phrase else str(error.detail)
        content = _content(code, title, error.status_code, detail, request_id)
        return Problem(error.status_code, content, dict(error.headers or {}))
    if isinstance(error, RequestValidationError):
        return _parameters(error, request_id)
    content = _content("internal-error", "The registry failed.", 500, "the registry's log has the cause", request_id)
    return Problem(500, content, {})


def _ours(error: PqregError, request_id: str) -> Problem:
    content = _content(error.code(), _title(type(error)), error.status, error.message, request_id)
    for name in ("expected", "found", "hint"):
        value = getattr(error, name)
        if value is not None:
            content[name] = str(value)[:_TEXT_CHARS]
    if error.step is not None:
        content["step"] = error.step
    headers = _retry_after(error)
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="pq-registry"'
    return Problem(error.status, content, headers)


def _storage(error: StorageError, request_id: str) -> Problem:
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in _STORAGE_FULL
    status = 507 if full or is_full(error) else 503
    content = _content(
        error.code(), _title(StorageError), status, "the registry cannot read or store this now", request_id
    )
    content["hint"] = "try again later; the registry's operator finds the cause in its log"
    return Problem(status, content, _retry_after(error))


def _retry_after(error: PqregError) -> dict[str, str]:
    return {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}


def _parameters(error: RequestValidationError, request_id: str) -> Problem:
    first = error.errors()[0]
    where = " ".join(str(part) for part in first.get("loc", ()))
    content = _content(
        "format-error", "A parameter is wrong.", 422, f"{where}: {first.get('msg', 'wrong')}"[:_TEXT_CHARS], request_id
    )
    return Problem(422, content, {})


def _content(code: str, title: str, status: int, detail: str, request_id: str) -> dict[str, str | int]:
    return {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "detail": detail[:_TEXT_CHARS],
        "instance": request_id,
    }


def _title(kind: type[PqregError]) -> str:
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0]
