# SPDX-License-Identifier: Apache-2.0
"""Drafts in their canonical form: what a commit that nobody signed consists of, and how it gets its id.

A listing is the RFC 8785 array of ``[path, sha256 hex, size]``, sorted by the code points of the paths. The description
of a commit is the RFC 8785 object of ``schema``, ``author`` (a token's id), ``created``, ``files`` (the SHA-256 of the
listing), ``message``, ``parent`` (a commit or null) and ``title``; the first 40 hex digits of its SHA-256 are the
commit's id. It proves nothing about who made it: only a signed release does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.strict_json import Value, encode_canonical, encode_plain, parse_canonical

SCHEMA: Final = "pqreg-draft/1"
COMMIT_DIGITS: Final = 40
_FIELDS = 3


@dataclass(frozen=True, slots=True, order=True)
class DraftFile:
    """A file of a draft."""

    path: ReleasePath
    sha256: Digest
    size: int


def encode_listing(files: Iterable[DraftFile]) -> bytes:
    """The exact bytes of a listing, in whatever order the files come.

    Raises:
        FormatError: if two paths collide, there are too many files or the listing is too long.
    """
    ordered = sorted(files)
    check_distinct(file.path for file in ordered)
    if len(ordered) > limits.FILES:
        raise FormatError("a draft has too many files", expected=f"at most {limits.FILES}", found=len(ordered))
    data = encode_plain([[file.path.text, file.sha256.hex, file.size] for file in ordered])
    if len(data) > limits.DRAFT_LISTING_BYTES:
        raise FormatError(
            "the paths of a draft are too long together", expected=f"a listing of {limits.DRAFT_LISTING_BYTES} bytes",
            found=f"{len(data)} bytes",
        )  # fmt: skip
    return data


def parse_listing(data: bytes) -> tuple[DraftFile, ...]:
    """Read a listing.

    Raises:
        FormatError: if ``data`` is not exactly what ``encode_listing`` writes.
    """
    value = parse_canonical(data, what="the listing of a draft", limit=limits.DRAFT_LISTING_BYTES)
    if not isinstance(value, list) or len(value) > limits.FILES:
        raise FormatError("the listing of a draft is malformed", expected=f"an array of at most {limits.FILES} files")
    files = tuple(map(_file, value))
    if any(one.path >= other.path for one, other in pairwise(files)):
        raise FormatError("the listing of a draft is malformed", expected="paths in ascending order")
    check_distinct(file.path for file in files)
    return files


def _file(value: Value) -> DraftFile:
    if isinstance(value, list) and len(value) == _FIELDS:
        path, sha256, size = value
        if isinstance(path, str) and isinstance(sha256, str) and type(size) is int and 0 <= size <= limits.FILE_BYTES:
            return DraftFile(ReleasePath(path), Digest(sha256), size)
    raise FormatError("a file of a draft is malformed", expected="[path, sha256 hex, size]", found=repr(value)[:120])


def commit_id(*, listing: bytes, parent: str | None, title: str, message: str, author: str, created: datetime) -> str:
    """The id of a draft commit: 40 hex digits of the SHA-256 of its canonical description.

    Raises:
        FormatError: if a text cannot be written as UTF-8.
    """
    description = {
        "author": author,
        "created": format_instant(created),
        "files": Digest.of(listing).hex,
        "message": message,
        "parent": parent,
        "schema": SCHEMA,
        "title": title,
    }
    return Digest.of(encode_canonical(description)).hex[:COMMIT_DIGITS]
