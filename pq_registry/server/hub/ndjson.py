# SPDX-License-Identifier: Apache-2.0
"""A commit as the Hub's clients send it: one JSON object per line, a header first, then what changes.

::

    {"key": "header", "value": {"summary": "…", "description": "…", "parentCommit": "…"}}
    {"key": "file", "value": {"path": "config.json", "encoding": "base64", "content": "…"}}
    {"key": "lfsFile", "value": {"path": "model.safetensors", "algo": "sha256", "oid": "…", "size": 1}}
    {"key": "deletedFile", "value": {"path": "old.txt"}}
    {"key": "deletedFolder", "value": {"path": "old"}}

One line at a time is in memory. ``size`` of an lfsFile may be missing: a copy of a file that is there. A path that
occurs twice is refused: which of the two would it be?
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import Request
from starlette.exceptions import HTTPException

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.strict_json import decode_base64, parse_strict
from pq_registry.server.bodies import chunks
from pq_registry.server.hub import reading
from pq_registry.service.hub.changes import Changes

NDJSON_TYPE = "application/x-ndjson"
_COMMIT = re.compile(r"[0-9a-fA-F]{5,40}", re.ASCII)
_WHAT = "a line of the commit"


@dataclass(slots=True)
class CommitBody:
    """What a commit says, as far as it was read. ``parent`` may be the beginning of a commit's id."""

    title: str = ""
    message: str = ""
    parent: str | None = None
    put: dict[str, tuple[Digest, int | None]] = field(default_factory=dict)
    deleted_files: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)
    _paths: set[str] = field(default_factory=set)
    _begun: bool = False

    def changes(self) -> Changes:
        """What it changes."""
        return Changes(put=self.put, deleted_files=self.deleted_files, deleted_folders=self.deleted_folders)

    def take(self, line: bytes) -> tuple[str, bytes] | None:
        """Take one line; answers path and bytes of a file that is within it, for ``put_file``.

        Raises:
            FormatError: if it is malformed, or too much.
        """
        entry = reading.as_object(parse_strict(line, what=_WHAT, limit=limits.HUB_COMMIT_LINE_BYTES), _WHAT)
        key, value = reading.text(entry, "key"), reading.as_object(entry.get("value"), _WHAT)
        if (key == "header") == self._begun:
            raise FormatError("the commit is malformed", expected="one header, in its first line")
        self._begun = True
        if key == "header":
            self._take_header(value)
            return None
        path = reading.text(value, "path")
        if path in self._paths:
            raise FormatError("the commit names a path twice", found=repr(path)[:200])
        if len(self._paths) >= limits.HUB_COMMIT_LINES:
            raise FormatError("the commit changes too much", expected=f"at most {limits.HUB_COMMIT_LINES} paths")
        self._paths.add(path)
        return self._take_change(key, path, value)

    def put_file(self, path: str, digest: Digest, size: int) -> None:
        """A file that came within the commit is in the store."""
        self.put[path] = (digest, size)

    def end(self) -> None:
        """All lines have been taken.

        Raises:
            FormatError: if there was none.
        """
        if not self._begun:
            raise FormatError("the commit is empty", expected="a header, then a line for each change")

    def _take_header(self, value: reading.Object) -> None:
        self.title = reading.text(value, "summary", default="").strip() or "Upload"
        self.message = reading.text(value, "description", default="")
        parent = reading.text(value, "parentCommit", default="")
        if parent and not _COMMIT.fullmatch(parent):
            raise FormatError("the parent is no commit", expected="5 to 40 hex digits", found=repr(parent)[:80])
        self.parent = parent.lower() or None

    def _take_change(self, key: str, path: str, value: reading.Object) -> tuple[str, bytes] | None:
        if key == "file":
            if reading.text(value, "encoding", default="base64") != "base64":
                raise FormatError("a file of the commit is encoded otherwise", expected="base64")
            content = reading.text(value, "content")
            return path, decode_base64(content, what=_WHAT, limit=limits.HUB_COMMIT_LINE_BYTES)
        if key == "lfsFile":
            if reading.text(value, "algo", default="sha256") != "sha256":
                raise FormatError("a file of the commit is named by another digest", expected="sha256")
            size = None if value.get("size") is None else reading.number(value, "size", most=limits.FILE_BYTES)
            self.put[path] = (reading.oid(value), size)
        elif key in ("deletedFile", "deletedFolder"):
            (self.deleted_files if key == "deletedFile" else self.deleted_folders).append(path)
        else:
            raise FormatError(
                "the commit asks for something unknown", found=repr(key)[:80],
                expected="header, file, lfsFile, deletedFile or deletedFolder",
            )  # fmt: skip
        return None


async def lines(request: Request) -> AsyncIterator[bytes]:
    """The lines of the body, without empty ones.

    Raises:
        HTTPException: if the body is of another type, too large or too slow.
        FormatError: if a line is too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != NDJSON_TYPE or "content-encoding" in request.headers:
        raise HTTPException(415, f"expected Content-Type {NDJSON_TYPE}, found {kind[:100] or 'none'}")
    buffer = bytearray()
    async for chunk in chunks(request, limits.HUB_COMMIT_BYTES):
        looked = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", looked)) >= 0:
            line = bytes(buffer[:end]).strip()
            del buffer[: end + 1]
            looked = 0
            if line:
                yield line
        if len(buffer) > limits.HUB_COMMIT_LINE_BYTES:
            raise FormatError(
                "a line of the commit is too long", expected=f"at most {limits.HUB_COMMIT_LINE_BYTES} bytes",
                hint="ask how to send the file (preupload); large files do not go within a commit",
            )  # fmt: skip
    if buffer.strip():
        yield bytes(buffer).strip()
