# SPDX-License-Identifier: Apache-2.0
"""A repository that has nothing but drafts, made through the use cases, and short words for changing them."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.service.access import Caller, Rights, Role
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.drafts import Drafts
from pq_registry.service.hub.model import Branch, Commit
from pq_registry.service.registry import Registry
from pq_registry.storage.catalogue.hubtables import DraftCommitRow
from pq_registry.storage.fsck import check_registry
from tests.faults.publishing import upload
from tests.samples import REPOSITORY

MAIN, DEV = Branch("main"), Branch("dev/x")
TAG = Branch("v1")
OTHER = RepositoryName.parse("acme/other")
A, B = b"weights, first try", b"weights, second try"
DAY = timedelta(days=1)


def caller(role: Role, namespace: str = "acme") -> Caller:
    rights = Rights(role=role, namespaces=frozenset({namespace}))
    return Caller(token_id=f"{role.value}00", rights=rights, expires=None, public_read=False, request_id="r")


PUBLISHER, READER, STRANGER = caller(Role.PUBLISHER), caller(Role.READER), caller(Role.OWNER, "else")


def put(*files: tuple[str, bytes]) -> Changes:
    return Changes(put={path: (Digest.of(content), len(content)) for path, content in files})


def commit(drafts: Drafts, changes: Changes, branch: Branch = MAIN, title: str = "t", **options: object) -> Commit:
    parent = options.get("parent")
    assert parent is None or isinstance(parent, Commit)
    return drafts.commit(PUBLISHER, REPOSITORY, branch, changes, title=title, message="", parent=parent)


def paths(drafts: Drafts, branch: Branch = MAIN) -> list[str]:
    return [file.path.text for file in drafts.contents(PUBLISHER, REPOSITORY, branch)[1]]


def problems(registry: Registry) -> list[str]:
    return [f"{item.subject}: {item.problem}" for item in check_registry(registry.catalogue, registry.blobs)]


def history(registry: Registry) -> set[str]:
    with registry.catalogue.reading() as session:
        return {row.title for row in session.scalars(select(DraftCommitRow))}


def begun(registry: Registry) -> Drafts:
    """The drafts of a registry in which acme/minilm was made, and A and B uploaded."""
    assert registry.drafts.create(PUBLISHER, REPOSITORY, exist_ok=False)
    for content in (A, B):
        upload(registry, content)
    return registry.drafts
