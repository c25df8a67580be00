# SPDX-License-Identifier: Apache-2.0
"""``mirrors.yaml``: which releases are to be found on which Hub, and in which form (docs/operations/mirror.md).

::

    version: 1
    mirrors:
      - name: huggingface
        hub: https://huggingface.co
        namespace: acme-ai          # of the Hub: an organisation or a user
        token_variable: HF_TOKEN    # or token_file: /run/credentials/hub-token
        repositories: [acme/*]
        tags: [main, v*]
        main: main                  # the tag that becomes the Hub's branch main
        open: full                  # full | card-only | skip
        sealed: skip                # ciphertext | card-only | skip
        rename: {acme/minilm: minilm-de}

Everything but the first five of these has a default. What is unknown is refused, and so is a file in which two
mirrors have one name or a token is written. Patterns are those of a shell (``*``, ``?``, ``[…]``) and compared without
regard to case for repositories, as these are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum, unique
from fnmatch import fnmatchcase
from pathlib import Path

from pq_registry import limits
from pq_registry.client.origin import parse_registry
from pq_registry.errors import FormatError, NameSyntaxError, SettingError
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.strict_json import Fields
from pq_registry.mirror.yamldoc import parse_yaml

HUB = "https://huggingface.co"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}(/[A-Za-z0-9._*?\[\]!-]{1,128})?", re.ASCII)


@unique
class Form(StrEnum):
    """In which form a release is mirrored. A sealed one is never ``FULL``: what is full of it is its ciphertext."""

    FULL = "full"
    CIPHERTEXT = "ciphertext"
    CARD_ONLY = "card-only"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One mirror: what goes there, in which form, and with whose token.

    ``private`` is for repositories that are made; ``adopt`` allows to replace what others put into one. ``card`` is the
    README of releases mirrored as a card only that have none to show. Keys of ``rename`` are ``RepositoryName.key``.
    """

    name: str
    hub: str
    namespace: str
    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    main: Tag
    open: Form = Form.FULL
    sealed: Form = Form.SKIP
    private: bool = False
    adopt: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    card: Path | None = None
    token_variable: str | None = None
    token_file: Path | None = None

    def wants(self, repository: RepositoryName) -> bool:
        """Whether the repository is mirrored."""
        owner, _, name = repository.key.partition("/")
        halves = (pattern.lower().partition("/") for pattern in self.repositories)
        return any(fnmatchcase(owner, one) and fnmatchcase(name, other) for one, _, other in halves)

    def wants_tag(self, tag: Tag) -> bool:
        """Whether the tag is mirrored."""
        return any(fnmatchcase(str(tag), pattern) for pattern in self.tags)

    def target(self, repository: RepositoryName) -> str:
        """The repository on the Hub, ``namespace/name``."""
        return f"{self.namespace}/{self.rename.get(repository.key, repository.name)}"

    def form(self, *, sealed: bool) -> Form:
        """In which form a release goes there."""
        return self.sealed if sealed else self.open


def parse_mirrors(data: bytes) -> tuple[Mirror, ...]:
    """The mirrors of a file.

    Raises:
        SettingError: if it is not as described above; it says which field.
        UsageError: if PyYAML is not installed.
    """
    try:
        fields = Fields(parse_yaml(data, what="mirrors.yaml"), "mirrors.yaml")
        fields.literal("version", 1)
        mirrors = tuple(map(_mirror, fields.objects("mirrors", limit=limits.MIRRORS, minimum=1)))
        fields.done()
    except FormatError as error:
        raise SettingError(error.message, expected=error.expected, found=error.found) from None
    names = [mirror.name for mirror in mirrors]
    if len(set(names)) != len(names):
        raise SettingError("mirrors.yaml names a mirror twice", expected="every name once", found=", ".join(names))
    return mirrors


def read_mirrors(path: Path) -> tuple[Mirror, ...]:
    """The mirrors of the file at ``path``; what it names by a relative path lies beside it.

    Raises:
        SettingError: if it cannot be read, or is not as described above.
        UsageError: if PyYAML is not installed.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limits.MIRRORS_FILE_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"cannot read {path}",
            found=error.strerror,
            hint="write it there (docs/operations/mirror.md), or name another: --config FILE",
        ) from None
    beside = path.parent
    return tuple(
        replace(
            mirror,
            card=None if mirror.card is None else beside / mirror.card,
            token_file=None if mirror.token_file is None else beside / mirror.token_file,
        )
        for mirror in parse_mirrors(data)
    )


def _mirror(fields: Fields) -> Mirror:
    mirror = Mirror(
        name=fields.parsed("name", _name),
        hub=fields.parsed("hub", _url) if fields.has("hub") else HUB,
        namespace=str(fields.parsed("namespace", Namespace)),
        repositories=_patterns(fields, "repositories", halves=2),
        tags=_patterns(fields, "tags", halves=1),
        main=fields.parsed("main", Tag) if fields.has("main") else Tag("main"),
        open=_form(fields, "open", Form.FULL),
        sealed=_form(fields, "sealed", Form.SKIP),
        private=fields.has("private") and fields.boolean("private"),
        adopt=fields.has("adopt") and fields.boolean("adopt"),
        rename=_renamed(fields),
        card=fields.parsed("card", Path) if fields.has("card") else None,
        token_variable=fields.parsed("token_variable", _variable) if fields.has("token_variable") else None,
        token_file=fields.parsed("token_file", Path) if fields.has("token_file") else None,
    )
    if fields.has("token"):
        fields.fail("token", "token_variable or token_file: a token does not belong into this file", "a token")
    fields.done()
    if mirror.open is Form.CIPHERTEXT or mirror.sealed is Form.FULL:
        raise FormatError(
            f"mirror {mirror.name}: an open release has no ciphertext, and of a sealed one nothing else can be shown",
            expected="open: full, card-only or skip; sealed: ciphertext, card-only or skip",
        )
    if mirror.token_variable is not None and mirror.token_file is not None:
        raise FormatError(f"mirror {mirror.name} has two tokens", expected="token_variable or token_file")
    return mirror


def _patterns(fields: Fields, name: str, *, halves: int) -> tuple[str, ...]:
    texts = fields.texts(name, limit=limits.MIRROR_PATTERNS)
    for text in texts:
        if not _PATTERN.fullmatch(text) or text.count("/") + 1 != halves:
            fields.fail(name, "patterns such as " + ("acme/*" if halves == 2 else "v*"), text)
    if not texts:
        fields.fail(name, "at least one pattern", texts)
    return tuple(texts)


def _form(fields: Fields, name: str, default: Form) -> Form:
    if not fields.has(name):
        return default
    text = fields.text(name)
    if text not in [form.value for form in Form]:
        fields.fail(name, ", ".join(form.value for form in Form), text)
    return Form(text)


def _renamed(fields: Fields) -> Mapping[str, str]:
    if not fields.has("rename"):
        return {}
    table = fields.object("rename")
    names = table.names()
    if len(names) > limits.MIRROR_PATTERNS:
        fields.fail("rename", f"at most {limits.MIRROR_PATTERNS} names", len(names))
    return {
        RepositoryName.parse(name).key: table.parsed(name, lambda text: RepositoryName(Namespace("x"), text).name)
        for name in names
    }


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise NameSyntaxError(
            "not a mirror's name", expected="lower-case letters, digits and '-'", found=repr(text)[:80]
        )
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise NameSyntaxError("not an environment variable", expected="e.g. HF_TOKEN", found="something else")
    return text


def _url(text: str) -> str:
    try:
        parse_registry(text)
    except SettingError as error:
        raise FormatError("not the URL of a Hub", expected=error.expected or "e.g. https://huggingface.co") from None
    return text.rstrip("/")
