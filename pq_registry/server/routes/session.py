# SPDX-License-Identifier: Apache-2.0
"""Signing in to the page, and the page's static files.

A sign-in turns a token into another one that can read and nothing else, lives for a working day at most, ends when the
first one is revoked, and is kept in a cookie: HttpOnly, SameSite=Strict, over TLS with the prefix ``__Host-``. The
token itself is not kept. It is taken over TLS or on loopback only, and only from a form of ours: browsers say with
``Origin`` and ``Sec-Fetch-Site`` where a form stands, and a request that says neither is refused.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import AccessDenied, FormatError, NotAuthenticated, NotFound
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS, etags
from pq_registry.server.bodies import read_bytes
from pq_registry.server.config import is_loopback
from pq_registry.server.context import REQUEST_ID
from pq_registry.server.guard import SESSION_COOKIES, Service, session_token
from pq_registry.server.hosts import host_name
from pq_registry.server.pages.render import HTML, PageTemplates
from pq_registry.server.pages.texts import LANGUAGES, choose_language, text
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS)
FORM_TYPE = "application/x-www-form-urlencoded"
_Documented = dict[int | str, dict[str, Any]]
_FORM_BODY = {
    "requestBody": {"required": True, "content": {FORM_TYPE: {"schema": {"type": "object"}}}},
}
_SEE_OTHER: _Documented = {303: {"description": "Go on at the page that Location names"}}
_FILE: _Documented = {200: {"content": {"text/css": {}, "text/javascript": {}, "image/svg+xml": {}}}}


@router.get("/session", responses=HTML)
async def show_sign_in(
    request: Request, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], pages: PageTemplates
) -> Response:
    """The form to sign in with a token."""
    return pages.answer(request, "session.html", {"allowed": _is_private(request), "problem": None}, caller=caller)


@router.post("/session", status_code=303, responses=_SEE_OTHER, openapi_extra=_FORM_BODY)
async def sign_in(
    request: Request, caller: Annotated[Caller, Depends(guard.SIGN_IN)], service: Service, pages: PageTemplates
) -> Response:
    """Sign in: a token in a form, for a cookie that reads."""
    body = await read_bytes(request, kind=FORM_TYPE, limit=limits.PAGE_FORM_BYTES)
    secure = _require_own_form(request)
    try:
        made = await run_in_threadpool(_sign_in, service, _token_of(body), request.scope[REQUEST_ID])
    except NotAuthenticated:
        language = choose_language(request.query_params.get("lang"), request.headers.get("accept-language"))
        values = {"allowed": True, "problem": text("session_wrong", language)}
        return pages.answer(request, "session.html", values, caller=caller, status=401)
    answer = _home(request)
    answer.set_cookie(
        SESSION_COOKIES[0] if secure else SESSION_COOKIES[1], made, max_age=limits.SESSION_SECONDS, path="/",
        secure=secure, httponly=True, samesite="strict",
    )  # fmt: skip
    return answer


@router.post("/session/end", status_code=303, responses=_SEE_OTHER)
async def sign_out(request: Request, _caller: Annotated[Caller, Depends(guard.SIGN_OUT)], service: Service) -> Response:
    """Sign out: the cookie's token is revoked."""
    answer = _home(request)
    token = session_token(request)
    if token is not None:
        secure = _require_own_form(request)
        await run_in_threadpool(_sign_out, service, token, request.scope[REQUEST_ID])
        for name in SESSION_COOKIES:
            answer.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


@router.get("/static/{build}/{file}", responses=_FILE)
async def show_static(
    request: Request, build: str, file: str, _caller: Annotated[Caller, Depends(guard.PUBLIC)], pages: PageTemplates
) -> Response:
    """A style, script or picture of the pages. Its path changes with its content."""
    found = pages.files.get(file)
    if found is None:
        raise NotFound("no such file")
    # While several versions run beside one another, a page may ask the other one; that answer must not be kept.
    keep = "public, max-age=31536000, immutable" if build == pages.build else "no-cache"
    headers = {"ETag": f'"{pages.build}"', "Cache-Control": keep, "Cross-Origin-Resource-Policy": "same-origin"}
    if headers["ETag"] in etags(request):
        return Response(status_code=304, headers=headers)
    return Response(found.data, headers={**headers, "Content-Type": found.media_type})


def _sign_in(service: Registry, token: str, request_id: str) -> str:
    caller = service.tokens.authenticate(token, public_read=False, request_id=request_id)
    return service.tokens.sign_in(caller).text


def _sign_out(service: Registry, token: str, request_id: str) -> None:
    try:
        caller = service.tokens.authenticate(token, public_read=False, request_id=request_id)
    except NotAuthenticated:
        return
    service.tokens.sign_out(caller)


def _token_of(body: bytes) -> str:
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=4)
    except ValueError:
        raise FormatError("not a form", expected="token=<token>") from None
    given = fields.get("token", [])
    if set(fields) != {"token"} or len(given) != 1 or not given[0].isascii():
        raise FormatError("not the form of a sign-in", expected="token=<token>, once")
    return given[0].strip()


def _is_private(request: Request) -> bool:
    """Whether what is typed into this page can be read by nobody on its way."""
    # Behind a proxy that ends TLS, browsers tell: they send Sec-Fetch-Site to trustworthy origins and to no others.
    by_tls = request.url.scheme == "https" or "sec-fetch-site" in request.headers
    return by_tls or is_loopback(host_name(request.headers["host"]))


def _require_own_form(request: Request) -> bool:
    """Refuse a form that does not stand on a page of ours, or that came in the clear; answers whether it came by TLS.

    Raises:
        AccessDenied: if it is to be refused.
    """
    origin = urlsplit(request.headers.get("origin", ""))
    if (
        request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
        or origin.netloc != request.headers["host"]
    ):
        raise AccessDenied(
            "this form does not stand on a page of this registry", hint="open the page and sign in there"
        )
    # Behind a proxy that ends TLS only the browser knows how it came here.
    secure = origin.scheme == "https"
    if not secure and not is_loopback(host_name(request.headers["host"])):
        raise AccessDenied("signing in needs TLS", hint="put a proxy that speaks HTTPS in front of the registry")
    return secure


def _home(request: Request) -> Response:
    asked = request.query_params.get("lang")
    return Response(status_code=303, headers={"Location": f"/?lang={asked}" if asked in LANGUAGES else "/"})
