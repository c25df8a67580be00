# SPDX-License-Identifier: Apache-2.0
"""What stands in a destination that a pull did not put there, found before anything is fetched or removed.

A release is exactly its files, so other files are refused. Directories are no files: empty ones are let be, but one
that stands where a file is to stand would stop the pull half-way, after the old release was taken apart.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from pq_registry.client.directory import TOLERATED
from pq_registry.client.tree import Tree
from pq_registry.durable import TEMPORARY_SUFFIX, reported
from pq_registry.errors import UsageError

_LEFTOVER = re.compile(r"\.(?:.*\.)?[0-9a-f]{16}" + re.escape(TEMPORARY_SUFFIX), re.ASCII | re.DOTALL)


def refuse_foreign(tree: Tree, known: set[str], *, what: str, links: bool = False) -> None:
    """See that a directory holds nothing but files of ``known`` paths, and what tools leave there.

    Args:
        tree: the directory.
        known: paths of files that may be there.
        what: a word for what the directory may hold.
        links: whether a symbolic link may stand for a file, because it will be replaced.

    Raises:
        UsageError: naming some of what else is there.
        StorageError: if a directory cannot be read.
    """
    foreign = []
    with reported("read the directory", tree.path):
        for entry in tree.walk(skip=TOLERATED):
            parts = tuple(entry.text.split("/"))
            if entry.text in known and (entry.regular or (links and entry.link is not None)):
                continue
            if _LEFTOVER.fullmatch(parts[-1]) and (links or len(parts) == 1):
                tree.unlink(parts)  # of an interrupted write of ours: only the holder of the lock writes here
            else:
                foreign.append(entry.text if entry.regular else f"{entry.text} (no regular file)")
    if foreign:
        raise UsageError(
            f"{tree.path} holds files that are not of a {what}",
            expected="a new or empty directory, or one with an older release",
            found=", ".join(repr(text) for text in sorted(foreign)[:5]) + (", ..." if len(foreign) > 5 else ""),
            hint="choose another directory, or move these files away",
        )


def make_room(tree: Tree, places: Iterable[str], *, removed: AbstractSet[str] = frozenset()) -> None:
    """See that no directory stands where a file is to stand; one with no files in it is removed.

    Args:
        tree: the directory.
        places: paths of files that will be written.
        removed: paths of files that will be removed before that, and their directories with them.

    Raises:
        UsageError: naming such a directory that holds other files.
        StorageError: if a directory cannot be read or removed.
    """
    with reported("make room in", tree.path):
        occupied = [parts for text in sorted(places) if _is_directory(tree, parts := tuple(text.split("/")))]
        for parts in occupied:
            inside = sorted(entry.text for entry in tree.walk(below=parts) if entry.text not in removed)
            if inside:
                raise UsageError(
                    f"{tree.path.joinpath(*parts)} is a directory",
                    expected="nothing there, or a file, because the release has a file of that name",
                    found=f"a directory that holds {inside[0]!r}" + (" and more" if len(inside) > 1 else ""),
                    hint="move that directory away, or choose another directory to pull into",
                )
        for parts in occupied:
            tree.remove_empty(parts)


def _is_directory(tree: Tree, parts: tuple[str, ...]) -> bool:
    status = tree.status(parts)
    return status is not None and stat.S_ISDIR(status.st_mode)
