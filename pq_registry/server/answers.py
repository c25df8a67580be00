# SPDX-License-Identifier: Apache-2.0
"""Values of the use cases as JSON, and the sentences of the OpenAPI document that every route shares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE as ENVELOPE_TYPE
from pq_registry.format.instant import format_instant
from pq_registry.server.models import ProblemAnswer, RecordedAnswer
from pq_registry.server.problems import MEDIA_TYPE as PROBLEM_TYPE
from pq_registry.service.access import format_namespaces
from pq_registry.service.grants import GrantItem
from pq_registry.service.keys import KeyItem
from pq_registry.service.logsearch import EntryItem
from pq_registry.service.resolve import ReleaseItem, RepositoryItem, TagItem
from pq_registry.service.tokens import TokenItem

Json = dict[str, Any]
ENVELOPE_BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {ENVELOPE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
ENVELOPE_ANSWER: Json = {"content": {ENVELOPE_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
RECORDED: Json = {"model": RecordedAnswer}
RECORDED_ALREADY: Json = {"model": RecordedAnswer, "description": "The same statement was there already"}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem", "content": {PROBLEM_TYPE: {"schema": ProblemAnswer.model_json_schema()}}}
}


def json_body(model: type[BaseModel]) -> Json:
    """How a route's JSON body is documented."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def json_answer(content: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def envelope_answer(request: Request, digest: Digest, envelope: bytes) -> Response:
    """The exact bytes of a statement that may be replaced, or 304 for whoever has them."""
    headers = {"ETag": f'"{digest.hex}"', "Cache-Control": "no-cache"}
    if headers["ETag"] in etags(request):
        return Response(status_code=304, headers=headers)
    return Response(envelope, headers=headers, media_type=ENVELOPE_TYPE)


def etags(request: Request) -> set[str]:
    """The entity tags of If-None-Match."""
    return {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}


def created(is_new: bool) -> int:
    """201 for what is new, 200 for what was there already."""
    return 201 if is_new else 200


def repository_item(item: RepositoryItem) -> Json:
    """A repository in a listing."""
    return {
        "name": item.name,
        "releases": item.releases,
        "tags": item.tags,
        "updated": format_instant(item.updated),
    }


def release_item(item: ReleaseItem) -> Json:
    """A release."""
    return {
        "digest": str(item.digest),
        "statement": item.digest.hex,
        "manifest": str(item.manifest),
        "content": str(item.content),
        "signer": item.signer,
        "size": item.size,
        "files": item.files,
        "created": format_instant(item.created),
        "sealed": item.sealed,
    }


def grant_item(item: GrantItem) -> Json:
    """A grant."""
    return {
        "release": item.release.hex,
        "recipient": item.recipient,
        "statement": item.statement.hex,
        "sequence": item.sequence,
        "issued": format_instant(item.issued),
        "expires": None if item.expires is None else format_instant(item.expires),
        "withdrawn": item.withdrawn,
        "signer": item.signer,
    }


def key_item(item: KeyItem) -> Json:
    """A certified recipient."""
    return {
        "recipient": item.recipient,
        "node": item.node,
        "statement": item.statement.hex,
        "not_after": None if item.not_after is None else format_instant(item.not_after),
        "signer": item.signer,
    }


def tag_item(item: TagItem) -> Json:
    """A tag."""
    return {
        "tag": item.tag,
        "target": None if item.target is None else str(item.target),
        "sequence": item.sequence,
        "signer": item.signer,
        "issued": format_instant(item.issued),
        "expires": format_instant(item.expires),
    }


def log_entry(item: EntryItem) -> Json:
    """A leaf of the log."""
    return {
        "index": item.index,
        "time": format_instant(item.time),
        "kind": item.kind,
        "name": item.name,
        "identity": item.identity,
        "statement": item.statement.hex,
    }


def token_item(item: TokenItem) -> Json:
    """A token, without its secret."""
    return {
        "id": item.id,
        "role": item.rights.role.value,
        "namespaces": format_namespaces(item.rights.namespaces),
        "created": format_instant(item.created),
        "expires": format_instant(item.expires),
        "revoked": None if item.revoked is None else format_instant(item.revoked),
        "note": item.note,
    }
