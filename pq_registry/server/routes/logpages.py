# SPDX-License-Identifier: Apache-2.0
"""Pages of the log: search, leaf, checkpoint, witnesses; and the envelopes that browsers check.

docs/operations/page.md says what is checked where.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.dsse import MEDIA_TYPE as ENVELOPE_TYPE
from pq_registry.format.leaf import Kind, Leaf
from pq_registry.format.note import NoteKeyType
from pq_registry.server import guard
from pq_registry.server.answers import ENVELOPE_ANSWER, PROBLEMS
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing
from pq_registry.server.pages import charts
from pq_registry.server.pages.proofs import envelope_path, witnesses_of
from pq_registry.server.pages.render import HTML, PageTemplates
from pq_registry.server.routes.pages import ALGORITHMS
from pq_registry.service.access import Caller
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS)
Position = Annotated[int | None, Query(ge=0, le=limits.TREE_SIZE)]
RECENT = 10


@router.get("/audit/log", responses=HTML)
async def search_log(
    request: Request, caller: Annotated[Caller, Depends(guard.PAGE_LOG)], service: Service, pages: PageTemplates,
    browsing: Browsing, q: Annotated[str, Query(max_length=limits.PAGE_QUERY_CHARS)] = "", kind: str = "",
    before: Position = None,
) -> Response:  # fmt: skip
    """Leaves by name, digest, key or number, newest first."""
    wanted = Kind.parse(kind).value if kind else None
    text = q.strip()
    leaves, following = await browsing.run(
        service.views.log.search, caller, text, kind=wanted, before=before, limit=limits.PAGE_ROWS
    )
    values = {"leaves": leaves, "following": following, "q": text, "kind": kind, "kinds": [one.value for one in Kind]}
    return pages.answer(request, "log.html", values, caller=caller)


@router.get("/audit/log/{index}", responses=HTML)
async def show_leaf(
    request: Request, index: int, caller: Annotated[Caller, Depends(guard.PAGE_LOG)], service: Service,
    pages: PageTemplates, browsing: Browsing,
) -> Response:  # fmt: skip
    """One leaf, its proof, and its signature as far as the caller may read the statement."""
    values = await browsing.run(_leaf, service, caller, index)
    return pages.answer(request, "leaf.html", values, caller=caller)


def _leaf(service: Registry, caller: Caller, index: int) -> dict[str, Any]:
    views = service.views
    if not 0 <= index < limits.TREE_SIZE:
        raise NotFound(f"no leaf {index}")
    item = views.log.leaf(index)
    leaf = views.log.content(item)
    try:
        signature = views.signatures.signature(caller, item.statement)
    except NotFound:  # the log is public, the namespace is not
        signature = None
    return {
        "item": item,
        "leaf": leaf,
        "signature": signature,
        "namespace": leaf.name.partition("/")[0],
        "algorithms": ALGORITHMS,
        "envelope": "" if signature is None else envelope_path(item.statement),
        "subject": None if signature is None else _subject(leaf),
        "witness_keys": witnesses_of(service),
    }


def _subject(leaf: Leaf) -> str:
    if leaf.kind.of_namespace:
        return f"/namespaces/{leaf.name}"
    path = f"/models/{leaf.name}"
    return f"{path}/releases/{leaf.payload.hex}" if leaf.kind is Kind.RELEASE else path


@router.get("/audit/checkpoint", responses=HTML)
async def show_checkpoint(
    request: Request, caller: Annotated[Caller, Depends(guard.PAGE_LOG)], service: Service, pages: PageTemplates
) -> Response:
    """The newest checkpoint, who cosigned it, and how witnesses keep up."""
    values = await run_in_threadpool(_checkpoint, service)
    base = f"{request.url.scheme}://{request.url.netloc}"
    return pages.answer(request, "checkpoint.html", {**values, "base": base}, caller=caller)


def _checkpoint(service: Registry) -> dict[str, Any]:
    policy = service.ledger.policy
    keys = witnesses_of(service)
    found = service.views.log.checkpoints(limit=limits.CHART_CHECKPOINTS)
    newest = service.views.log.newest(policy)
    named = [(_row_name(item.key.name, item.key.type.value), item.key) for item in keys[: limits.CHART_ROWS]]
    return {
        "newest": newest,
        "signed_at": None if newest is None else newest.time_of(policy.log_pq),
        "witness_keys": keys,
        "witnesses": [(item.key, None if newest is None else newest.time_of(item.key)) for item in keys],
        "rows": charts.dots(found, policy.log_pq, named) if found else (),
        "recent": found[: -RECENT - 1 : -1],
        "now": service.views.now(),
    }


def _row_name(name: str, kind: int) -> str:
    return f"{name} ({'ML-DSA-44' if kind == NoteKeyType.MLDSA44_COSIGNATURE else 'Ed25519'})"


@router.get("/audit/envelopes/{hex}", responses={200: ENVELOPE_ANSWER})
async def show_envelope(
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PAGE_SOMEWHERE)],
    service: Service,
    browsing: Browsing,
) -> Response:
    """The exact envelope of a statement, for the browser that checks it; large ones are for commands."""
    envelope = await browsing.run(service.resolving.statement_envelope, caller, Digest(hex))
    if len(envelope) > limits.PAGE_ENVELOPE_BYTES:
        raise NotFound("this envelope is too large for a page", hint="read it at /v1/statements")
    return Response(envelope, media_type=ENVELOPE_TYPE)
