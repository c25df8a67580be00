# SPDX-License-Identifier: Apache-2.0
"""Names people type: namespaces, repositories, tags and references (DESIGN §5, "Exact forms").

A reference is ``namespace/name``, then optionally ``:tag``, then optionally ``@sha256:<hex>``. Without a tag and
without a digest it means the tag ``main``.

>>> Reference.parse("acme/minilm:v1").tag
Tag(value='v1')
>>> str(Reference.parse("acme/minilm"))
'acme/minilm:main'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pq_registry.errors import NameSyntaxError
from pq_registry.format.digest import Digest

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_HEX_ID = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", re.ASCII)
_PART_RULE = "a letter or digit, then at most 95 letters, digits, '.', '_' or '-', without '..' or '--'"

DEFAULT_TAG = "main"


def _check_part(kind: str, text: str) -> None:
    if not isinstance(text, str) or not _PART.fullmatch(text) or ".." in text or "--" in text:
        raise NameSyntaxError(f"not a {kind}", expected=_PART_RULE, found=repr(text)[:120])


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """The owner's half of a repository name."""

    value: str

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless the name is well formed."""
        _check_part("namespace", self.value)

    @property
    def key(self) -> str:
        """The form in which namespaces are compared: they are unique without regard to case."""
        return self.value.lower()

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class RepositoryName:
    """``namespace/name``."""

    namespace: Namespace
    name: str

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless the name is well formed."""
        _check_part("repository name", self.name)

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Read ``namespace/name``.

        Raises:
            NameSyntaxError: if either part is not well formed or there are not exactly two.
        """
        namespace, slash, name = text.partition("/")
        if not slash or "/" in name:
            raise NameSyntaxError("not a repository name", expected="namespace/name", found=repr(text)[:120])
        return cls(Namespace(namespace), name)

    @property
    def key(self) -> str:
        """The form in which repositories are compared: they are unique without regard to case."""
        return str(self).lower()

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A mutable pointer's name; the OCI grammar, but never 40 or 64 hex digits (those are commits and digests)."""

    value: str

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless the tag is well formed."""
        if not isinstance(self.value, str) or not _TAG.fullmatch(self.value):
            raise NameSyntaxError(
                "not a tag",
                expected="a letter, digit or '_', then at most 127 letters, digits, '.', '_' or '-'",
                found=repr(self.value)[:160],
            )
        if _HEX_ID.fullmatch(self.value):
            raise NameSyntaxError("not a tag", expected="anything but 40 or 64 hex digits", found=repr(self.value))

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Reference:
    """What a command is pointed at: a repository and a tag, a release digest, or both.

    With both, the digest decides and the tag is a label; no tag statement is consulted.
    """

    repository: RepositoryName
    tag: Tag | None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``namespace/name[:tag][@sha256:<hex>]``.

        Raises:
            NameSyntaxError: if any part is not well formed.
        """
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        name, colon, tag_text = rest.partition(":")
        repository = RepositoryName.parse(name)
        tag = Tag(tag_text) if colon else (None if digest else Tag(DEFAULT_TAG))
        return cls(repository, tag, digest)

    def __str__(self) -> str:
        text = str(self.repository)
        if self.tag is not None:
            text += f":{self.tag}"
        return text if self.digest is None else f"{text}@{self.digest}"
