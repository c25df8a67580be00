# SPDX-License-Identifier: Apache-2.0
"""Where the links and pictures of a model card lead: into the card, to a file of the release, or elsewhere.

A relative link leads to a file that the manifest lists, or nowhere: never to another page of the registry. A link
elsewhere is http, https or mailto, names a host and no user, since what stands before an ``@`` reads like the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from posixpath import normpath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from pq_registry import limits
from pq_registry.format.manifest import Manifest

PICTURES: Final = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Pictures that are shown: none that could hold a script, as SVG can."""
_MAGIC: Final = (
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_ODD: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\u1680\u2000-\u200f\u2028-\u202f\u2060-\u206f\u3000\ufeff]")
_MAIL: Final = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+", re.ASCII)
_SLUG: Final = re.compile(r"[^\w -]")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a link leads; ``outside`` of this registry or within."""

    url: str
    outside: bool


class CardLinks:
    """The links of one release's card; ``place`` is the path of the release's page."""

    def __init__(self, manifest: Manifest, place: str) -> None:
        self._sizes = {entry.path.text: entry.size for entry in manifest.files}
        self._place = place

    def target(self, href: str) -> Target | None:
        """Where a link leads; None if it is to lead nowhere."""
        if len(href) > limits.PATH_BYTES or _ODD.search(href):
            return None
        try:
            parts = urlsplit(href)
            host = parts.hostname
        except ValueError:
            return None
        if parts.scheme in ("http", "https"):
            return Target(href, outside=True) if host and "@" not in parts.netloc else None
        if parts.scheme == "mailto":
            return Target(href, outside=True) if _MAIL.fullmatch(parts.path) else None
        if parts.scheme or parts.netloc:
            return None
        if not parts.path:
            return Target(f"#{slug(unquote(parts.fragment))}", outside=False) if parts.fragment else None
        path = self._file(parts.path)
        return None if path is None else Target(self._link(path), outside=False)

    def picture(self, source: str) -> str | None:
        """Where a picture of the release is; None if it is none, or too large."""
        path = None if _ODD.search(source) or ":" in source else self._file(source)
        if path is None or picture_type(path) is None or self._sizes[path] > limits.CARD_PICTURE_BYTES:
            return None
        return self._link(path)

    def _file(self, written: str) -> str | None:
        path = normpath(unquote(written))  # no path of a release begins with a slash or leads upwards
        return path if path in self._sizes else None

    def _link(self, path: str) -> str:
        return f"{self._place}/files/{quote(path)}"


def picture_type(path: str) -> str | None:
    """The media type of what is called like a picture."""
    return next((kind for suffix, kind in PICTURES.items() if path.lower().endswith(suffix)), None)


def found_type(data: bytes) -> str | None:
    """The media type of what is a picture."""
    return next((kind for magic, kind in _MAGIC if magic.match(data)), None)


def slug(text: str) -> str:
    """The id of a heading, as links within cards expect it, with something before it that none of our ids has."""
    return "card-" + _SLUG.sub("", text.strip().lower()).replace(" ", "-")[: limits.CARD_VALUE_CHARS]
