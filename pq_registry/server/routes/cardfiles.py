# SPDX-License-Identifier: Apache-2.0
"""Files that a model card refers to: its pictures as pictures, everything else to be saved.

Nothing here can run in the page's name: a picture is one by its first bytes and of a kind that holds no script, another
file comes as an attachment, and neither may load or do anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import EntryNotFound
from pq_registry.format.digest import Digest
from pq_registry.format.manifest import FileEntry
from pq_registry.format.name import RepositoryName
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.bodies import OCTETS_TYPE
from pq_registry.server.download import BlobResponse
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing
from pq_registry.server.pages.cardlinks import found_type, picture_type
from pq_registry.server.ranges import ByteRange
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller
from pq_registry.service.cards.reading import find_file
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS)
_FILE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {OCTETS_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
_SEALED_OFF: Final = {"Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}


@router.get("/models/{ns}/{name}/releases/{hex}/files/{path:path}", responses=_FILE)
async def show_card_file(
    *,
    ns: str,
    name: str,
    hex: str,  # noqa: A002 - the path parameter's published name
    path: str,
    caller: Annotated[Caller, Depends(guard.PAGE_READ)],
    service: Service,
    browsing: Browsing,
) -> Response:
    """A file of a release, as its card shows or links it."""
    return await browsing.run(_file, service, caller, repository_name(ns, name), Digest(hex), path)


def _file(service: Registry, caller: Caller, name: RepositoryName, release: Digest, path: str) -> Response:
    entry = find_file(service.cards.manifest(name, release), path)
    if entry is None:
        raise EntryNotFound(f"no file {path!r} in this release of {name}"[:200])
    picture = _picture(service, entry)
    if picture is not None:
        return picture
    reader = service.resolving.open_blob(caller, entry.sha256)
    headers = {
        **_SEALED_OFF,
        "Content-Type": OCTETS_TYPE,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}",
    }
    return BlobResponse(reader, ByteRange(0, reader.size, reader.size), status=200, headers=headers)


def _picture(service: Registry, entry: FileEntry) -> Response | None:
    if picture_type(entry.path.text) is None or entry.size > limits.CARD_PICTURE_BYTES:
        return None
    data = service.cards.reader.read(entry, limit=limits.CARD_PICTURE_BYTES)
    kind = found_type(data)
    return None if kind is None else Response(data, headers=_SEALED_OFF, media_type=kind)
