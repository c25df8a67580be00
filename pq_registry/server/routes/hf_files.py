# SPDX-License-Identifier: Apache-2.0
"""The Hub's protocol: trees of files, and files. docs/spec/hub.md."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import EntryNotFound, FormatError, RevisionNotFound
from pq_registry.format.hubtree import find_file, has_folder, path_items, tree_page
from pq_registry.format.name import RepositoryName
from pq_registry.format.strict_json import parse_strict
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.bodies import JSON_TYPE, OCTETS_TYPE, read_bytes
from pq_registry.server.guard import Service
from pq_registry.server.heavy import HeavyWork, Looking
from pq_registry.server.hub.answers import commit_of, encode_json, hub_json, link_to, repository_of, revision_headers
from pq_registry.server.hub.rawpath import HubRoute
from pq_registry.server.hub.sending import file_answer, file_headers, obtain_file
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import Revision
from pq_registry.service.registry import Registry

router = APIRouter(route_class=HubRoute, responses=PROBLEMS)
FORM_TYPE = "application/x-www-form-urlencoded"
_BYTES = {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_QUESTION = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "paths": {"type": "array", "items": {"type": "string"}},
                        "expand": {"type": "boolean"},
                    },
                }
            }
            for kind in (FORM_TYPE, JSON_TYPE)
        },
    }
}
Asked = tuple[Caller, Registry, HeavyWork]
"""Who asks, whom, and in which threads."""
Cursor = Annotated[int, Query(ge=0, le=limits.FILES + limits.HUB_TREE_ITEMS)]


@router.get("/api/models/{ns}/{name}/tree/{rev}")
async def list_tree(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    looking: Looking,
    *,
    recursive: bool = False,
    expand: bool = False,
    cursor: Cursor = 0,
) -> Response:
    """The files and folders of a revision, page by page."""
    return await _tree(request, (caller, service, looking), (ns, name, rev, ""), (recursive, expand, cursor))


@router.get("/api/models/{ns}/{name}/tree/{rev}/{path:path}")
async def list_folder(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    path: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    looking: Looking,
    *,
    recursive: bool = False,
    expand: bool = False,
    cursor: Cursor = 0,
) -> Response:
    """The files and folders in one folder of a revision, page by page."""
    return await _tree(request, (caller, service, looking), (ns, name, rev, path), (recursive, expand, cursor))


async def _tree(
    request: Request, asked: Asked, where: tuple[str, str, str, str], how: tuple[bool, bool, int]
) -> Response:
    caller, service, looking = asked
    ns, name, rev, path = where
    recursive, expand, cursor = how
    found, folder = await looking.run(
        _revision_and_folder, service, caller, repository_of(ns, name), rev, path.strip("/")
    )
    if not has_folder(found.files, folder):
        kind = "a file" if find_file(found.files, folder) is not None else "nothing"
        raise EntryNotFound(
            f"{ns}/{name} has no such folder at {found.commit}", commit=str(found.commit), expected="a folder",
            found=f"{kind} at {folder!r}"[:200], hint="list the tree above it",
        )  # fmt: skip
    last = commit_of(found) if expand else None
    page = await looking.run(
        tree_page, found.files, folder, commit=str(found.commit), recursive=recursive, start=cursor, last=last
    )
    headers = revision_headers(found)
    if page.following is not None:
        # By commit: whatever the name comes to stand for meanwhile, the pages are of one revision.
        below = f"/{folder}" if folder else ""
        here = f"/api/models/{ns}/{name}/tree/{found.commit}{below}"
        following = {"recursive": recursive, "expand": expand, "cursor": page.following}
        headers |= link_to(request, here, following)
    return hub_json(page.items, headers)


def _revision_and_folder(
    service: Registry, caller: Caller, name: RepositoryName, rev: str, folder: str
) -> tuple[Revision, str]:
    """What ``rev/folder`` means: the JavaScript client does not encode the slashes of a branch."""
    parts = folder.split("/") if folder else []
    for count in range(min(len(parts), limits.HUB_REVISION_SLASHES) + 1):
        try:
            found = service.revisions.find(caller, name, "/".join([rev, *parts[:count]]))
        except RevisionNotFound:
            continue
        return found, "/".join(parts[count:])
    return service.revisions.find(caller, name, rev), folder


@router.post("/api/models/{ns}/{name}/paths-info/{rev}", openapi_extra=_QUESTION)
async def show_paths(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    caller: Annotated[Caller, Depends(guard.QUERY)],
    service: Service,
    looking: Looking,
) -> Response:
    """The files and folders at some paths of a revision; what is not there is left out."""
    paths, expand = await _asked(request)
    found = await looking.run(service.revisions.find, caller, repository_of(ns, name), rev)
    last = commit_of(found) if expand else None
    items = await looking.run(path_items, found.files, paths, commit=str(found.commit), last=last)
    return hub_json(await looking.run(encode_json, items), revision_headers(found))


async def _asked(request: Request) -> tuple[list[str], bool]:
    """The paths that a body asks for: Python's client sends a form, the JavaScript client JSON.

    Raises:
        FormatError: if it is neither, or asks for too many.
        HTTPException: if it is of another type, too large or too slow.
    """
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON_TYPE
    kind = JSON_TYPE if is_json else FORM_TYPE
    body = await read_bytes(request, kind=kind, limit=limits.REQUEST_BODY_BYTES)
    if is_json:
        value = parse_strict(body, what="the question", limit=limits.REQUEST_BODY_BYTES)
        fields = value if isinstance(value, dict) else {}
        paths, expand = fields.get("paths"), fields.get("expand") is True
    else:
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=limits.HUB_PATHS + 2)
        except ValueError as error:
            raise FormatError("the question is no form", expected=f"at most {limits.HUB_PATHS} paths") from error
        paths = [value for key, value in pairs if key == "paths"]
        expand = any(key == "expand" and value.lower() in ("true", "1") for key, value in pairs)
    texts = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
    if not isinstance(paths, list) or not texts or len(paths) > limits.HUB_PATHS:
        raise FormatError("the question names no paths", expected=f"paths: at most {limits.HUB_PATHS} texts")
    return [str(path) for path in paths], expand


@router.head("/{ns}/{name}/raw/{rev}/{path:path}")
@router.get("/{ns}/{name}/raw/{rev}/{path:path}", responses={200: _BYTES, 206: _BYTES})
@router.head("/{ns}/{name}/resolve/{rev}/{path:path}")
@router.get("/{ns}/{name}/resolve/{rev}/{path:path}", responses={200: _BYTES, 206: _BYTES})
async def get_file(
    request: Request,
    ns: str,
    name: str,
    rev: str,
    path: str,
    caller: Annotated[Caller, Depends(guard.READ)],
    service: Service,
    looking: Looking,
) -> Response:
    """A file of a revision, one range of it, or where it is (302); ``raw`` is the same: no file is a pointer here."""
    found, file, source = await looking.run(obtain_file, service, caller, repository_of(ns, name), rev, path)
    return file_answer(request, file_headers(caller, found, file), file, source)
