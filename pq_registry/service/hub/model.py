# SPDX-License-Identifier: Apache-2.0
"""What the Hub's protocol speaks of, as values.

A *revision* is a repository's files at one commit. A commit is 40 lowercase hex digits: of a release the first 40 of
its digest, of a draft the first 40 of the SHA-256 of its canonical description. Every file is named by the SHA-256 of
its stored bytes, as the Hub's large files are; git's own ids are not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique

from pq_registry.errors import NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", re.ASCII)

_REFS = "refs/"
MAIN = "main"
DRAFT = "draft"
"""What drafts are asked for by, whatever is signed under the same name: ``draft`` is that of main, ``draft/x`` of x."""


@dataclass(frozen=True, slots=True, order=True)
class Commit:
    """The id of a revision: 40 lowercase hex digits."""

    value: str

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless it is one."""
        if not isinstance(self.value, str) or not _COMMIT.fullmatch(self.value):
            raise NameSyntaxError("not a commit", expected="40 lowercase hex digits", found=repr(self.value)[:80])

    @classmethod
    def of_release(cls, release: Digest) -> Commit:
        """The commit that is a release."""
        return cls(release.hex[:40])

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class Branch:
    """The name of a draft: a tag's characters and ``/``, never what reads as a commit, a digest, a path or a ref."""

    value: str

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless the name is well formed."""
        text = self.value
        odd = not isinstance(text, str) or not _BRANCH.fullmatch(text) or _HEX_ID.fullmatch(text)
        taken = not odd and (text.startswith(_REFS) or text.partition("/")[0] == DRAFT)
        if odd or taken or "//" in text or ".." in text or text.endswith(("/", ".")):
            raise NameSyntaxError(
                "not a branch", found=repr(text)[:120],
                expected="letters, digits, '.', '_', '-' and '/'; no digest, nothing below refs or draft",
            )  # fmt: skip

    @classmethod
    def parse(cls, revision: str) -> Branch:
        """The branch that a writer means by ``revision``: ``draft`` and ``draft/x`` are main and x."""
        if revision == DRAFT:
            return cls(MAIN)
        return cls(revision.removeprefix(f"{DRAFT}/").removeprefix("refs/heads/"))

    def __str__(self) -> str:
        return self.value


@unique
class Pointer(StrEnum):
    """What a name that nobody signed is for the Hub's clients."""

    BRANCH = "branch"
    TAG = "tag"


@dataclass(frozen=True, slots=True, order=True)
class HubFile:
    """A file of a revision. ``inline`` are the bytes of one that is made when it is asked for: the evidence."""

    path: str
    size: int
    sha256: Digest
    inline: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A repository's files at one commit, sorted by path.

    ``release`` is None for a draft, which nobody has signed. ``name`` is the tag or draft that was asked for; None if
    it was asked for by commit.
    """

    repository: RepositoryName
    commit: Commit
    name: str | None
    release: Digest | None
    sealed: bool
    title: str
    author: str
    created: datetime
    parent: Commit | None
    files: tuple[HubFile, ...]

    @property
    def is_signed(self) -> bool:
        """Whether it is a release."""
        return self.release is not None
