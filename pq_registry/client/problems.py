# SPDX-License-Identifier: Apache-2.0
"""What a server says when it refuses: RFC 9457 problem documents, mapped to the tree of errors.

The text comes from the other side: it is bounded, stripped of control characters (a terminal obeys those) and marked
as the registry's words. Only classes a registry can know about are mapped; in particular no answer to a GET can pose
as a verification this client made itself, or as a refusal other than 401, 403 and 429. And only the registry's own
document can say that something is not there: a 404 without it comes from a proxy, or a wrong URL.
"""

from __future__ import annotations

from collections.abc import Iterator

from pq_registry import limits
from pq_registry.client.origin import Origin
from pq_registry.errors import (
    AccessDenied,
    Conflict,
    FormatError,
    NameSyntaxError,
    NotAuthenticated,
    NotFound,
    PolicyError,
    PqregError,
    RevisionNotFound,
    ServerRefused,
    TooManyRequests,
    VerificationError,
)
from pq_registry.format.strict_json import Value, parse_strict

MEDIA_TYPE = "application/problem+json"
_BY_STATUS: dict[int, type[PqregError]] = {401: NotAuthenticated, 403: AccessDenied, 429: TooManyRequests}
_BY_STATUS_ON_CHANGE = _BY_STATUS | {409: Conflict}
_NOT_FOUND = 404
_HINTS: dict[type[PqregError], str] = {
    NotAuthenticated: "log in (pqreg login) or set PQREG_TOKEN",
    AccessDenied: "ask the registry's operator for a token with the role and namespace this needs",
}


def _with_subclasses(kind: type[PqregError]) -> Iterator[type[PqregError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _with_subclasses(sub)


_ANY: dict[str, type[PqregError]] = {
    kind.code(): kind for kind in (NotFound, RevisionNotFound, NotAuthenticated, AccessDenied, TooManyRequests)
}
_ON_CHANGE = _ANY | {
    kind.code(): kind
    for base in (PolicyError, VerificationError, FormatError, NameSyntaxError)
    for kind in _with_subclasses(base)
}


def printable(text: object, limit: int = 300) -> str:
    """Foreign text, fit for a terminal and a log line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)[:limit])


def refusal(
    status: int, content_type: str, body: bytes, *, what: str, origin: Origin, changing: bool, plain: bool = False
) -> PqregError:
    """The error for a response that is not a success.

    Args:
        status: the HTTP status.
        content_type: of the response.
        body: at most ``limits.PROBLEM_BYTES`` of it.
        what: what was asked for, in this client's words, e.g. ``GET /v1/whoami``.
        origin: of the registry; a command may talk to two of them.
        changing: whether the request was to change something, so that the registry checked what it was sent.
        plain: whether a plain file server may be answering, whose 404 means what it says.
    """
    problem = _problem(content_type, body)
    code = str(problem.get("type", "")).removeprefix("/problems/")
    kinds, statuses = (_ON_CHANGE, _BY_STATUS_ON_CHANGE) if changing else (_ANY, _BY_STATUS)
    kind = kinds.get(code) or statuses.get(status, ServerRefused)
    if issubclass(kind, NotFound) and status != _NOT_FOUND:
        kind = ServerRefused
    elif status == _NOT_FOUND and (plain or (not body and _is_problem(content_type))):
        kind = NotFound  # the answer to a HEAD has no body
    words = problem.get("detail") or problem.get("title")
    message = f"the registry at {origin} refused {what}" + (f": {printable(words)}" if words else "")
    found = problem.get("found")
    if found is None:
        found = f"HTTP {status}" + (f", request {problem['instance']}" if problem.get("instance") else "")
    step = problem.get("step")
    return kind(
        message,
        expected=printable(problem["expected"]) if problem.get("expected") is not None else None,
        found=printable(found),
        hint=printable(problem["hint"]) if problem.get("hint") else _HINTS.get(kind),
        step=step if type(step) is int and 0 <= step <= 9 else None,
    )


def _is_problem(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def _problem(content_type: str, body: bytes) -> dict[str, Value]:
    if not _is_problem(content_type):
        return {}
    try:
        problem = parse_strict(body, what="the problem document", limit=limits.PROBLEM_BYTES)
    except FormatError:
        return {}
    return problem if isinstance(problem, dict) else {}
