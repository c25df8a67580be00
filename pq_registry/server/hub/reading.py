# SPDX-License-Identifier: Apache-2.0
"""Bodies of the Hub's clients: JSON of which only what is needed is looked at.

Their versions differ in what they send along, so unknown fields are ignored here, unlike in the native API. The JSON
itself is parsed as strictly, and every field that is looked at has one type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from pq_registry.errors import AccessDenied, FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import parse_strict
from pq_registry.server.bodies import JSON_TYPE, chunks
from pq_registry.service.registry import Registry

LFS_TYPE = "application/vnd.git-lfs+json"
_TYPES = frozenset({JSON_TYPE, LFS_TYPE})
Object = Mapping[str, Any]


async def read_object(request: Request, limit: int, *, empty: bool = False) -> Object:
    """The body, one JSON object. With ``empty`` none at all is as good as an empty one.

    Raises:
        HTTPException: if it is of another type, too large or too slow.
        FormatError: if it is no strict JSON, or no object.
    """
    body = bytearray()
    async for chunk in chunks(request, limit):
        body += chunk
    if empty and not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES or "content-encoding" in request.headers:
        raise HTTPException(415, f"expected Content-Type {JSON_TYPE}, found {kind[:100] or 'none'}")
    return as_object(parse_strict(bytes(body), what="the request's body", limit=limit), "the request's body")


def as_object(value: object, what: str) -> Object:
    """A JSON object.

    Raises:
        FormatError: if it is none.
    """
    if not isinstance(value, dict):
        raise FormatError(f"{what} is malformed", expected="a JSON object")
    return value


def text(source: Object, name: str, *, default: str | None = None) -> str:
    """A field that is text; ``default`` if it is missing or null.

    Raises:
        FormatError: if it is no text, or missing without a default.
    """
    value = source.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise FormatError(f"the field {name} is malformed", expected="text")
    return value


def number(source: Object, name: str, *, most: int) -> int:
    """A field that is a whole number from 0 to ``most``.

    Raises:
        FormatError: if it is none.
    """
    value = source.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise FormatError(f"the field {name} is malformed", expected=f"a number from 0 to {most}")
    return value


def items(source: Object, name: str, *, most: int) -> list[Object]:
    """A field that is a list of objects.

    Raises:
        FormatError: if it is none, or longer than ``most``.
    """
    value = source.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise FormatError(f"the field {name} is malformed", expected=f"a list of at most {most} objects")
    return [as_object(item, f"an item of {name}") for item in value]


def oid(source: Object) -> Digest:
    """The field ``oid``: a SHA-256.

    Raises:
        FormatError: if it is none.
        NameSyntaxError: if it is not well formed.
    """
    return Digest(text(source, "oid"))


def require_drafts(service: Registry) -> None:
    """Refuse early what could not be committed at the end.

    Raises:
        AccessDenied: if this registry takes no drafts.
    """
    if not service.drafts.policy.writable:
        raise AccessDenied(
            "this registry takes no drafts, so nothing can be written through the Hub's protocol",
            hint="publish signed releases with pqreg push, or ask the operator for setting drafts",
        )
