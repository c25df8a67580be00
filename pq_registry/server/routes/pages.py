# SPDX-License-Identifier: Apache-2.0
"""Pages of the registry: overview, models, releases, tags, namespaces (docs/operations/page.md)."""

from __future__ import annotations

from dataclasses import asdict
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from pq_registry import limits
from pq_registry.crypto.suites import Profile
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.status import RevocationKind
from pq_registry.server import guard
from pq_registry.server.answers import PROBLEMS
from pq_registry.server.guard import Service
from pq_registry.server.heavy import Browsing
from pq_registry.server.pages import charts
from pq_registry.server.pages.cards import ModelQuery, card_pages, shown_card
from pq_registry.server.pages.imports import import_values
from pq_registry.server.pages.modelpage import model_values
from pq_registry.server.pages.proofs import envelope_path, witnesses_of
from pq_registry.server.pages.render import HTML, PageTemplates
from pq_registry.server.routes.repositories import repository_name
from pq_registry.service.access import Caller, Permission
from pq_registry.service.cards import matching
from pq_registry.service.overview import StatusView
from pq_registry.service.registry import Registry

router = APIRouter(responses=PROBLEMS)
LATEST: Final = 8
ALGORITHMS: Final = MappingProxyType(
    {profile.level: {"ec": profile.ec.algorithm, "pq": profile.pq.algorithm} for profile in Profile}
)


@router.get("/", responses=HTML)
async def show_overview(
    request: Request, caller: Annotated[Caller, Depends(guard.PAGE_OPEN)], service: Service, pages: PageTemplates,
    browsing: Browsing,
) -> Response:  # fmt: skip
    """Namespaces, models, the log's last activity, its checkpoint and its witnesses."""
    private_log: bool = request.app.state.config.private_log
    values = await browsing.run(_overview, service, caller, private_log=private_log)
    return pages.answer(request, "overview.html", values, caller=caller)


def _overview(service: Registry, caller: Caller, *, private_log: bool) -> dict[str, Any]:
    views = service.views
    readable = caller.may_somewhere(Permission.READ)
    log_readable = readable or not private_log
    activity = views.overview.activity(caller)
    leaves, _ = views.log.search(caller, "", limit=LATEST) if log_readable else ([], None)
    return {
        "readable": readable,
        "log_readable": log_readable,
        "namespaces": views.overview.namespaces(caller),
        "activity": activity,
        "rows": charts.bars(activity),
        "most": charts.highest(activity),
        "newest": views.log.newest(service.ledger.policy) if log_readable else None,
        "witness_keys": witnesses_of(service),
        "leaves": leaves,
        "now": views.now(),
    }


@router.get("/models", responses=HTML)
async def list_models(
    request: Request, caller: Annotated[Caller, Depends(guard.PAGE_SOMEWHERE)], service: Service, pages: PageTemplates,
    browsing: Browsing, wanted: Annotated[ModelQuery, Depends()], after: str | None = None,
) -> Response:  # fmt: skip
    """The models the caller may read, by name; those that fit, if something is looked for."""
    values = await browsing.run(_models, service, caller, wanted, after)
    return pages.answer(request, "models.html", values, caller=caller)


def _models(service: Registry, caller: Caller, wanted: ModelQuery, after: str | None) -> dict[str, Any]:
    items, following = service.resolving.repositories(
        caller,
        namespace=Namespace(wanted.namespace) if wanted.namespace else None,
        after=None if after is None else RepositoryName.parse(after),
        limit=limits.PAGE_ROWS,
        conditions=matching(wanted.q, wanted.filters()),
    )
    cards = {name: shown.card for name, shown in service.cards.shown(item.name for item in items).items()}
    asked = asdict(wanted)
    return {"items": items, "following": following, "cards": cards, "asked": asked, "narrowed": any(asked.values())}


@router.get("/models/{ns}/{name}", responses=HTML)
async def show_model(
    request: Request, *, ns: str, name: str, caller: Annotated[Caller, Depends(guard.PAGE_READ)], service: Service,
    pages: PageTemplates, browsing: Browsing, after: str | None = None, grants: str | None = None,
) -> Response:  # fmt: skip
    """A model's tags, releases, grants and drafts, its card and where it comes from."""
    repository = repository_name(ns, name)
    values = await browsing.run(model_values, service, caller, repository, after=after, grants=grants)
    cards, language = card_pages(request), pages.language(request)
    shown = await browsing.run(shown_card, cards, service, caller, repository, language)
    return pages.answer(request, "model.html", {**shown, **values, "now": service.views.now()}, caller=caller)


@router.get("/models/{ns}/{name}/releases/{hex}", responses=HTML)
async def show_release_page(
    request: Request,
    *,
    ns: str,
    name: str,
    hex: str,  # noqa: A002 - the path parameter's published name
    caller: Annotated[Caller, Depends(guard.PAGE_READ)],
    service: Service,
    pages: PageTemplates,
    browsing: Browsing,
    files: Annotated[int, Query(ge=0, le=limits.FILES)] = 0,
) -> Response:
    """A release: the state of both halves of its signature, its leaf, its files."""
    repository, digest, language = repository_name(ns, name), Digest(hex), pages.language(request)
    values = await browsing.run(_release, service, repository, digest, first=files)
    card = await browsing.run(
        card_pages(request).values, service, repository, digest, values["view"].manifest, language
    )
    return pages.answer(request, "release.html", {**values, **card}, caller=caller)


def _release(service: Registry, name: RepositoryName, digest: Digest, *, first: int) -> dict[str, Any]:
    views = service.views
    view = views.signatures.release(name, digest)
    item = views.log.leaf_of(digest)
    grants, _ = service.granting.list(name, release=digest, recipient=None, after=None, limit=limits.PAGE_ROWS)
    end = first + limits.PAGE_ROWS
    revoked = _revoked(views.overview.status(name.namespace), RevocationKind.RELEASE)
    return {
        "name": name,
        "namespace": name.namespace,
        "view": view,
        "signature": view.signature,
        "algorithms": ALGORITHMS,
        "item": item,
        "leaf": None if item is None else views.log.content(item),
        "envelope": envelope_path(digest),
        "files": view.manifest.files[first:end],
        "more_files": end if end < len(view.manifest.files) else None,
        "grants": grants,
        "revoked": revoked.get(str(digest)),
        "witness_keys": witnesses_of(service),
        "now": views.now(),
        **import_values(service, view.manifest),
    }


@router.get("/models/{ns}/{name}/tags/{tag}", responses=HTML)
async def show_tag_page(
    request: Request, ns: str, name: str, tag: str, caller: Annotated[Caller, Depends(guard.PAGE_READ)],
    service: Service, pages: PageTemplates, before: Annotated[int | None, Query(ge=1, le=limits.JSON_INTEGER)] = None,
) -> Response:  # fmt: skip
    """Every statement of a tag, newest first."""
    repository, views = repository_name(ns, name), service.views
    moves = await run_in_threadpool(
        views.signatures.tag_history, repository, Tag(tag), before=before, limit=limits.PAGE_ROWS
    )
    found = await run_in_threadpool(views.log.leaves_of, [move.digest for move in moves])
    earlier = moves[-1].statement.sequence if moves and moves[-1].statement.sequence > 1 else None
    values = {"name": repository, "tag": tag, "moves": moves, "leaves_by_statement": found, "earlier": earlier}
    return pages.answer(request, "tag.html", values, caller=caller)


@router.get("/namespaces/{ns}", responses=HTML)
async def show_namespace(
    request: Request, ns: str, caller: Annotated[Caller, Depends(guard.PAGE_READ)], service: Service,
    pages: PageTemplates, browsing: Browsing,
) -> Response:  # fmt: skip
    """Who may sign in a namespace, what was signed, and what is revoked."""
    values = await browsing.run(_namespace, service, caller, Namespace(ns))
    return pages.answer(request, "namespace.html", values, caller=caller)


def _namespace(service: Registry, caller: Caller, namespace: Namespace) -> dict[str, Any]:
    overview = service.views.overview
    status = overview.status(namespace)
    activity = overview.activity(caller, namespace=namespace)
    return {
        "namespace": str(namespace),
        "status": status,
        "identities": overview.identities(namespace),
        "revoked_identities": {
            subject: entry.since for subject, entry in _revoked(status, RevocationKind.IDENTITY).items()
        },
        "activity": activity,
        "rows": charts.bars(activity),
        "most": charts.highest(activity),
    }


def _revoked(status: StatusView | None, kind: RevocationKind) -> dict[str, Any]:
    entries = () if status is None else status.statement.revoked
    return {entry.subject: entry for entry in entries if entry.kind is kind}
