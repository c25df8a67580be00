# SPDX-License-Identifier: Apache-2.0
"""The routes of drafts, as methods that ``client.transport.RegistryClient`` has, and a draft's name as users write it.

What is answered is the registry's account of what nobody has signed: good for listings, and for knowing what to read
and compare (``client.signdraft``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from pq_registry import limits
from pq_registry.client.answers import digest_text, read
from pq_registry.client.exchange import Exchanger
from pq_registry.client.problems import printable
from pq_registry.errors import FormatError, NameSyntaxError
from pq_registry.format.digest import Digest
from pq_registry.format.draft import DraftFile
from pq_registry.format.instant import parse_instant
from pq_registry.format.name import DEFAULT_TAG, RepositoryName
from pq_registry.format.path import ReleasePath, check_distinct
from pq_registry.format.strict_json import Fields

_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", re.ASCII)
_DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class DraftReference:
    """``namespace/name@draft`` or ``namespace/name@draft/branch``."""

    repository: RepositoryName
    branch: str

    @classmethod
    def parse(cls, text: str) -> DraftReference:
        """Read it.

        Raises:
            NameSyntaxError: if it is not of that form.
        """
        name, at, rest = text.partition("@")
        word, slash, branch = rest.partition("/")
        if not at or word != _DRAFT or (slash and not branch):
            raise NameSyntaxError(
                "not a draft", expected="namespace/name@draft or …@draft/branch", found=repr(text)[:120]
            )
        return cls(RepositoryName.parse(name), parse_branch(branch or DEFAULT_TAG))

    def __str__(self) -> str:
        return f"{self.repository}@{_DRAFT}" + ("" if self.branch == DEFAULT_TAG else f"/{self.branch}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftItem:
    """A branch or an unsigned tag (``kind``); ``release`` is what it points to if that is a release."""

    name: str
    kind: str
    head: str
    release: Digest | None
    files: int
    size: int
    title: str
    updated: datetime


@dataclass(frozen=True, slots=True)
class DraftView:
    """A draft and its files, by code point of the path."""

    item: DraftItem
    files: tuple[DraftFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class DraftRoutes:
    """Reads and drops drafts."""

    exchanger: Exchanger

    def drafts(self, name: RepositoryName) -> tuple[DraftItem, ...]:
        """The drafts of a repository that the token may read, by name.

        Raises:
            NotFound: if there is no such repository.
            TransportError: if the registry does not answer as it should.
        """
        answer = self.exchanger.request("GET", _path(name), limit=limits.JSON_RESPONSE_BYTES)
        return read(answer.body, _items, what="the answer to GET drafts")

    def draft(self, name: RepositoryName, branch: str) -> DraftView:
        """A draft and its files. Raises NotFound."""
        answer = self.exchanger.request("GET", _path(name, branch), limit=limits.JSON_RESPONSE_BYTES)
        return read(answer.body, _view, what="the answer to GET draft")

    def drop_draft(self, name: RepositoryName, branch: str, *, head: str | None = None) -> None:
        """Drop a draft; with ``head`` only if it still points there. Raises NotFound, or Conflict if it has moved."""
        query = "" if head is None else f"?head={quote(head, safe='')}"
        self.exchanger.request("DELETE", _path(name, branch) + query, limit=limits.PROBLEM_BYTES)


def parse_commit(text: str) -> str:
    """The id of a draft commit.

    Raises:
        NameSyntaxError: if it is none.
    """
    if not _COMMIT.fullmatch(text):
        raise NameSyntaxError("not a commit", expected="40 lowercase hex digits", found=repr(text)[:80])
    return text


def parse_branch(text: str) -> str:
    """The name of a draft.

    Raises:
        NameSyntaxError: if it is none.
    """
    if not _BRANCH.fullmatch(text) or "//" in text or ".." in text or text.endswith(("/", ".")):
        raise NameSyntaxError("not a branch", expected="letters, digits, '.', '_', '-' and '/'", found=repr(text)[:120])
    return text


def _path(name: RepositoryName, branch: str | None = None) -> str:
    base = f"/v1/repos/{quote(str(name.namespace), safe='')}/{quote(name.name, safe='')}/drafts"
    return base if branch is None else f"{base}/{quote(branch, safe='/')}"


def _items(fields: Fields) -> tuple[DraftItem, ...]:
    return tuple(map(_item, fields.objects("items", limit=limits.DRAFT_NAMES)))


def _item(fields: Fields) -> DraftItem:
    kind = fields.text("kind")
    if kind not in ("branch", "tag"):
        fields.fail("kind", "branch or tag", kind)
    title = fields.take("title")
    return DraftItem(
        name=fields.parsed("name", parse_branch),
        kind=kind,
        head=fields.parsed("head", parse_commit),
        release=fields.optional("release", digest_text),
        files=fields.integer("files"),
        size=fields.integer("size"),
        title=printable(title, limits.DRAFT_TITLE_CHARS) if isinstance(title, str) else "",
        updated=fields.parsed("updated", parse_instant),
    )


def _view(fields: Fields) -> DraftView:
    item = _item(fields)
    files = tuple(sorted(map(_file, fields.objects("listing", limit=limits.FILES))))
    check_distinct(file.path for file in files)
    if item.release is None and len(files) != item.files:
        raise FormatError("the listing of the draft is not complete", expected=item.files, found=len(files))
    return DraftView(item, files)


def _file(fields: Fields) -> DraftFile:
    return DraftFile(
        path=fields.parsed("path", ReleasePath),
        sha256=fields.parsed("sha256", Digest.parse),
        size=fields.integer("size", maximum=limits.FILE_BYTES),
    )
