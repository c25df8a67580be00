# SPDX-License-Identifier: Apache-2.0
"""What a commit changes about the files of a draft.

Everything is applied to the files of the parent: copies are read there, then files and folders are deleted, then
copies and new files are put. A path that verifiers skip and that is no evidence (``.gitattributes`` and the like) is
accepted and not kept, because no release could have it. What every release makes anew may be "deleted" without effect:
a client that works on a signed revision sees those files, a draft does not have them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pq_registry import limits
from pq_registry.errors import EntryNotFound, FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.draft import DraftFile
from pq_registry.format.files import MANIFEST_NAME
from pq_registry.format.path import ReleasePath
from pq_registry.format.sealing import INNER_NAME
from pq_registry.format.statement import EVIDENCE, is_ignored

Files = Mapping[str, tuple[Digest, int]]
"""The files of a draft: digest and size by path."""
_MADE_ANEW = frozenset({MANIFEST_NAME, *EVIDENCE})
_ROOTS = frozenset({MANIFEST_NAME, INNER_NAME, *EVIDENCE})
_SEALED = "sealed/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """A commit's changes. ``put`` are blobs the service holds; a size of None is that of the blob.

    ``copied`` names for each new path the path in the parent it is copied from.
    """

    put: Mapping[str, tuple[Digest, int | None]] = field(default_factory=dict)
    deleted_files: Collection[str] = ()
    deleted_folders: Collection[str] = ()
    copied: Mapping[str, str] = field(default_factory=dict)


def is_kept(path: str) -> bool:
    """Whether a draft keeps a file of this path: evidence, and whatever a release could have."""
    return path in EVIDENCE or not is_ignored(path)


def is_of_release(path: str) -> bool:
    """Whether only a release has a file of this path: its manifest, its evidence, what is sealed."""
    folded = path.casefold()
    return folded in _ROOTS or folded.startswith(_SEALED)


def apply_changes(files: Files, changes: Changes, sizes: Mapping[Digest, int]) -> dict[str, tuple[Digest, int]]:
    """The files after a commit; ``sizes`` are those of the blobs that are put.

    Raises:
        FormatError: if a path is none, or a size is another than the blob's.
        EntryNotFound: if what is deleted or copied is not there.
    """
    result = dict(files)
    copies = {path: _required(files, source) for path, source in changes.copied.items()}
    for path in changes.deleted_files:
        if result.pop(path, None) is None and is_kept(path) and path not in _MADE_ANEW:
            raise _missing(path)
    for path in _below(result, changes.deleted_folders):
        del result[path]
    result.update(copies)
    for path, (digest, size) in changes.put.items():
        stored = sizes[digest]
        if size not in (None, stored):
            raise FormatError(f"{path}: the size is not that of its bytes", expected=f"{stored} bytes", found=size)
        result[path] = (digest, stored)
    kept = {path: file for path, file in result.items() if path in files or is_kept(path)}
    for path in kept.keys() - files.keys():
        ReleasePath(path)
    return kept


def draft_files(files: Files) -> list[DraftFile]:
    """The same as values, sorted."""
    return sorted(DraftFile(ReleasePath(path), digest, size) for path, (digest, size) in files.items())


def check_words(title: str, message: str) -> None:
    """Refuse what a catalogue or a page could not show.

    Raises:
        FormatError: if a text is too long or holds control characters.
    """
    for what, text, most, allowed in (
        ("title", title, limits.DRAFT_TITLE_CHARS, "\t"),
        ("message", message, limits.DRAFT_MESSAGE_CHARS, "\t\r\n"),
    ):
        odd = any(unicodedata.category(character) in ("Cc", "Cs") and character not in allowed for character in text)
        if len(text) > most or odd:
            raise FormatError(
                f"the {what} of the commit is malformed",
                expected=f"at most {most} characters, none of them a control character",
                found=f"{len(text)} characters",
            )


def _below(files: Files, folders: Collection[str]) -> list[str]:
    """The files in ``folders``. Both may be 100 000, so every path is looked at once, whatever is deleted.

    Raises:
        EntryNotFound: if one of the folders is not there.
    """
    wanted = {folder.rstrip("/") for folder in folders}
    found: set[str] = set()
    below = []
    for path in files if wanted else ():
        above = {path[:end] for end, letter in enumerate(path) if letter == "/"} & wanted
        if above:
            found |= above
            below.append(path)
    for folder in sorted(wanted - found):
        if is_kept(folder):
            raise _missing(f"{folder}/")
    return below


def _required(files: Files, path: str) -> tuple[Digest, int]:
    if path not in files:
        raise _missing(path)
    return files[path]


def _missing(path: str) -> EntryNotFound:
    return EntryNotFound("the draft has no such file", found=repr(path)[:200], hint="list its files and try again")
