# SPDX-License-Identifier: Apache-2.0
"""Files and folders of a revision as the Hub's clients read them. docs/spec/hub.md.

Every file is shown as a large one, by its SHA-256, so that ``hf cache verify`` compares SHA-256. ``oid`` is what git
would call the pointer to it, which is what the Hub says of large files. Folders have no ids here: theirs is made of the
commit and the path. Nothing of Xet's read side is ever named.

All functions take files sorted by path. They ask nothing else of a file than what ``File`` has, so the service and the
gateway both answer by them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from pq_registry import limits
from pq_registry.format.digest import Digest
from pq_registry.format.instant import format_instant

Json = dict[str, Any]
_AFTER_SLASH: Final = "0"
"""The character after ``/``: what begins with ``a/`` sorts before ``a0``."""


class File(Protocol):
    """A file of a revision."""

    @property
    def path(self) -> str:
        """Its path."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    @property
    def sha256(self) -> Digest:
        """The digest of its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitView:
    """A commit: 40 hex digits, who made it when, what it says of itself, and whether anybody signed it."""

    id: str
    title: str
    message: str
    author: str
    date: datetime
    signed: bool = True


def pointer(file: File) -> bytes:
    """The Git LFS pointer to a file: what a git repository would hold in its place."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256.hex}\nsize {file.size}\n"
    return text.encode("ascii")


def git_id(data: bytes) -> str:
    """What git calls a file of these bytes. It names, and proves nothing."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data, usedforsecurity=False).hexdigest()


def file_item(file: File, last: CommitView | None = None) -> Json:
    """A file in a tree, with the commit it came by if that is asked for."""
    pointed = pointer(file)
    item: Json = {
        "type": "file",
        "oid": git_id(pointed),
        "size": file.size,
        "path": file.path,
        "lfs": {"oid": file.sha256.hex, "size": file.size, "pointerSize": len(pointed)},
    }
    return item if last is None else {**item, "lastCommit": _last(last)}


def folder_item(path: str, commit: str, last: CommitView | None = None) -> Json:
    """A folder in a tree of ``commit``."""
    item: Json = {"type": "directory", "oid": git_id(f"{commit}\0{path}".encode()), "size": 0, "path": path}
    return item if last is None else {**item, "lastCommit": _last(last)}


def _last(commit: CommitView) -> Json:
    return {"id": commit.id, "title": commit.title, "date": date(commit.date)}


@dataclass(frozen=True, slots=True)
class Page:
    """Items of a tree, and where the next page begins; None behind the last."""

    items: list[Json]
    following: int | None


def has_folder(files: Sequence[File], path: str) -> bool:
    """Whether ``files``, sorted by path, have any below ``path``; the root is always there."""
    start = _below(files, path).start
    return not path or (start < len(files) and files[start].path.startswith(f"{path}/"))


def tree_page(
    files: Sequence[File],
    folder: str,
    *,
    commit: str,
    recursive: bool,
    start: int = 0,
    limit: int = limits.HUB_TREE_ITEMS,
    last: CommitView | None = None,
) -> Page:
    """One page of what is in ``folder`` ('' is the root), from the file ``start`` of ``files`` on.

    Files are sorted by path and pages end after a file or a whole folder, so ``start`` says all that was listed.
    """
    within = _below(files, folder)
    position = min(max(within.start, start), within.stop)
    prefix = len(folder) + 1 if folder else 0
    before = files[position - 1].path if position > within.start else ""
    items: list[Json] = []
    while position < within.stop:
        if len(items) >= limit:
            return Page(items, position)
        path = files[position].path
        for parent in _new_folders(path, before, prefix):
            items.append(folder_item(parent, commit, last))
            if not recursive:
                break
        before = path
        if recursive or "/" not in path[prefix:]:
            items.append(file_item(files[position], last))
            position += 1
        else:
            position = _below(files, path[: path.index("/", prefix)]).stop
    return Page(items, None)


def _new_folders(path: str, before: str, prefix: int) -> Iterator[str]:
    """Folders of ``path`` that ``before``, the file listed last, is not in."""
    end = path.find("/", prefix)
    while end >= 0:
        if not before.startswith(path[: end + 1]):
            yield path[:end]
        end = path.find("/", end + 1)


def _below(files: Sequence[File], folder: str) -> range:
    if not folder:
        return range(len(files))
    start = bisect_left(files, f"{folder}/", key=_path)
    return range(start, bisect_left(files, folder + _AFTER_SLASH, lo=start, key=_path))


def _path(file: File) -> str:
    return file.path


def path_items(
    files: Sequence[File], paths: Iterable[str], *, commit: str, last: CommitView | None = None
) -> list[Json]:
    """Files and folders by their paths; what is not there is left out, as on the Hub."""
    items = []
    for given in dict.fromkeys(paths):
        path = given.strip("/")
        at = bisect_left(files, path, key=_path)
        if at < len(files) and files[at].path == path:
            items.append(file_item(files[at], last))
        elif path and has_folder(files, path):
            items.append(folder_item(path, commit, last))
    return items


def find_file(files: Sequence[File], path: str) -> int | None:
    """Where the file is among ``files``, sorted by path."""
    at = bisect_left(files, path, key=_path)
    return at if at < len(files) and files[at].path == path else None


def siblings(files: Iterable[File], *, blobs: bool) -> list[Json]:
    """The files of a model, with sizes and digests if ``blobs`` are asked for."""
    if not blobs:
        return [{"rfilename": file.path} for file in files]
    found = []
    for file in files:
        pointed = pointer(file)
        lfs = {"sha256": file.sha256.hex, "size": file.size, "pointerSize": len(pointed)}
        found.append({"rfilename": file.path, "blobId": git_id(pointed), "size": file.size, "lfs": lfs})
    return found


def date(instant: datetime) -> str:
    """An instant as the Hub writes it, to the millisecond."""
    return format_instant(instant.replace(microsecond=0)).removesuffix("Z") + ".000Z"
