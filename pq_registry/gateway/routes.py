# SPDX-License-Identifier: Apache-2.0
"""The Hub's protocol, its reading side, over verified releases. docs/spec/hub.md says what each route answers.

Paths are matched as they were sent: a revision is one segment (``dev%2Fx``). Whatever is not here is refused; what
would write, with a word on where to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, quote, unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from pq_registry import limits
from pq_registry.errors import AccessDenied, NameSyntaxError, NotFound
from pq_registry.format.hubjson import ModelView, commit_item, model_item, references
from pq_registry.format.hubtree import CommitView, has_folder, path_items, siblings, tree_page
from pq_registry.format.name import RepositoryName
from pq_registry.gateway.answers import json_answer, refusal, revision_headers
from pq_registry.gateway.boundary import ROUTE
from pq_registry.gateway.releases import Releases
from pq_registry.gateway.served import Served, ServedFile
from pq_registry.gateway.stream import Downloads, ShardResponse
from pq_registry.server.ranges import ByteRange, parse_range
from pq_registry.service.hub.model import MAIN

_OCTETS = "application/octet-stream"
_TRUE = frozenset({"1", "true", "True"})


class RawRoute(Route):
    """A route matched against the path as it was sent, whose parameters are decoded afterwards."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for this route."""
        if scope["type"] != "http":
            return Match.NONE, {}
        raw: bytes | None = scope.get("raw_path")
        path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
        match, child = super().matches({**scope, "path": path})
        if match is not Match.NONE:
            child["path_params"] = {name: unquote(value) for name, value in child["path_params"].items()}
            child[ROUTE] = self.path
        return match, child


class HubRoutes:
    """Handlers over the releases and downloads of one gateway."""

    def __init__(self, releases: Releases, downloads: Downloads) -> None:
        self._releases = releases
        self._downloads = downloads

    def routes(self) -> list[Route]:
        """All of them; the last one refuses."""
        model, get = "/api/models/{ns}/{name}", ["GET"]
        table: list[tuple[str, Callable[[Request], Awaitable[Response]], list[str]]] = [
            ("/api/models", self.models, get),
            ("/api/whoami-v2", self.whoami, get),
            (model, self.model, get),
            (model + "/revision/{revision}", self.model, get),
            (model + "/tree/{revision}", self.tree, get),
            (model + "/tree/{revision}/{path:path}", self.tree, get),
            (model + "/paths-info/{revision}", self.paths, ["POST"]),
            (model + "/refs", self.refs, get),
            (model + "/commits/{revision}", self.commits, get),
            (model + "/auth-check", self.readable, get),
            ("/{ns}/{name}/resolve/{revision}/{path:path}", self.file, ["GET", "HEAD"]),
            ("/{ns}/{name}/raw/{revision}/{path:path}", self.file, ["GET", "HEAD"]),
            ("/{rest:path}", self.nothing, ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
        ]
        return [RawRoute(path, handler, methods=methods) for path, handler, methods in table]

    async def model(self, request: Request) -> Response:
        """A repository at a revision."""
        served = await self._find(request)
        expand = request.query_params.getlist("expand")
        item = model_item(_view(served), expand)
        if not expand or "siblings" in expand:
            item["siblings"] = siblings(served.files, blobs=request.query_params.get("blobs") in _TRUE)
        item["pqreg"] = {**item["pqreg"], "proven": served.proven, "notes": list(served.verified.notes)}
        return json_answer(item, revision_headers(served))

    async def tree(self, request: Request) -> Response:
        """What is in a folder, page by page."""
        served = await self._find(request)
        query, folder = request.query_params, request.path_params.get("path", "").strip("/")
        if not has_folder(served.files, folder):
            served.file(folder)  # EntryNotFound, if it is not there at all
        start = query.get("after", "0")
        if not (start.isascii() and start.isdigit() and len(start) < 10):
            raise HTTPException(400, "expected a number after 'after='")
        expand = query.get("expand") in _TRUE
        page = tree_page(
            served.files, folder, commit=served.commit.value, recursive=query.get("recursive") in _TRUE,
            start=int(start), last=_commit(served) if expand else None,
        )  # fmt: skip
        headers = revision_headers(served)
        if page.following is not None:
            kept = {key: query[key] for key in ("recursive", "expand") if key in query}
            path = f"/api/models/{served.verified.release.name}/tree/{served.commit}" + (
                f"/{quote(folder)}" if folder else ""
            )
            link = f"http://{request.headers['host']}{path}?{urlencode({**kept, 'after': page.following})}"
            headers["Link"] = f'<{link}>; rel="next"'
        return json_answer(page.items, headers)

    async def paths(self, request: Request) -> Response:
        """Files and folders by their paths."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limits.REQUEST_BODY_BYTES:
                raise HTTPException(413, "the question is too long")
        try:
            fields = parse_qsl(body.decode("ascii"), max_num_fields=limits.HUB_PATHS)
        except ValueError:
            raise HTTPException(400, "expected paths as a form has them") from None
        served = await self._find(request)
        expand = any(key == "expand" and value in _TRUE for key, value in fields)
        items = path_items(
            served.files, [value for key, value in fields if key == "paths"], commit=served.commit.value,
            last=_commit(served) if expand else None,
        )  # fmt: skip
        return json_answer(items, revision_headers(served))

    async def refs(self, request: Request) -> Response:
        """The tags its source lists. What one leads to is verified when it is asked for."""
        found = await run_in_threadpool(self._releases.tags, _repository(request))
        named = [(one.tag, one.commit.value) for one in found]
        branches = [one for one in named if one[0] == MAIN]
        wanted = request.query_params.get("include_prs") in _TRUE
        return json_answer(references(branches, [one for one in named if one[0] != MAIN], pull_requests=wanted))

    async def commits(self, request: Request) -> Response:
        """The one commit a release is: releases have no history."""
        served = await self._find(request)
        return json_answer([commit_item(_commit(served))], revision_headers(served))

    async def readable(self, request: Request) -> Response:
        """Whether the repository is there."""
        await run_in_threadpool(self._releases.tags, _repository(request))
        return json_answer({})

    async def models(self, request: Request) -> Response:
        """The repositories the sources list."""
        query = request.query_params
        words, author = query.get("search", "").lower(), query.get("author", "").lower()
        limit = query.get("limit", "")
        most = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 6 else limits.HUB_MODEL_ITEMS

        def listed() -> list[dict[str, object]]:
            names = [
                name
                for name in self._releases.repositories()
                if words in name.key and author in ("", str(name.namespace).lower())
            ]
            return [
                {"_id": name.key, "id": str(name), "modelId": str(name), "author": str(name.namespace), "tags": []}
                for name in names[: min(most, limits.HUB_MODEL_ITEMS)]
            ]

        return json_answer(await run_in_threadpool(listed))

    async def whoami(self, _request: Request) -> Response:
        """Nobody in particular: a gateway has one token, the node's."""
        token = {"type": "access_token", "accessToken": {"displayName": "gateway", "role": "read"}}
        return json_answer({"type": "user", "name": "gateway", "fullname": "gateway", "orgs": [], "auth": token})

    async def file(self, request: Request) -> Response:
        """A file, or part of it, verified."""
        served = await self._find(request)
        file = served.file(request.path_params["path"])
        tag = f'"{file.sha256.hex}"'
        headers = {
            **revision_headers(served), "ETag": tag, "X-Linked-Etag": tag, "X-Linked-Size": str(file.size),
            "Accept-Ranges": "bytes", "Content-Type": _OCTETS, "Content-Disposition": "attachment",
        }  # fmt: skip
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        asked = request.headers.get("range") if request.headers.get("if-range", tag) == tag else None
        part = parse_range(asked, file.size)
        status, part = (200, ByteRange(0, file.size, file.size)) if part is None else (206, part)
        if status == 206:
            headers["Content-Range"] = part.content_range
        if request.method == "HEAD" or file.stored is None:
            return _inline(request, file, part, status, headers)
        return ShardResponse(self._downloads, served, file, part, status=status, headers=headers, refusal=refusal)

    async def nothing(self, request: Request) -> Response:
        """What the gateway does not do."""
        if request.method not in ("GET", "HEAD"):
            raise AccessDenied(
                "the gateway only reads", expected="GET or HEAD",
                hint="publish to the registry itself: pqreg push, or HF_ENDPOINT=<the registry>",
            )  # fmt: skip
        raise HTTPException(404, "there is no such thing here")

    async def _find(self, request: Request) -> Served:
        revision = request.path_params.get("revision", MAIN)
        if len(revision) > limits.HUB_REVISION_CHARS:
            raise HTTPException(400, "the revision is too long")
        return await run_in_threadpool(self._releases.find, _repository(request), revision)


def _repository(request: Request) -> RepositoryName:
    try:
        return RepositoryName.parse(f"{request.path_params['ns']}/{request.path_params['name']}")
    except NameSyntaxError as error:
        raise NotFound(error.message, expected=error.expected, found=error.found) from None


def _inline(request: Request, file: ServedFile, part: ByteRange, status: int, headers: dict[str, str]) -> Response:
    body = b"" if request.method == "HEAD" else file.inline[part.start : part.end]
    return Response(body, status_code=status, headers={**headers, "Content-Length": str(part.length)})


def _commit(served: Served) -> CommitView:
    manifest = served.verified.release.manifest
    title = f"Release {served.release}"
    return CommitView(id=served.commit.value, title=title, message="", author=manifest.signer, date=manifest.created)


def _view(served: Served) -> ModelView:
    manifest = served.verified.release.manifest
    return ModelView(
        name=manifest.name, commit=served.commit.value, release=served.release, sealed=served.sealed, private=False,
        created=manifest.created, modified=manifest.created,
    )  # fmt: skip
