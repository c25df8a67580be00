# SPDX-License-Identifier: Apache-2.0
"""Who may call which route, and how large its body may be.

Every route states exactly one policy, or the application is not created. A policy is a FastAPI dependency: it runs
before the handler, answers the ``Caller``, and raises where it must not go on. Without a token a request is
NotAuthenticated, with one that is not enough AccessDenied. When the catalogue fails, nobody is let in.

A cookie counts for pages and for the log's files, which are policies with ``session``: their routes only read, so that
there is nothing a page elsewhere could make its reader's browser do. The API knows the Authorization header alone.
"""

# No postponed annotations here: the oldest FastAPI we allow cannot resolve those of a callable object.
from dataclasses import dataclass
from enum import Enum, unique
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pq_registry import limits
from pq_registry.errors import NotAuthenticated, ReadOnly
from pq_registry.format.name import Namespace
from pq_registry.server.config import ServerConfig, is_loopback
from pq_registry.server.context import PAGE, REQUEST_ID, TOKEN_ID
from pq_registry.server.hosts import host_name
from pq_registry.service.access import Caller, Permission, anonymous, denied
from pq_registry.service.hub.capabilities import is_capability
from pq_registry.service.registry import Registry

NAMESPACE_PARAMETER = "ns"
SESSION_COOKIES = ("__Host-pqreg", "pqreg")
"""Names of the page's cookie: over TLS, where browsers hold it to this host, and on loopback without."""


CAPABILITY_PARAMETER = "capability"
"""Where a capability stands in a query, which is never logged."""


CONTENT = frozenset({Permission.PUBLISH, Permission.REGISTER_IDENTITY, Permission.REGISTER_KEY, Permission.REVOKE})
"""What changes what readers see. A read-only registry refuses these; tokens can still be revoked and made."""


@unique
class Scope(Enum):
    """Where a permission must hold."""

    NAMESPACE = "namespace"
    """In the namespace the path names."""
    SOMEWHERE = "somewhere"
    """In at least one namespace; the use case answers only what the caller may see."""
    EVERYWHERE = "everywhere"
    """In all namespaces, by the caller's own token."""


_WHERE = {Scope.SOMEWHERE: "any namespace", Scope.EVERYWHERE: "every namespace"}


@unique
class Held(Enum):
    """Which capabilities of ``service.hub.capabilities`` count where a token does."""

    REQUEST = "request"
    """One for exactly this method and path, in the query."""
    XET = "xet"
    """One for the chunked uploads of the repository the path names, in the Authorization header."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What one route demands.

    ``permission`` None lets anyone in; ``body`` is the most bytes of a request's body. ``session`` marks what
    pages are made of: where no Authorization header is sent, the cookie of a sign-in counts, and a browser that asks
    for a page is refused with one. ``log`` marks what shows the log: it lets anyone in unless the operator keeps the
    log private. With ``held`` a capability of that kind is as good as the token it was made for.
    """

    permission: Permission | None
    scope: Scope = Scope.NAMESPACE
    body: int = 0
    session: bool = False
    log: bool = False
    held: Held | None = None

    async def __call__(self, request: Request) -> Caller:
        """The caller, if this request may go on.

        Raises:
            NotAuthenticated: without a good token.
            AccessDenied: if the token does not suffice.
            TooManyRequests: if the token was used too often.
            ReadOnly: if this is to change something, and nothing is to change.
            HTTPException: if the body is announced to be too large.
            StorageError: if the catalogue fails.
        """
        self._check_body(request)
        registry: Registry = request.app.state.registry
        config: ServerConfig = request.app.state.config
        public_read = config.public_read
        request_id: str = request.scope[REQUEST_ID]
        permission = None if self.log and not config.private_log else self.permission
        token = self._token(request, permission)
        if (capability := self._capability(request, token)) is not None:
            token_id = await run_in_threadpool(registry.capabilities.open, *capability)
            caller = await run_in_threadpool(
                registry.tokens.holder, token_id, public_read=public_read, request_id=request_id
            )
        elif token is None:  # nothing to look up, and no thread to wait for: probes answer under any load
            caller = anonymous(public_read=public_read, request_id=request_id)
        else:
            try:
                caller = await run_in_threadpool(
                    registry.tokens.authenticate, token,
                    public_read=public_read, request_id=request_id, page=self.session,
                )  # fmt: skip
            except NotAuthenticated:
                if permission is not None:
                    raise
                # A page that is there for everybody is there for whoever's sign-in has ended, too.
                caller = anonymous(public_read=public_read, request_id=request_id)
        request.scope[TOKEN_ID] = caller.token_id
        if caller.token_id:
            request.app.state.token_rate.admit(caller.token_id)
        if permission is not None:
            self._require(caller, permission, request.path_params.get(NAMESPACE_PARAMETER))
        if config.read_only and permission in CONTENT:
            raise ReadOnly(
                "this registry is read-only at the moment", expected="requests that only read",
                hint="ask its operator when changes are possible again",
            )  # fmt: skip
        return caller

    def _token(self, request: Request, permission: Permission | None) -> str | None:
        if not self.session:
            return None if permission is None and not self.log else bearer_token(request)
        request.scope[PAGE] = True
        return bearer_token(request) or session_token(request)

    def _capability(self, request: Request, token: str | None) -> tuple[str, str] | None:
        """The capability that counts for this request, and what it has to be for."""
        if self.held is Held.REQUEST:
            given = request.query_params.getlist(CAPABILITY_PARAMETER)
            return (given[0], request_subject(request.method, request.scope["path"])) if len(given) == 1 else None
        if self.held is Held.XET and token is not None and is_capability(token):
            return token, xet_subject(request.path_params[NAMESPACE_PARAMETER], request.path_params["name"])
        return None

    def _require(self, caller: Caller, permission: Permission, namespace: str | None) -> None:
        if self.scope is Scope.NAMESPACE:
            # A route without a namespace in its path cannot have this scope: KeyError at the first test, never open.
            assert namespace is not None
            allowed = caller.may(permission, Namespace(namespace).key)
        elif self.scope is Scope.EVERYWHERE:
            allowed = caller.may_everywhere(permission)
        else:
            allowed = caller.may_somewhere(permission)
        if allowed:
            return
        if caller.rights is None:
            raise NotAuthenticated(
                "this needs a token", expected="Authorization: Bearer <token>", hint="set PQREG_TOKEN or log in"
            )
        raise denied(permission, namespace if namespace is not None else _WHERE[self.scope])

    def _check_body(self, request: Request) -> None:
        length = request.headers.get("content-length")
        if "transfer-encoding" in request.headers:
            if length is not None or self.body == 0:
                raise HTTPException(400, "this request cannot have a chunked body")
        elif length is not None and int(length) > self.body:
            raise HTTPException(413, f"expected at most {self.body} bytes, found {length}")


def request_subject(method: str, path: str) -> str:
    """What a capability for one request is for."""
    return f"{method} {path}"


def xet_subject(namespace: str, name: str) -> str:
    """What a capability for the chunked uploads of a repository is for."""
    return f"xet {namespace}/{name}"


def bearer_token(request: Request) -> str | None:
    """The token of the Authorization header, if there is one.

    Raises:
        NotAuthenticated: if there are several, or one of another scheme.
    """
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.isascii():
        raise NotAuthenticated("the Authorization header is malformed", expected="one, of the form: Bearer <token>")
    return token.strip()


def session_token(request: Request) -> str | None:
    """The token of a sign-in to the page, if its cookie is there.

    Off loopback only the name with ``__Host-`` counts: any other could have been set by a neighbour in the same domain,
    who would have a reader go on under a sign-in that is not theirs.
    """
    here = is_loopback(host_name(request.headers["host"]))
    return next(
        (request.cookies[name] for name in SESSION_COOKIES[: 2 if here else 1] if name in request.cookies), None
    )


PUBLIC = Policy(None)
READ = Policy(Permission.READ)
READ_SOMEWHERE = Policy(Permission.READ, Scope.SOMEWHERE)
READ_LOG = Policy(Permission.READ, Scope.SOMEWHERE, log=True)
READ_LOG_FILE = Policy(Permission.READ, Scope.SOMEWHERE, session=True, log=True)
OBSERVE = Policy(Permission.READ, Scope.EVERYWHERE)
QUERY = Policy(Permission.READ, body=limits.REQUEST_BODY_BYTES)
PUBLISH = Policy(Permission.PUBLISH)
PUBLISH_JSON = Policy(Permission.PUBLISH, body=limits.REQUEST_BODY_BYTES)
PUBLISH_GRANT = Policy(Permission.PUBLISH, body=limits.GRANT_ENVELOPE_BYTES)
PUBLISH_TAG = Policy(Permission.PUBLISH, body=limits.TAG_ENVELOPE_BYTES)
PUBLISH_HISTORY = Policy(Permission.PUBLISH, body=limits.HISTORY_BYTES)
PUBLISH_RELEASE = Policy(Permission.PUBLISH, body=limits.ENVELOPE_BYTES)
PUBLISH_PART = Policy(Permission.PUBLISH, body=limits.FILE_BYTES)
PUSH_COMMIT = Policy(Permission.PUBLISH, body=limits.HUB_COMMIT_BYTES)
PUSH_QUESTION = Policy(Permission.PUBLISH, body=limits.HUB_PREUPLOAD_BYTES)
PUSH_OBJECT = Policy(Permission.PUBLISH, body=limits.HUB_FILE_BYTES, held=Held.REQUEST)
PUSH_PART = Policy(Permission.PUBLISH, body=limits.PART_BYTES, held=Held.REQUEST)
PUSH_END = Policy(Permission.PUBLISH, body=limits.HUB_PREUPLOAD_BYTES, held=Held.REQUEST)
PUSH_XORB = Policy(Permission.PUBLISH, body=limits.XORB_PACKED_BYTES, held=Held.XET)
PUSH_SHARD = Policy(Permission.PUBLISH, body=limits.XET_SHARD_BYTES, held=Held.XET)
PUSH_XET = Policy(Permission.PUBLISH, held=Held.XET)
PUBLISH_SOMEWHERE = Policy(Permission.PUBLISH, Scope.SOMEWHERE, body=limits.REQUEST_BODY_BYTES)
REGISTER = Policy(Permission.REGISTER_IDENTITY, body=limits.REQUEST_BODY_BYTES)
REGISTER_KEY = Policy(Permission.REGISTER_KEY, body=limits.GRANT_ENVELOPE_BYTES)
REVOKE = Policy(Permission.REVOKE, body=limits.STATUS_ENVELOPE_BYTES)
REVOKE_HISTORY = Policy(Permission.REVOKE, body=limits.HISTORY_BYTES)
PAGE_OPEN = Policy(None, session=True)
PAGE_SOMEWHERE = Policy(Permission.READ, Scope.SOMEWHERE, session=True)
PAGE_READ = Policy(Permission.READ, session=True)
PAGE_LOG = READ_LOG_FILE
SIGN_IN = Policy(None, body=limits.PAGE_FORM_BYTES)
SIGN_OUT = Policy(None)
MANAGE_TOKENS = Policy(Permission.MANAGE_TOKENS, Scope.SOMEWHERE)
MAKE_TOKENS = Policy(Permission.MANAGE_TOKENS, Scope.SOMEWHERE, body=limits.REQUEST_BODY_BYTES)


async def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


Service = Annotated[Registry, Depends(_registry)]


def policies(app: FastAPI) -> dict[tuple[str, str], Policy]:
    """The policy of every method of every route.

    Raises:
        RuntimeError: if a route has none, or several, or is of a kind that cannot have one.
    """
    found: dict[tuple[str, str], Policy] = {}
    for route in app.routes:
        if not isinstance(route, APIRoute):
            raise RuntimeError(f"route {route} cannot state a policy")  # noqa: TRY004 - not about an argument
        stated = [item.call for item in route.dependant.dependencies if isinstance(item.call, Policy)]
        if len(stated) != 1:
            raise RuntimeError(f"route {route.path} states {len(stated)} policies, not one")
        policy = stated[0]
        if policy.permission is not None and policy.scope is Scope.NAMESPACE and "{ns}" not in route.path:
            raise RuntimeError(f"route {route.path} names no namespace for its policy")
        if policy.session and not (route.methods or set()) <= {"GET", "HEAD"}:
            raise RuntimeError(f"route {route.path} lets a cookie do more than read")
        found.update({(method, route.path): policy for method in route.methods or ()})
    return found
