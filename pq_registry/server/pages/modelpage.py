# SPDX-License-Identifier: Apache-2.0
"""What the page of a model shows of its tags, releases, grants and drafts.

A model that has nothing but drafts has a page for those who may read them, and for nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pq_registry import limits
from pq_registry.errors import NotFound
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller
from pq_registry.service.hub.draftview import Draft
from pq_registry.service.hub.model import DRAFT, MAIN
from pq_registry.service.registry import Registry
from pq_registry.service.resolve import RepositoryView


def model_values(
    service: Registry, caller: Caller, name: RepositoryName, *, after: str | None, grants: str | None
) -> dict[str, Any]:
    """The values of the template.

    Raises:
        NotFound: if there is no such repository for this caller.
        FormatError: if ``after`` or ``grants`` is no place in a listing.
    """
    place = None if after is None else Digest.parse(after)
    drafts = service.drafts.listing(caller, name)
    try:
        view = service.resolving.repository(name, after=place, limit=limits.PAGE_ROWS)
    except NotFound:
        if not drafts:
            raise
        empty = RepositoryView(str(name), [], [], None)
        return {"name": name, "view": empty, "grants": [], "mirrors": [], **_drafts(name, drafts)}
    found, more = service.granting.list(name, release=None, recipient=None, after=grants, limit=limits.PAGE_ROWS)
    mirrors, older = service.mirrors.list(name, limit=limits.PAGE_ROWS)
    return {
        "name": name, "view": view, "grants": found, "more_grants": more, "mirrors": mirrors, "more_mirrors": older,
        **_drafts(name, drafts),
    }  # fmt: skip


def _drafts(name: RepositoryName, drafts: Sequence[Draft]) -> dict[str, Any]:
    """The drafts, main first, and how a first one that can be signed, or dropped, is written on the command line."""
    drafts = sorted(drafts, key=lambda draft: draft.name != MAIN)
    signable = next((draft for draft in drafts if draft.release is None), None)
    return {
        "drafts": drafts,
        "to_sign": None if signable is None else _reference(name, signable),
        "to_drop": _reference(name, drafts[0]) if drafts else None,
    }


def _reference(name: RepositoryName, draft: Draft) -> str:
    return f"{name}@{DRAFT}" + ("" if draft.name == MAIN else f"/{draft.name}")
