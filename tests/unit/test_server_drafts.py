# SPDX-License-Identifier: Apache-2.0
"""Drafts by our own routes: who sees which, that each answer says nobody signed it, and the setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pq_registry.errors import SettingError
from pq_registry.format.digest import Digest
from pq_registry.format.name import RepositoryName
from pq_registry.server.config import parse_drafts
from pq_registry.service.hub.changes import Changes
from pq_registry.service.hub.model import Branch, Commit
from pq_registry.service.hub.policy import DraftPolicy
from pq_registry.service.tokens import host_caller

if TYPE_CHECKING:
    from tests.server_harness import RunningRegistry

CONTENT = b"a draft's only file"


def make_draft(registry: RunningRegistry, name: RepositoryName, branch: str = "main") -> Commit:
    """A draft with one file; the repository is made if need be."""
    drafts, caller = registry.registry.drafts, host_caller()
    drafts.create(caller, name, exist_ok=True)
    registry.upload(CONTENT, name)
    changes = Changes(put={"notes.txt": (Digest.of(CONTENT), None)})
    return drafts.commit(caller, name, Branch(branch), changes, title="first words", message="", parent=None)


def test_a_draft_is_shown_and_dropped(shared_registry: RunningRegistry) -> None:
    name = RepositoryName.parse("acme/shown")
    head = make_draft(shared_registry, name, "dev/x")
    publisher = shared_registry.as_role("publisher")
    listed = publisher.get(f"/v1/repos/{name}/drafts")
    assert [item["name"] for item in listed.json["items"]] == ["dev/x", "main"]
    shown = publisher.get(f"/v1/repos/{name}/drafts/dev/x")
    assert shown.json["head"] == str(head)
    assert shown.json["listing"] == [{"path": "notes.txt", "sha256": str(Digest.of(CONTENT)), "size": len(CONTENT)}]
    assert publisher.get(f"/v1/repos/{name}/drafts/dev%2Fx").json == shown.json
    for answer in (listed, shown):
        assert (answer.headers["x-pqreg-signed"], answer.headers["cache-control"]) == ("false", "no-store")
    path = f"/v1/repos/{name}/drafts/dev/x"
    assert publisher.request("DELETE", f"{path}?head={'0' * 40}").code == "conflict"
    assert publisher.request("DELETE", f"{path}?head={head}").status == 204
    assert publisher.request("DELETE", path).code == "revision-not-found"
    assert publisher.get(path).code == "revision-not-found"


def test_a_draft_is_not_there_for_readers_unless_they_may(shared_registry: RunningRegistry) -> None:
    name = RepositoryName.parse("acme/hidden")
    make_draft(shared_registry, name)
    reader, stranger = shared_registry.as_role("reader"), shared_registry.as_role("owner", "else")
    for path in (f"/v1/repos/{name}/drafts", f"/v1/repos/{name}/drafts/main", f"/v1/repos/{name}"):
        assert reader.get(path).code == "not-found"
        assert stranger.get(path).code == "access-denied"
        assert shared_registry.with_token(None).get(path).status == 401
    policy = shared_registry.registry.drafts.policy
    shared_registry.registry.drafts.policy = DraftPolicy.READERS
    try:
        assert reader.get(f"/v1/repos/{name}/drafts/main").status == 200
        assert reader.request("DELETE", f"/v1/repos/{name}/drafts/main").code == "access-denied"
        assert stranger.get(f"/v1/repos/{name}/drafts/main").code == "access-denied"
    finally:
        shared_registry.registry.drafts.policy = policy


def test_a_repository_of_drafts_is_in_no_listing(shared_registry: RunningRegistry) -> None:
    make_draft(shared_registry, RepositoryName.parse("acme/unlisted"))
    listed = shared_registry.get("/v1/repos?namespace=acme").json["items"]
    assert "acme/unlisted" not in [item["name"] for item in listed]


def test_the_setting() -> None:
    assert [parse_drafts(text) for text in ("publishers", "Readers", "off")] == list(DraftPolicy)
    with pytest.raises(SettingError, match="setting drafts is wrong"):
        parse_drafts("everyone")
