# SPDX-License-Identifier: Apache-2.0
"""A file of a revision as an answer: its bytes, one range of them, or where they are.

``ETag`` is the SHA-256 of the whole, and clients name their cached files by it. A HEAD never redirects, so that no URL
is made that nobody uses; a GET does where blobs are in an object store. Its URL is a credential for a few minutes:
nobody may keep it. What was asked for by commit never changes and may be kept, unless it is a draft, which may be
withdrawn from sight; a receipt may yet be bettered. Browsers are told to save, not to show: a model's files are its
publisher's, and this is our origin.
"""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pq_registry.errors import EntryNotFound, NotFound
from pq_registry.format.name import RepositoryName
from pq_registry.server.answers import etags
from pq_registry.server.bodies import OCTETS_TYPE
from pq_registry.server.download import BlobResponse
from pq_registry.server.hub.answers import revision_headers
from pq_registry.server.ranges import ByteRange, parse_range
from pq_registry.service.access import Caller
from pq_registry.service.hub.model import HubFile, Revision
from pq_registry.service.registry import Registry
from pq_registry.service.resolve import LocatedBlob
from pq_registry.storage.blobs import BlobReader

_YEAR_SECONDS = 365 * 24 * 3600


class InlineReader:
    """Bytes that are in memory, read as a blob is."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Their number."""
        return len(self._data)

    def read(self, offset: int, length: int) -> bytes:
        """Some of them."""
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing is held open."""


def obtain_file(
    service: Registry, caller: Caller, name: RepositoryName, revision: str, path: str
) -> tuple[Revision, HubFile, BlobReader | LocatedBlob]:
    """A file of a revision, and its bytes or where they are.

    Raises:
        NotFound, RevisionNotFound, EntryNotFound: if there is none of them for the caller.
        BlobDamaged: if its bytes were found to be lost.
        StorageError: if the store fails.
    """
    found, file = service.revisions.obtain(caller, name, revision, path)
    return found, file, _open(service, caller, file)


def _open(service: Registry, caller: Caller, file: HubFile) -> BlobReader | LocatedBlob:
    """A file's bytes, or where they are.

    Raises:
        EntryNotFound: if the bytes are not there any more: the draft was dropped meanwhile.
        BlobDamaged: if they were found to be lost.
        StorageError: if the store fails.
    """
    if file.inline is not None:
        return InlineReader(file.inline)
    try:
        return service.resolving.obtain_blob(caller, file.sha256)
    except NotFound as error:
        raise EntryNotFound(error.message, found=f"no bytes of {file.path!r}"[:200]) from error


def file_headers(caller: Caller, revision: Revision, file: HubFile) -> dict[str, str]:
    """The headers of a file, whatever of it is sent."""
    return {
        **revision_headers(revision),
        "ETag": f'"{file.sha256.hex}"',
        "X-Linked-Etag": f'"{file.sha256.hex}"',
        "X-Linked-Size": str(file.size),
        "Accept-Ranges": "bytes",
        "Cache-Control": _keeping(caller, revision, file),
        "Content-Type": OCTETS_TYPE,
        "Content-Disposition": "attachment",
    }


def _keeping(caller: Caller, revision: Revision, file: HubFile) -> str:
    if revision.release is None:
        return "no-store"
    audience = "public" if caller.public_read else "private"
    if revision.name is not None or file.inline is not None:
        return f"{audience}, no-cache"
    return f"{audience}, max-age={_YEAR_SECONDS}, immutable"


def file_answer(request: Request, headers: dict[str, str], file: HubFile, source: BlobReader | LocatedBlob) -> Response:
    """The answer to a GET or HEAD; closes ``source`` in any case.

    Raises:
        HTTPException: 416 if the range cannot be served.
    """
    if headers["ETag"] in etags(request):
        _close(source)
        return Response(status_code=304, headers=headers)
    if isinstance(source, LocatedBlob):
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(file.size)})
        elsewhere = {
            "Location": source.request.url,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        kept = {key: value for key, value in headers.items() if key not in ("Content-Type", "Content-Disposition")}
        return Response(status_code=302, headers={**kept, **elsewhere})
    try:
        unchanged = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
        part = parse_range(request.headers.get("range") if unchanged else None, file.size)
    except HTTPException:
        source.close()
        raise
    if part is None:
        return BlobResponse(source, ByteRange(0, file.size, file.size), status=200, headers=headers)
    ranged = {**headers, "Content-Range": part.content_range}
    return BlobResponse(source, part, status=206, headers=ranged)


def _close(source: BlobReader | LocatedBlob) -> None:
    if not isinstance(source, LocatedBlob):
        source.close()
