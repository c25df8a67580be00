# SPDX-License-Identifier: Apache-2.0
"""The files of an import statement: what the Hub stated of each, what came, and what became of it.

A file was imported as it is, or converted into another format and imported as that, or left out. Of a converted one the
statement says both: what was taken, and what the release holds instead, made by which tools.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final

from pq_registry import limits
from pq_registry.errors import FormatError
from pq_registry.format.digest import Digest
from pq_registry.format.path import ReleasePath
from pq_registry.format.strict_json import Fields, Value

OWN_TOOL: Final = "pq-registry"
TORCH_TOOL: Final = "torch"

_SHA1 = re.compile(r"[0-9a-f]{40}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+!_-]{0,99}", re.ASCII)


@unique
class LeftOut(StrEnum):
    """Why a file of the model is not in the release."""

    IGNORED = "ignored"
    """A name that releases never hold, such as ``.gitattributes``."""
    EXCLUDED = "excluded"
    """The importer said so."""
    EVIDENCE = "evidence"
    """What proves the model's own signature, or its own pqreg.json or import statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertedFile:
    """What the release holds instead of a file of the model: made of it by pq-registry, and by torch if it is weights.

    ``tool`` and ``torch`` are versions.
    """

    path: ReleasePath
    size: int
    sha256: Digest
    tool: str
    torch: str | None = None

    def __post_init__(self) -> None:
        """Raise FormatError for what cannot be."""
        if not 0 <= self.size <= limits.FILE_BYTES:
            raise FormatError(f"{self.path}: the size is impossible", found=self.size)
        for version in (self.tool, "0" if self.torch is None else self.torch):
            if not _VERSION.fullmatch(version):
                raise FormatError(f"{self.path}: a tool's version is wrong", found=repr(version)[:120])

    def to_value(self) -> dict[str, Value]:
        """The members of the JSON value that say this."""
        tools: dict[str, Value] = {OWN_TOOL: self.tool}
        if self.torch is not None:
            tools[TORCH_TOOL] = self.torch
        into: Value = {"path": self.path.text, "sha256": self.sha256.hex, "size": self.size}
        return {"into": into, "tools": tools}

    @classmethod
    def from_fields(cls, fields: Fields) -> ConvertedFile:
        """Take these members. Raises FormatError."""
        into, tools = fields.object("into"), fields.object("tools")
        torch = tools.text(TORCH_TOOL, limit=100) if tools.has(TORCH_TOOL) else None
        made = cls(
            path=into.parsed("path", ReleasePath), size=into.integer("size", maximum=limits.FILE_BYTES),
            sha256=into.parsed("sha256", Digest), tool=tools.text(OWN_TOOL, limit=100), torch=torch,
        )  # fmt: skip
        into.done()
        tools.done()
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file of the model as the Hub stated it: by ``sha256`` or by ``git_sha1``.

    ``found`` is the SHA-256 of what came, and None if the file was left out, for the reason ``left_out``. ``converted``
    is what the release holds instead of it; without that, it holds the file.
    """

    path: ReleasePath
    size: int
    sha256: Digest | None = None
    git_sha1: str | None = None
    found: Digest | None = None
    left_out: LeftOut | None = None
    converted: ConvertedFile | None = None

    def __post_init__(self) -> None:
        """Raise FormatError for contradictions."""
        if (self.sha256 is None) == (self.git_sha1 is None) or (self.found is None) == (self.left_out is None):
            raise FormatError(f"{self.path}: an import states one digest, and either what came or why it was left out")
        if self.left_out is not None and self.converted is not None:
            raise FormatError(f"{self.path}: what was left out cannot have been converted")
        if self.git_sha1 is not None and not _SHA1.fullmatch(self.git_sha1):
            raise FormatError(f"{self.path}: git's id is wrong", expected="40 hex digits", found=self.git_sha1[:80])
        if not 0 <= self.size <= limits.FILE_BYTES:
            raise FormatError(f"{self.path}: the size is impossible", found=self.size)
        if self.sha256 is not None and self.found not in (None, self.sha256):
            raise FormatError(f"{self.path}: what came is not what was stated", expected=self.sha256, found=self.found)

    def to_value(self) -> Value:
        """The JSON value."""
        stated: Value = {"gitSha1": self.git_sha1} if self.sha256 is None else {"sha256": self.sha256.hex}
        value: dict[str, Value] = {"path": self.path.text, "size": self.size, "stated": stated}
        if self.left_out is not None:
            return {**value, "reason": self.left_out.value}
        assert self.found is not None
        made = {} if self.converted is None else self.converted.to_value()
        return {**value, "sha256": self.found.hex, **made}

    @classmethod
    def from_fields(cls, fields: Fields, *, left_out: bool, converted: bool) -> SourceFile:
        """Read the JSON value of a file that was left out, converted, or neither. Raises FormatError."""
        path = fields.parsed("path", ReleasePath)
        size = fields.integer("size", maximum=limits.FILE_BYTES)
        stated = fields.object("stated")
        git = stated.text("gitSha1", limit=40) if stated.has("gitSha1") else None
        sha256 = None if git is not None else stated.parsed("sha256", Digest)
        stated.done()
        reason = fields.parsed("reason", _reason) if left_out else None
        found = None if left_out else fields.parsed("sha256", Digest)
        made = ConvertedFile.from_fields(fields) if converted else None
        fields.done()
        return cls(
            path=path, size=size, sha256=sha256, git_sha1=git, found=found, left_out=reason, converted=made
        )  # fmt: skip


def _reason(text: str) -> LeftOut:
    if text not in set(LeftOut):
        raise FormatError("not a reason to leave a file out", expected=", ".join(LeftOut), found=repr(text)[:80])
    return LeftOut(text)
