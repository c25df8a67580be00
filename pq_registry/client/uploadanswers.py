# SPDX-License-Identifier: Apache-2.0
"""What a registry answers to those who upload straight to its storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pq_registry import limits
from pq_registry.client.problems import printable
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import Fields

_HEADER = re.compile(r"x-amz-[a-z0-9-]{1,80}|content-length", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignedPart:
    """A PUT of one part. Its URL is a credential; ``headers`` are sent exactly so."""

    number: int
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verifying:
    """How far the registry is with reading what was uploaded."""

    verified: int
    size: int


def signed_parts(fields: Fields) -> tuple[SignedPart, ...]:
    """``POST .../uploads/{id}/urls``."""
    return tuple(
        SignedPart(
            item.integer("number", maximum=limits.PARTS - 1),
            _url(item),
            _headers(item.object("headers")),
        )
        for item in fields.objects("parts", limit=limits.SIGNED_PARTS)
    )


def completion(fields: Fields) -> Digest | Verifying:
    """``POST .../uploads/{id}/complete``."""
    if fields.has("digest"):
        return fields.parsed("digest", Digest.parse)
    size = fields.integer("size", maximum=limits.FILE_BYTES)
    return Verifying(fields.integer("verified", maximum=size), size)


def storage_origins(fields: Fields) -> tuple[str, ...]:
    """``GET /v1/about``."""
    return tuple(printable(text) for text in fields.texts("storage_origins", limit=limits.STORAGE_ORIGINS))


def _url(item: Fields) -> str:
    url = item.take("url")
    if not isinstance(url, str) or not 0 < len(url) <= limits.LOCATION_CHARS:
        item.fail("url", f"a URL of at most {limits.LOCATION_CHARS} characters", "another")  # never quoted
    return url


def _headers(fields: Fields) -> dict[str, str]:
    """Those a store wants to have signed; nothing that could carry a credential, or confuse a proxy."""
    found: dict[str, str] = {}
    for name in fields.names():
        value = fields.take(name)
        if not _HEADER.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            fields.fail(name[:80], "headers of the form x-amz-…", "another")
        found[name] = value
    if len(found) > limits.SIGNED_HEADERS:
        fields.fail("headers", f"at most {limits.SIGNED_HEADERS}", f"{len(found)}")
    return found
