# SPDX-License-Identifier: Apache-2.0
"""Templates to answers. Everything a template prints is escaped, and a value it does not know is an error.

The policy of a page lets it load styles, scripts and pictures from here, talk to here, and nothing else: no inline
script or style, no frame, no base. So what a hostile name would have to smuggle in has no way to run.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

import pq_registry
from pq_registry.server.pages import charts, written
from pq_registry.server.pages.texts import LANGUAGES, NAMES, TEXTS, choose_language, text
from pq_registry.service.access import Caller

_FOLDER: Final = Path(__file__).parent
SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Not no-referrer: with that, browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
}
_PROOF_TEXTS: Final = "proof_"
_TYPES: Final = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that pages refer to."""

    data: bytes
    media_type: str


class Pages:
    """The templates and static files of this version, read once."""

    def __init__(self) -> None:
        self.files = {
            path.name: StaticFile(path.read_bytes(), _media_type(path))
            for path in sorted((_FOLDER / "static").iterdir())
        }
        digest = hashlib.sha256()
        for name, file in self.files.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(file.data).digest())
        self.build = digest.hexdigest()
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, auto_reload=False,
        )  # fmt: skip
        self._environment.globals.update(
            version=pq_registry.__version__, languages=LANGUAGES, language_names=NAMES, when=written.when,
            day=written.day, digest=written.digest, bars=charts.bars, dots=charts.dots,
        )  # fmt: skip

    @staticmethod
    def language(request: Request) -> str:
        """The visitor's language."""
        return choose_language(request.query_params.get("lang"), request.headers.get("accept-language"))

    def answer(
        self, request: Request, template: str, values: Mapping[str, Any], *, caller: Caller | None, status: int = 200
    ) -> Response:
        """A page in the visitor's language."""
        view = _View(self, request, caller)
        body = self._environment.get_template(template).render({**view.names(), **values})
        headers = {**SECURITY, "Content-Language": view.language, "Vary": "Accept-Language, Cookie"}
        return Response(body, status_code=status, headers=headers, media_type="text/html")


async def pages_of(request: Request) -> Pages:
    """The application's templates, as a dependency of routes."""
    pages: Pages = request.app.state.pages
    return pages


PageTemplates = Annotated[Pages, Depends(pages_of)]
HTML: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
"""How a page's answer is documented."""


class _View:
    """What every template can use, for one request."""

    def __init__(self, pages: Pages, request: Request, caller: Caller | None) -> None:
        self._pages = pages
        self._request = request
        self._caller = caller
        asked = request.query_params.get("lang")
        self._sticky = asked if asked in LANGUAGES else None
        self.language = pages.language(request)

    def names(self) -> dict[str, Any]:
        """Names and what they stand for."""
        language = self.language
        return {
            "lang": language,
            "t": self._text,
            "proof_texts": {
                key.removeprefix(_PROOF_TEXTS): entry[language]
                for key, entry in TEXTS.items()
                if key.startswith(_PROOF_TEXTS)
            },
            "link": self.link,
            "in_language": self.in_language,
            "static": self._static,
            "path": self._request.url.path,
            "signed_in": self._caller is not None and self._caller.rights is not None,
            "number": partial(written.number, language=language),
            "size": partial(written.size, language=language),
            "duration": partial(written.duration, language=language),
        }

    def _text(self, key: str, /, **values: object) -> str:
        return text(key, self.language, values)

    def link(self, path: str, **query: object) -> str:
        """A path of ours, with the language the visitor chose."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        if self._sticky is not None:
            given["lang"] = self._sticky
        return quote(path, safe="/:") + (f"?{urlencode(given)}" if given else "")

    def in_language(self, language: str) -> str:
        """This page in another language."""
        query = {**dict(self._request.query_params), "lang": language}
        return f"{quote(self._request.url.path, safe='/:')}?{urlencode(query)}"

    def _static(self, name: str) -> str:
        assert name in self._pages.files, name
        return f"/static/{self._pages.build}/{name}"


def _media_type(path: Path) -> str:
    return _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
