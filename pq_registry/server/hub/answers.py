# SPDX-License-Identifier: Apache-2.0
"""What every answer to the Hub's clients has in common: headers that say what a revision is, JSON, links to pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from starlette.responses import Response

from pq_registry.format.hubjson import COMMIT_HEADER, RELEASE_HEADER, SIGNED_HEADER
from pq_registry.format.hubtree import CommitView
from pq_registry.format.name import Namespace, RepositoryName
from pq_registry.server.hub.address import base_url
from pq_registry.service.hub.model import Revision


def repository_of(ns: str, name: str) -> RepositoryName:
    """The repository that a path names.

    Raises:
        NameSyntaxError: if it names none.
    """
    return RepositoryName(Namespace(ns), name)


def revision_headers(revision: Revision) -> dict[str, str]:
    """Which commit an answer is about, and whether anybody signed it."""
    headers = {COMMIT_HEADER: str(revision.commit), SIGNED_HEADER: str(revision.is_signed).lower()}
    if revision.release is not None:
        headers[RELEASE_HEADER] = str(revision.release)
    return headers


def commit_of(revision: Revision) -> CommitView:
    """The commit that a revision is; the Hub names with each file the one that it came by, and here that is this."""
    return CommitView(
        id=str(revision.commit), title=revision.title, message="", author=revision.author, date=revision.created,
        signed=revision.is_signed,
    )  # fmt: skip


def encode_json(content: object) -> bytes:
    """JSON as it is sent. A model may have 100 000 files, so that is work for a thread."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def hub_json(content: object, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    """A JSON answer: unlike ours, often an array. ``content`` may be encoded already."""
    body = content if isinstance(content, bytes) else encode_json(content)
    return Response(body, status_code=status, headers=dict(headers or {}), media_type="application/json")


def link_to(request: Request, path: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The header that leads to the next page: the Hub's clients take nothing but a whole URL."""
    query = urlencode({key: value for key, value in parameters.items() if value not in (None, False, ())}, doseq=True)
    return {"Link": f'<{base_url(request)}{quote(path)}?{query}>; rel="next"'}
