# SPDX-License-Identifier: Apache-2.0
"""The registry's JSON answers as values. Whatever is not as specified is ResponseInvalid; new fields are ignored.

Nothing in these values is verified: they are the registry's account, good for listings and for finding what to fetch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from pq_registry import limits
from pq_registry.client.problems import printable
from pq_registry.errors import FormatError, NameSyntaxError, ResponseInvalid
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.instant import parse_instant
from pq_registry.format.keystatement import parse_node
from pq_registry.format.name import RepositoryName, Tag
from pq_registry.format.strict_json import Fields, parse_strict

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token this is."""

    role: str
    namespaces: tuple[str, ...]
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class RepositoryItem:
    """A repository in a listing."""

    name: RepositoryName
    releases: int
    tags: int
    updated: datetime | None


@dataclass(frozen=True, slots=True)
class RepositoryPage:
    """Part of a listing; ``next`` is the ``after`` of the following page."""

    items: tuple[RepositoryItem, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class TagItem:
    """A tag of a repository; ``target`` is None when it is withdrawn."""

    tag: Tag
    target: Digest | None
    sequence: int
    issued: datetime
    expires: datetime
    signer: str


@dataclass(frozen=True, slots=True)
class ReleaseItem:
    """A release of a repository; ``content`` is the same for releases of the same files."""

    digest: Digest
    created: datetime
    size: int
    files: int
    signer: str
    content: Digest | None


@dataclass(frozen=True, slots=True)
class RepositoryView:
    """A repository with its tags and its newest releases; ``next`` continues the releases."""

    name: RepositoryName
    tags: tuple[TagItem, ...]
    releases: tuple[ReleaseItem, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """Where the parts of a release are: its statement's envelope and its manifest."""

    digest: Digest
    statement: Digest
    manifest: Digest


@dataclass(frozen=True, slots=True)
class Upload:
    """An unfinished upload; ``parts`` are the numbers of the parts that are there.

    ``is_direct`` says that parts go straight to the registry's storage, not through the registry.
    """

    id: str
    part_size: int
    parts: frozenset[int]
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class IdentityItem:
    """An identity registered for a namespace; ``public`` is PEM."""

    id: str
    public: str


@dataclass(frozen=True, slots=True)
class TokenItem:
    """A token, without its secret."""

    id: str
    role: str
    namespaces: tuple[str, ...]
    expires: datetime | None
    revoked: bool
    note: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; ``token`` is shown this once."""

    id: str
    token: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a listing; ``next`` is the ``after`` of the following page."""

    items: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class GrantItem:
    """The latest grant statement about one release and one recipient."""

    release: Digest
    recipient: str
    sequence: int
    issued: datetime
    expires: datetime | None
    withdrawn: bool
    signer: str


@dataclass(frozen=True, slots=True)
class CertificateItem:
    """A recipient somebody certified."""

    recipient: str
    node: str
    not_after: datetime | None
    signer: str


def read(body: bytes, parse: Callable[[Fields], T], *, what: str) -> T:
    """Parse an answer.

    Raises:
        ResponseInvalid: if it is not JSON or not of the form ``parse`` wants.
    """
    try:
        return parse(Fields(parse_strict(body, what=what, limit=limits.JSON_RESPONSE_BYTES), what))
    except (FormatError, NameSyntaxError) as error:
        raise ResponseInvalid(
            printable(error.message),
            expected=error.expected,
            found=None if error.found is None else printable(error.found),
        ) from None


def caller(fields: Fields) -> Caller:
    """``GET /v1/whoami``."""
    return Caller(
        role=word(fields, "role"),
        namespaces=_words(fields, "namespaces"),
        expires=fields.optional("expires", parse_instant),
    )


def repository_page(fields: Fields) -> RepositoryPage:
    """``GET /v1/repos``."""
    items = tuple(
        RepositoryItem(
            name=item.parsed("name", RepositoryName.parse),
            releases=item.integer("releases"),
            tags=item.integer("tags"),
            updated=item.optional("updated", parse_instant),
        )
        for item in fields.objects("items", limit=limits.PAGE_ITEMS)
    )
    return RepositoryPage(items, following(fields))


def repository_view(fields: Fields) -> RepositoryView:
    """``GET /v1/repos/{ns}/{name}``."""
    return RepositoryView(
        name=fields.parsed("name", RepositoryName.parse),
        tags=tuple(_tag(item) for item in fields.objects("tags", limit=limits.JSON_RESPONSE_BYTES)),
        releases=tuple(_release(item) for item in fields.objects("releases", limit=limits.PAGE_ITEMS)),
        next=following(fields),
    )


def release_items(fields: Fields) -> tuple[ReleaseItem, ...]:
    """``GET /v1/repos/{ns}/{name}/releases``."""
    return tuple(_release(item) for item in fields.objects("items", limit=limits.PAGE_ITEMS))


def release_view(fields: Fields) -> ReleaseView:
    """``GET /v1/repos/{ns}/{name}/releases/{hex}``."""
    return ReleaseView(
        digest=fields.parsed("digest", Digest.parse),
        statement=fields.parsed("statement", Digest),
        manifest=fields.parsed("manifest", Digest.parse),
    )


def missing(fields: Fields) -> frozenset[Digest]:
    """``POST .../missing``."""
    return frozenset(Digest.parse(text) for text in fields.texts("missing", limit=limits.MISSING_QUERY_DIGESTS))


def upload(fields: Fields) -> Upload:
    """``POST .../uploads``."""
    part_size = fields.integer("part_size", minimum=1, maximum=limits.FILE_BYTES)
    parts = fields.array("parts", limit=limits.PARTS)
    for number in parts:
        if type(number) is not int or not 0 <= number < limits.PARTS:
            fields.fail("parts", "part numbers", number)
    transfer = fields.text("transfer") if fields.has("transfer") else "relay"
    if transfer not in ("relay", "direct"):
        fields.fail("transfer", "relay or direct", transfer)
    numbers = frozenset(part for part in parts if isinstance(part, int))
    return Upload(word(fields, "id"), part_size, numbers, transfer == "direct")


def identities(fields: Fields) -> tuple[IdentityItem, ...]:
    """``GET /v1/namespaces/{ns}/identities``."""
    return tuple(
        IdentityItem(word(item, "id"), item.text("public", limit=limits.IDENTITY_FILE_BYTES))
        for item in fields.objects("items", limit=limits.PAGE_ITEMS)
    )


def grants(fields: Fields) -> Page[GrantItem]:
    """``GET /v1/repos/{ns}/{name}/grants``."""
    items = tuple(
        GrantItem(
            release=item.parsed("release", digest_text),
            recipient=item.parsed("recipient", parse_recipient_id),
            sequence=item.integer("sequence", minimum=1),
            issued=item.parsed("issued", parse_instant),
            expires=item.optional("expires", parse_instant),
            withdrawn=item.boolean("withdrawn"),
            signer=word(item, "signer"),
        )
        for item in fields.objects("items", limit=limits.PAGE_ITEMS)
    )
    return Page(items, following(fields))


def certificates(fields: Fields) -> Page[CertificateItem]:
    """``GET /v1/namespaces/{ns}/keys``."""
    items = tuple(
        CertificateItem(
            recipient=item.parsed("recipient", parse_recipient_id),
            node=item.parsed("node", parse_node),
            not_after=item.optional("not_after", parse_instant),
            signer=word(item, "signer"),
        )
        for item in fields.objects("items", limit=limits.PAGE_ITEMS)
    )
    return Page(items, following(fields))


def tokens(fields: Fields) -> tuple[TokenItem, ...]:
    """``GET /v1/tokens``."""
    return tuple(
        TokenItem(
            id=word(item, "id"),
            role=word(item, "role"),
            namespaces=_words(item, "namespaces"),
            expires=item.optional("expires", parse_instant),
            revoked=item.take("revoked") not in (None, False) if item.has("revoked") else False,
            note=printable((item.take("note") if item.has("note") else None) or ""),
        )
        for item in fields.objects("items", limit=limits.JSON_RESPONSE_BYTES)
    )


def new_token(fields: Fields) -> NewToken:
    """``POST /v1/tokens``."""
    return NewToken(word(fields, "id"), word(fields, "token"))


def _tag(fields: Fields) -> TagItem:
    return TagItem(
        tag=fields.parsed("tag", Tag),
        target=fields.optional("target", Digest.parse),
        sequence=fields.integer("sequence", minimum=1),
        issued=fields.parsed("issued", parse_instant),
        expires=fields.parsed("expires", parse_instant),
        signer=word(fields, "signer"),
    )


def _release(fields: Fields) -> ReleaseItem:
    return ReleaseItem(
        digest=fields.parsed("digest", Digest.parse),
        created=fields.parsed("created", parse_instant),
        size=fields.integer("size"),
        files=fields.integer("files", maximum=limits.FILES + 1),
        signer=word(fields, "signer"),
        content=fields.optional("content", Digest.parse) if fields.has("content") else None,
    )


def digest_text(text: str) -> Digest:
    """A digest, with or without its prefix."""
    return Digest.parse(text) if ":" in text else Digest(text)


def following(fields: Fields) -> str | None:
    """The ``after`` of the next page."""
    return fields.optional("next", _visible) if fields.has("next") else None


def word(fields: Fields, name: str) -> str:
    """A short field of visible ASCII characters."""
    return fields.parsed(name, _visible, limit=256)


def _words(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(_visible(text) for text in fields.texts(name, limit=limits.TOKEN_NAMESPACES))


def _visible(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise FormatError("not plain text", expected="visible ASCII characters", found=repr(text)[:80])
    return text
